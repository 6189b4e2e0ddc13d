"""Gradient estimators: what training follows, kept apart from the bound's value.

An estimator gives a *surrogate*, one number a datum, of which only the gradient is used; the objective joins it with
the bound's value. So the number that is logged is the bound, whatever the estimator.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.bounds import Bound
from subo.errors import InputError
from subo.model import Draw
from subo.typing import Context

__all__ = ["GradientEstimator", "Pathwise"]


class GradientEstimator(nn.Module, ABC):
    """How the gradient of a bound is estimated. A module, since an estimator may learn something (a baseline)."""

    path: ClassVar[bool]
    """Whether it goes along the path through z (``rsample``) or not (``sample``)."""

    @abstractmethod
    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        """One number a datum whose gradient estimates the bound's; its value means nothing."""

    @abstractmethod
    def check(self, q: Distribution, bound: Bound) -> None:
        """Raises an InputError that says what to use instead where the pair makes no sense."""


class Pathwise(GradientEstimator):
    r"""The reparametrised gradient (Kingma and Welling, 2014, section 2.4; Rezende et al., 2014).

    With ``z = g(noise; phi)``, the expectation is over noise that no parameter touches, so
    ``grad E[f(z)] = E[grad f(g(noise; phi))]``: the surrogate is the bound itself. Unbiased for the ELBO, IWAE, MIWAE
    and every other bound that is an expectation over samples; needs ``q.has_rsample``; one pass forward and one back.
    """

    path = True

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw)

    def check(self, q: Distribution, bound: Bound) -> None:
        if not q.has_rsample:
            raise InputError(
                f"the pathwise gradient needs a posterior with rsample, and {type(q).__name__} has none. "
                "Use a family that has one (Gaussian, Laplace, a flow)."
            )
