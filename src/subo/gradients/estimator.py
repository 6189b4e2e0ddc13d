"""What a gradient estimator is.

An estimator gives a *surrogate*, one number a datum, of which only the gradient is used; the objective joins it with
the bound's value. So the number that is logged is the bound, whatever the estimator.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from subo.bounds import Bound
from subo.errors import InputError
from subo.model import Draw, Factor
from subo.typing import Context, Path

__all__ = ["GradientEstimator", "kind_of", "needs_samples", "only_layer"]


class GradientEstimator(nn.Module, ABC):
    """How the gradient of a bound is estimated. A module, since an estimator may learn something (a baseline)."""

    path: Path
    """How z is drawn: along the path (``rsample``), without one (``sample``), or by a path of the estimator's own."""

    biased: ClassVar[str] = ""
    """In what way its gradient is not the bound's; empty where it is."""

    @abstractmethod
    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        """One number a datum whose gradient estimates the bound's; its value means nothing."""

    @abstractmethod
    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        """Raises an InputError that says what to use instead where the combination makes no sense."""


def only_layer(draw: Draw, estimator: GradientEstimator) -> Factor:
    """The one stochastic layer of a draw, for estimators whose derivation has only one."""
    factor, *others = draw.factors
    if others:
        raise InputError(
            f"{type(estimator).__name__} is exact for one stochastic layer, and this model has {len(draw.factors)}. "
            "Use Pathwise, or ScoreFunction where there is no path."
        )
    return factor


def kind_of(q: Distribution) -> str:
    """What a message calls a distribution: the kind of its elements."""
    while isinstance(q, Independent) and type(q) is Independent:
        q = q.base_dist
    return type(q).__name__


def needs_samples(num_samples: int, what: str, instead: str) -> None:
    """Refuses a lone sample, which has no others to be compared with."""
    if num_samples < 2:
        raise InputError(
            f"{what} compares the samples of a datum with each other, and num_samples is {num_samples}: "
            f"take at least 2, or {instead}."
        )
