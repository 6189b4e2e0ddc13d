"""The recipe ``deep-markov``: sequences from a chain of latent vectors."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.data.spread import center_and_units
from subo.models.deep_markov import BackwardReader, Combiner, GatedTransition, Smoother, Start
from subo.models.emission import Emission
from subo.models.markov import Markov
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian, ScaleSource
from subo.parts.networks import ACTIVATIONS, Standardize, mlp
from subo.recipes.builders import (
    ActivationName,
    BoundName,
    LikelihoodName,
    from_mean,
    make_bound,
    make_gradient,
    make_likelihood,
)
from subo.runtime.arguments import checked_arguments
from subo.runtime.room import fits_memory

__all__ = ["deep_markov"]

CellName = Literal["gru", "lstm", "rnn"]
TransitionName = Literal["gated", "mlp", "linear"]
ChainGradientName = Literal["pathwise", "sticking-the-landing", "dreg", "score-function"]


@checked_arguments
@fits_memory
def deep_markov(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    likelihood: LikelihoodName = "auto",
    scale: ScaleSource = "per-dimension",
    min_scale: float | None = 1e-3,
    num_classes: int | tuple[int, ...] | None = None,
    latent_dim: int = 32,
    transition: TransitionName = "gated",
    transition_hidden: int = 200,
    hidden: tuple[int, ...] = (100, 100),
    reader: CellName = "gru",
    reader_hidden: int = 200,
    dropout: float = 0.0,
    activation: ActivationName = "relu",
    bound: BoundName = "elbo",
    num_samples: int = 1,
    beta: float = 1.0,
    free_bits: float = 0.0,
    alpha: float = 0.5,
    groups: int = 2,
    gradient: ChainGradientName = "pathwise",
) -> Objective:
    """A deep Markov model of sequences: a chain of latent vectors, an emission for each step, a backward reader as q.

    Args:
        event_shape: Shape of one time step.
        examples: Steps of training data, from which units and their mean are taken; without them these are
            placeholders, for weights that are loaded next.
        num_data: Number of training data; not needed here.
        likelihood: p(x_t|z_t); auto takes bernoulli for bits, gaussian for all other numbers. poisson is for counts,
            categorical for classes, continuous-bernoulli for values that are bound to [0, 1].
        scale: Scale of a gaussian or laplace likelihood, how far x lies from the mean of p(x|z): a fixed number, or
            learned: one for all of x (shared), one for each number in x (per-dimension), or computed from z by the
            decoder (network). 1 is the standard deviation of the data, of each column of a table; values far from the
            others do not count in it.
        min_scale: The smallest that this scale may become: at 0 the density would be infinite. Of a
            continuous-bernoulli likelihood about the smallest standard deviation of its values, which lie in [0, 1];
            in Python, None sets that one no limit.
        num_classes: Values 0 .. num_classes - 1 of a categorical likelihood, one number or one for each column; as
            many as the data's by default.
        latent_dim: Size of z_t.
        transition: How z_t depends on z_(t-1): a network gated with a linear map, a plain network, or a linear map.
        transition_hidden: Width of its hidden layers.
        hidden: Widths of the hidden layers of p(x_t|z_t), the emission, such as 100,100.
        reader: Kind of the recurrent network of q.
        reader_hidden: Width of its state.
        dropout: Share of the reader's inputs that are dropped in training.
        activation: Nonlinearity of the emission.
        bound: What is maximised.
        num_samples: Samples K of z a sequence in training.
        beta: Weight of the KL in elbo's gradient; what is reported has weight 1.
        free_bits: Nats per sequence below which elbo's gradient leaves the KL alone.
        alpha: Order of the renyi bound.
        groups: Groups of samples of the miwae bound; it is iwae with one, elbo with as many as samples.
        gradient: How the bound's gradient is estimated.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings make no sense together.

    Example:
        >>> import torch
        >>> objective = deep_markov((88,), likelihood="bernoulli", latent_dim=4)
        >>> objective(torch.zeros(3, 7, 88), {"mask": torch.ones(3, 7, dtype=torch.bool)}).bound.shape
        torch.Size([3])
    """
    event = Size(event_shape)
    center, unit, fine = center_and_units(examples, event)
    family = make_likelihood(likelihood, event, scale, min_scale, num_classes, center, fine)
    network = mlp(latent_dim, family.num_params, hidden=hidden, activation=ACTIVATIONS[activation])
    decoder = from_mean(network, family, examples)
    encoder = nn.Sequential(Standardize(center, unit), nn.Flatten(), nn.Dropout(dropout))
    posterior = Smoother(
        BackwardReader(encoder, event.numel(), hidden=reader_hidden, cell=reader),
        Combiner(latent_dim, reader_hidden),
        latent_dim,
    )
    steps: dict[str, nn.Module] = {
        "gated": GatedTransition(latent_dim, hidden=transition_hidden),
        "mlp": mlp(latent_dim, 2 * latent_dim, hidden=(transition_hidden,), activation=nn.ReLU),
        "linear": nn.Linear(latent_dim, 2 * latent_dim),
    }
    prior = Markov(Start((latent_dim,)), Conditional(Gaussian((latent_dim,)), steps[transition]))
    followed = make_bound(
        bound, beta, free_bits, closed_form_kl=True, alpha=alpha, groups=groups, num_samples=num_samples
    )
    estimator = make_gradient(
        gradient,
        "auto",
        normalize=False,
        temperature=0.5,
        latents="gaussian",
        bound=followed,
        num_samples=num_samples,
        network=nn.Identity,
    )
    return Objective(
        VAE(prior, Emission(family, decoder), posterior), followed, gradient=estimator, num_samples=num_samples
    )
