"""The recipe ``vae``: a variational autoencoder with one latent vector, from any combination of parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.bounds import Bound
from subo.core.objective import Objective
from subo.core.offers import ZeroInflating
from subo.data.size_factors import OBSERVED
from subo.errors import InputError
from subo.inference.semi_amortized import Refined
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional, Local
from subo.parts.families import Family, NamedFamily
from subo.parts.labels import Stack
from subo.parts.registry import made
from subo.parts.size_factors import SumToTotal, WithOffset, log_means_of
from subo.recipes.bound_options import BoundOptions, GradientOptions
from subo.recipes.condition import ConditionOptions
from subo.recipes.options import LatentOptions, LikelihoodOptions, NetworkOptions
from subo.recipes.recipe import recipe

__all__ = ["vae"]


# The source of the posterior's parameters: from a model with an encoder to one with the chosen inference


def _amortized(model: VAE) -> VAE:
    return model


def _local(model: VAE) -> VAE:
    return model  # its posterior consists of rows


def _semi_amortized(
    model: VAE,
    *,
    bound: Bound,
    num_samples: int,
    refinement_steps: int,
    refinement_rate: float,
    refinement_through: bool,
) -> VAE:
    refined = Refined(
        model,
        steps=refinement_steps,
        learning_rate=refinement_rate,
        through=refinement_through,
        bound=bound,
        num_samples=num_samples,
    )
    return VAE(model.prior, model.likelihood, refined)


@dataclass(frozen=True)
class InferenceOptions:
    """The source of the posterior's parameters.

    Args:
        inference: Source of the posterior's parameters: a network of x (amortized), a free row per
            example (local), or the network followed by gradient steps for each example (semi-amortized).
        refinement_steps: Number of gradient steps of semi-amortized inference, in training and after.
        refinement_rate: Size of those steps.
        refinement_through: Whether the training gradient flows through those steps, or stops there.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "inference": {"amortized": _amortized, "local": _local, "semi-amortized": _semi_amortized}
    }

    inference: Literal["amortized", "local", "semi-amortized"] = "amortized"
    refinement_steps: int = 10
    refinement_rate: float = 0.1
    refinement_through: bool = True

    def build_posterior(self, family: Family, num_data: int | None, encoder: Callable[[int], nn.Module]) -> nn.Module:
        """q(z|x), with parameters from an encoder or from free rows."""
        if self.inference != "local":
            return Conditional(family, encoder(family.num_params))
        if num_data is None:
            raise InputError("local inference keeps a row of parameters for every training example: give num_data")
        return Local(family, num_data)

    def build(self, model: VAE, bound: Bound, num_samples: int) -> VAE:
        """The model with the chosen inference."""
        entry = self.CHOICES["inference"][self.inference]
        return made(entry, model, bound=bound, num_samples=num_samples, **asdict(self))


@recipe
def vae(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | tuple[Tensor, Mapping[str, Tensor]] | None = None,
    num_data: int | None = None,
    columns: tuple[str, ...] | None = None,
    given: tuple[str, ...] | None = None,
    likelihood: LikelihoodOptions,
    condition: ConditionOptions,
    latents: LatentOptions,
    inference: InferenceOptions,
    network: NetworkOptions,
    bound: BoundOptions,
    gradient: GradientOptions,
) -> Objective:
    """A variational autoencoder with one latent vector, from any combination of parts.

    Args:
        event_shape: Shape of one example.
        examples: Some training data, which set the units, the mean image and pseudo-inputs; without them
            these are placeholders, for weights that are loaded next. With a condition on columns or a size factor a
            pair: the examples, and their context, of which ``given`` and ``size`` are used.
        num_data: Number of training examples; needed by local inference.
        columns: What the columns of a table are, see :class:`subo.parts.columns.Columns`; None for other data.
        given: What those columns of a table are that the model is conditioned on; None without any.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings are incompatible.

    Example:
        >>> objective = vae((64,), likelihood="bernoulli", latent_dim=2, prior="vamp", bound="iwae", num_samples=5)
        >>> objective(torch.zeros(3, 64)).bound.shape
        torch.Size([3])
    """
    event = Size(event_shape)
    known, context = examples if isinstance(examples, tuple) else (examples, {})
    ends, space = likelihood.build(event, examples=known, columns=columns), latents.build_family()
    ends = ends.per_size(context.get("size")) if condition.is_sized else ends
    family, entry = ends.family, ends.entry()
    widened = condition.build(given=given, given_examples=context.get("given"))
    is_conditional = widened is not None or condition.is_sized

    def conditioned(make: Callable[[Size], nn.Module], shape: Size, *, planes: bool = False) -> nn.Module:
        """A network for inputs of this shape, plus the condition if there is one."""
        return make(shape) if widened is None else widened(make, shape, planes=planes)

    def decoder(shape: Size) -> nn.Module:
        return ends.start(network.decoder(shape, family))

    def encoder(outputs: int) -> nn.Module:
        chain = Stack if is_conditional else nn.Sequential  # the first passes the condition on
        body = conditioned(lambda shape: network.encoder(shape, outputs), ends.inputs, planes=network.network == "conv")
        return chain(entry, body)

    decoding = conditioned(decoder, space.event_shape)
    if condition.size_factor == OBSERVED and columns is None:  # cells of several kinds have no total
        logits = family.zero_logits if isinstance(family, ZeroInflating) else None
        decoding = SumToTotal(decoding, log_means_of(family), ends.total(context.get("size")), zero_logits=logits)
    p_x = Conditional(family, WithOffset(decoding, log_means_of(family)) if condition.is_sized else decoding)
    q = inference.build_posterior(space, num_data, encoder)
    _check_together(latents, inference, gradient, space, is_conditional=is_conditional)
    seen = (q, known)
    if latents.prior == "vamp" and columns is not None and isinstance(q, Conditional):
        seen = _behind(entry, q, known)
    p_z = latents.build_prior(
        space, posterior=seen[0], likelihood=family, inputs=ends.inputs, examples=seen[1], num_labels=condition.classes
    )
    followed = bound.build()
    estimator = gradient.build(ends)
    estimator.check(space(torch.zeros(1, space.num_params)), followed, num_samples=bound.num_samples)
    model = inference.build(VAE(p_z, p_x, q), followed, bound.num_samples)
    return Objective(model, followed, gradient=estimator, num_samples=bound.num_samples)


def _behind(entry: nn.Module, q: Conditional, examples: Tensor | None) -> tuple[Conditional, Tensor | None]:
    """The posterior behind its entry, of what a network sees: pseudo-inputs between a table's levels exist there alone.

    It has the parameters of q.
    """
    network: Any = q.network
    return Conditional(q.family, network[1]), None if examples is None else entry(examples)


def _check_together(
    latents: LatentOptions,
    inference: InferenceOptions,
    gradient: GradientOptions,
    space: NamedFamily,
    *,
    is_conditional: bool,
) -> None:
    """Refuses settings that exclude each other."""
    if inference.inference == "semi-amortized" and space.is_discrete:
        raise InputError(
            f"semi-amortized inference moves q along the path through z, but {latents.posterior} latents have none: "
            "use inference amortized or local"
        )
    if latents.prior != "vamp":
        return
    if gradient.normalize_signal:
        raise InputError(
            "normalize_signal scales the posterior's gradient, but the vamp prior contains the posterior, and the "
            "gradient through it would not be scaled: use another prior, or leave it out"
        )
    if is_conditional:
        raise InputError(
            "the vamp prior is a mixture of q(z|u) at inputs u, but with a condition q also needs the c of p(x|c), "
            "which the u do not have: use the prior auto, or mixture"
        )
