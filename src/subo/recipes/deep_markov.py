"""The recipe ``deep-markov``: sequences from a chain of latent vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.data.spread import observed_in_turn
from subo.models.deep_markov import BackwardReader, Combiner, GatedTransition, Smoother, Start
from subo.models.emission import Emission
from subo.models.markov import Markov
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian
from subo.parts.networks import ACTIVATIONS, mlp
from subo.parts.registry import made
from subo.recipes.bound_options import BoundOptions, GradientOptions
from subo.recipes.options import ActivationName, LikelihoodOptions
from subo.recipes.recipe import recipe

__all__ = ["deep_markov"]


def _gated(dim: int, *, transition_hidden: int) -> nn.Module:
    return GatedTransition(dim, hidden=transition_hidden)


def _plain(dim: int, *, transition_hidden: int) -> nn.Module:
    return mlp(dim, 2 * dim, hidden=(transition_hidden,), activation=nn.ReLU)


def _linear(dim: int) -> nn.Module:
    return nn.Linear(dim, 2 * dim)


@dataclass(frozen=True)
class TransitionOptions:
    """How a latent vector depends on the previous one.

    Args:
        transition: How z_t depends on z_(t-1): a network gated with a linear map, a plain network, or a linear map.
        transition_hidden: Width of its hidden layers.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "transition": {"gated": _gated, "mlp": _plain, "linear": _linear}
    }

    transition: Literal["gated", "mlp", "linear"] = "gated"
    transition_hidden: int = 200

    def build(self, dim: int) -> nn.Module:
        """From z_(t-1) to the parameters of a Gaussian."""
        return made(self.CHOICES["transition"][self.transition], dim, **asdict(self))


@dataclass(frozen=True)
class ReaderOptions:
    """The recurrent network of q, which reads a sequence backwards.

    Args:
        reader: Kind of the recurrent network of q.
        reader_hidden: Size of the reader's state.
        dropout: Share of the reader's inputs that are dropped in training.
        missing_indicator: Whether the reader also receives which values of a step are observed; by default if some
            are missing.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    reader: Literal["gru", "lstm", "rnn"] = "gru"
    reader_hidden: int = 200
    dropout: float = 0.0
    missing_indicator: bool | None = None

    def build(self, standardize: nn.Module, width: int, dim: int) -> Smoother:
        """Builds q, given the number of elements of a step and of a latent."""
        encoder = nn.Sequential(standardize, nn.Flatten(), nn.Dropout(self.dropout))
        options: dict[str, Any] = {"cell": self.reader, "missing_indicator": bool(self.missing_indicator)}
        reader = BackwardReader(encoder, width, hidden=self.reader_hidden, **options)
        return Smoother(reader, Combiner(dim, self.reader_hidden), dim)


@recipe
def deep_markov(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    likelihood: LikelihoodOptions,
    latent_dim: int = 32,
    transition: TransitionOptions,
    hidden: tuple[int, ...] = (100, 100),
    reader: ReaderOptions,
    activation: ActivationName = "relu",
    bound: BoundOptions,
    gradient: GradientOptions,
) -> Objective:
    """A deep Markov model of sequences: a chain of latent vectors, an emission for each step, a backward reader as q.

    Args:
        event_shape: Shape of one time step.
        examples: Steps of training data, which set the units and their mean; NaN where a value is missing. Without
            them these are placeholders, for weights that are loaded next.
        num_data: Number of training examples; not needed here.
        latent_dim: Size of z_t.
        hidden: Widths of the hidden layers of p(x_t|z_t), the emission, such as 100,100.
        activation: Nonlinearity of the emission.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings are incompatible.

    Example:
        >>> import torch
        >>> objective = deep_markov((88,), likelihood="bernoulli", latent_dim=4)
        >>> objective(torch.zeros(3, 7, 88), {"mask": torch.ones(3, 7, dtype=torch.bool)}).bound.shape
        torch.Size([3])
    """
    event = Size(event_shape)
    known = None if examples is None else observed_in_turn(examples)
    ends = likelihood.build(event, examples=known, of_steps=True)
    family = ends.family
    network = mlp(latent_dim, family.num_params, hidden=hidden, activation=ACTIVATIONS[activation])
    decoder = ends.start(network)
    posterior = reader.build(ends.entry(), ends.inputs.numel(), latent_dim)
    prior = Markov(Start((latent_dim,)), Conditional(Gaussian((latent_dim,)), transition.build(latent_dim)))
    followed, num_samples = bound.build(), bound.num_samples
    estimator = gradient.build(ends)
    model = VAE(prior, Emission(family, decoder), posterior)
    return Objective(model, followed, gradient=estimator, num_samples=num_samples)
