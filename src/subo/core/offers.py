"""What a part may offer beyond its call, and who asks for it: everything optional in one place.

A part that offers nothing works everywhere; an offer makes a number better, faster or possible. Those that are asked
at every step are looked up by name, since ``isinstance`` of a Protocol costs as much as a small layer; their Protocols
are here to be read. The others are checked with ``isinstance``.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Size, Tensor
from torch.distributions import Distribution

__all__ = [
    "Floored",
    "Layered",
    "Limited",
    "Mixture",
    "OwnDensity",
    "Shaping",
    "StartsAtMean",
    "Tempered",
    "Unflattens",
]


# Of a family


@runtime_checkable
class Limited(Protocol):
    """A family whose events lie in a bounded interval: a VampPrior keeps its pseudo-inputs there.

    A density without limits is taken to be one of all real numbers, whose data may be dequantized.
    """

    limits: ClassVar[tuple[float, float]]


@runtime_checkable
class StartsAtMean(Protocol):
    """A family with parameters for any mean: an untrained decoder starts at that of the data.

    A family whose ``center`` is the data's mean has no need of it.
    """

    def params_of_mean(self, mean: Tensor) -> Tensor:
        """The parameters, num_params numbers in any shape, of a distribution with this mean, ``(*event)``."""
        ...


@runtime_checkable
class Floored(Protocol):
    """A family whose density has a floor below its scale: the evaluation tells how much leans on it."""

    def share_at_floor(self, distribution: Any) -> float | None:
        """Share of the scales of a distribution that the family made within 5% of the floor; None without one."""
        ...


# Of a distribution


class Unflattens(Protocol):
    """A distribution that K samples of one example are weighed with, without a copy of x for each of them."""

    def unflatten(self, sizes: tuple[int, ...]) -> Distribution:
        """The same distribution with its first batch dimension cut into `sizes`; a view."""
        ...


class OwnDensity(Protocol):
    """A distribution that knows the density of what it draws, at less than the price of ``log_prob``."""

    def rsample_and_log_prob(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Samples and their log-density; where no gradient is asked, `sample_and_log_prob` is preferred."""
        ...


class Layered(Protocol):
    """A posterior over several layers of latents, such as a graph's."""

    def factors(self, p: Distribution, z: Any) -> tuple[Any, ...]:
        """A :class:`~subo.Factor` for each layer, of the prior p and the latents z."""
        ...


# Of a prior


@runtime_checkable
class Mixture(Protocol):
    """A prior that weighs each latent with several components: fewer latents are evaluated at a time."""

    @property
    def num_components(self) -> int:
        """How many."""
        ...


# Of a bound


@runtime_checkable
class Shaping(Protocol):
    """A callable that training follows and that is no bound on log p(x) itself."""

    def reported(self) -> Any:
        """The bound that it shapes, which is reported in its place."""
        ...


@runtime_checkable
class Tempered(Protocol):
    """A bound with a KL term whose weight can be warmed up."""

    def tempered(self, weight: float) -> Any:
        """The same with its KL's weight multiplied."""
        ...
