"""What a part may offer beyond its call, and what uses it: everything optional in one place.

A part that offers nothing works everywhere; an offer makes a number better, faster or possible. Those needed at
every step are looked up by name, since ``isinstance`` of a Protocol costs as much as a small layer; their Protocols
serve as documentation. The others are checked with ``isinstance``.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Size, Tensor
from torch.distributions import Distribution

__all__ = [
    "Exposed",
    "Floored",
    "Layered",
    "Limited",
    "Mixture",
    "OwnDensity",
    "Shaping",
    "StartsAtExamples",
    "StartsAtMean",
    "Tempered",
    "Unflattens",
    "ZeroInflating",
]


# Offers of a family


@runtime_checkable
class Limited(Protocol):
    """A family whose events lie in a bounded interval: a VampPrior keeps its pseudo-inputs there.

    A density without limits is assumed to cover all real numbers, so that its data may be dequantized.
    """

    limits: ClassVar[tuple[float, float]]


@runtime_checkable
class StartsAtMean(Protocol):
    """A family with parameters for any mean: an untrained decoder starts at the data's mean.

    A family whose ``center`` is the data's mean does not need it.
    """

    def params_of_mean(self, mean: Tensor) -> Tensor:
        """The parameters, num_params numbers in any shape, of a distribution with this mean, ``(*event)``."""
        ...


@runtime_checkable
class Exposed(Protocol):
    """A family of counts whose means may be multiplied by a size of each row, such as its total."""

    @property
    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means: ``(num_params,)`` booleans, in the order of a flat network."""
        ...


@runtime_checkable
class ZeroInflating(Protocol):
    """A family of counts that are 0 with a further probability, which lowers their means."""

    @property
    def zero_logits(self) -> Tensor:
        """Which parameters are logits of these probabilities, as :attr:`Exposed.log_means`, in the same order."""
        ...


@runtime_checkable
class StartsAtExamples(Protocol):
    """A family with parameters that describe some examples: an untrained decoder starts there."""

    def start(self, examples: Tensor) -> Tensor:
        """The parameters, num_params numbers, for examples ``(N, *event)``; sets those of the family's own, too."""
        ...


@runtime_checkable
class Floored(Protocol):
    """A family whose scale has a floor: the evaluation reports how many scales are at it."""

    def share_at_floor(self, distribution: Any) -> float | None:
        """Share of scales within 5% of the floor, for a distribution that the family made; None without a floor."""
        ...


# Offers of a distribution


class Unflattens(Protocol):
    """A distribution that weights K samples of one example without a copy of x for each of them."""

    def unflatten(self, sizes: tuple[int, ...]) -> Distribution:
        """The same distribution with its first batch dimension split into `sizes`; a view."""
        ...


class OwnDensity(Protocol):
    """A distribution that knows the density of what it draws at a lower cost than ``log_prob``."""

    def rsample_and_log_prob(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Samples and their log-density; where no gradient is needed, `sample_and_log_prob` is preferred."""
        ...


class Layered(Protocol):
    """A posterior over several layers of latents, such as a graph's."""

    def factors(self, p: Distribution, z: Any) -> tuple[Any, ...]:
        """A :class:`~subo.Factor` for each layer, given the prior p and the latents z."""
        ...


# Offers of a prior


@runtime_checkable
class Mixture(Protocol):
    """A prior that evaluates several components per latent: fewer latents are processed at a time."""

    @property
    def num_components(self) -> int:
        """Number of components."""
        ...


# Offers of a bound


@runtime_checkable
class Shaping(Protocol):
    """A callable that training follows and that is not itself a bound on log p(x)."""

    def reported(self) -> Any:
        """The bound that it shapes, which is reported instead."""
        ...


@runtime_checkable
class Tempered(Protocol):
    """A bound with a KL term whose weight can be warmed up."""

    def tempered(self, weight: float) -> Any:
        """The same bound with the weight of its KL multiplied; by a tensor in a recorded or compiled step."""
        ...
