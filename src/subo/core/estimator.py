"""What a gradient estimator is.

An estimator returns a *surrogate*, one number per example; only its gradient is used, and the objective combines it
with the bound's value. So the logged number is the bound, whatever the estimator.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from subo.core.bounds import Bound
from subo.core.draw import Draw, Factor
from subo.errors import InputError
from subo.typing import Context, Path, leaves

__all__ = ["GradientEstimator", "Pathwise", "check_path", "kind_of", "needs_samples", "only_layer"]


class GradientEstimator(nn.Module, ABC):
    """How the gradient of a bound is estimated. A module, since an estimator may have parameters (a baseline)."""

    path: Path
    """How z is drawn: along the path (``rsample``), without one (``sample``), or by a path of the estimator's own."""

    biased: ClassVar[str] = ""
    """How its gradient differs from the bound's; empty if it does not."""

    @abstractmethod
    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        """One number per example whose gradient estimates the bound's; its value means nothing."""

    @abstractmethod
    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        """Raises an InputError that says what to use instead if the combination makes no sense."""


def only_layer(draw: Draw, estimator: GradientEstimator) -> Factor:
    """The only stochastic layer of a draw, for estimators derived for a single layer."""
    factor, *others = draw.factors
    if others:
        raise InputError(
            f"{type(estimator).__name__} is exact for one stochastic layer, but this model has {len(draw.factors)}. "
            "Use Pathwise, or ScoreFunction where there is no path."
        )
    return factor


def kind_of(q: Distribution) -> str:
    """The name of a distribution in messages: the class of its elements."""
    while isinstance(q, Independent) and type(q) is Independent:
        q = q.base_dist
    return type(q).__name__


def needs_samples(num_samples: int, what: str, instead: str) -> None:
    """Refuses a single sample, which cannot be compared with others."""
    if num_samples < 2:
        raise InputError(
            f"{what} compares the samples of an example with each other, but num_samples is {num_samples}: "
            f"use at least 2, or {instead}."
        )


class Pathwise(GradientEstimator):
    r"""The reparametrized gradient (Kingma and Welling, 2014, section 2.4; Rezende et al., 2014).

    With ``z = g(noise; phi)``, the expectation is over noise that no parameter touches, so
    ``grad E[f(z)] = E[grad f(g(noise; phi))]``: the surrogate is the bound itself. Unbiased for the ELBO, IWAE, MIWAE
    and every other bound that is an expectation over samples, with any number of layers; needs ``q.has_rsample``; one
    forward pass and one backward pass.
    """

    path = True

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _has_path(q)


def check_path(draw: Draw) -> None:
    """Refuses a draw along a path that the likelihood blocks; checked once, since it costs a backward pass.

    Raises:
        InputError: log p(x|z) has no gradient in z, as with a decoder that leaves torch.
    """
    moved = [leaf for leaf in leaves(draw.z) if leaf.requires_grad]
    if not moved:
        return
    likelihood = draw.log_likelihood.sum()
    slopes = torch.autograd.grad(likelihood, moved, allow_unused=True) if likelihood.requires_grad else [None]
    if all(slope is None for slope in slopes):
        raise InputError(
            "log p(x|z) has no gradient in z, but this estimator differentiates along the path through z. Usually the "
            "likelihood leaves torch (numpy, detach, rounding). Use ScoreFunction (`gradient=score-function`)."
        )


def _has_path(q: Distribution) -> None:
    if not q.has_rsample:
        raise InputError(
            f"this estimator differentiates along the path from q's parameters to z, but the posterior's {kind_of(q)} "
            "has no rsample. Use a family that has one (Gaussian, Laplace, a flow) or ScoreFunction, which needs none; "
            "for discrete latents there are also StraightThrough, ReinMax and GumbelSoftmax, which are biased."
        )
