"""Paths for discrete latents: exact samples forward, a differentiable surrogate backward. Biased, with low variance."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent
from torch.distributions import OneHotCategorical as TorchOneHotCategorical

from subo.core.bounds import Bound
from subo.core.draw import Draw
from subo.core.estimator import GradientEstimator
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments
from subo.typing import Context

__all__ = ["GumbelSoftmax", "ReinMax", "StraightThrough"]

_LEAST = 1e-30  # probability, so that its logarithm is finite


class StraightThrough(GradientEstimator):
    r"""The straight-through gradient: in the backward pass a sample is its mean (Bengio et al., 2013, section 4).

    ``z = sample + (mean - stop(mean))``: the value is an exact sample of q, so that the bound's value is that of the
    discrete model; the gradient is computed as if z were its mean. BIASED, for every bound, by the curvature of f
    between the discrete values; exact where f is linear in z. One forward and one backward pass.
    """

    biased = "z is differentiated as if it were its mean"

    def path(self, q: Distribution, size: Size) -> Tensor:
        """A sample of q with the derivative of its mean."""
        _discrete(q, "StraightThrough")
        mean = q.mean
        return q.sample(size) + (mean - mean.detach())

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _discrete(q, "StraightThrough")


class ReinMax(GradientEstimator):
    r"""The straight-through gradient to second order (Liu et al., 2023, section 4, equation 6).

    With pi the probabilities, D the one-hot sample and :math:`J(p) = diag(p) - p p^T` the softmax's derivative at
    probabilities p, the sample is differentiated as if

    .. math:: \frac{dD}{d\text{logits}} = 2 J\Big(\frac{\pi + D}{2}\Big) - \frac12 J(\pi)

    The exact gradient is :math:`\sum_{ij} \pi_j (f(I_i) - f(I_j)) \, d\pi_i`. Straight-through takes the difference for
    :math:`f'(I_j)(I_i - I_j)`, and this the mean of both slopes (Heun's rule), whose expectation is the above. BIASED,
    for every bound, by the third derivative of f; exact where f is quadratic in one category's z. A bit is a category
    of two. One forward and one backward pass.

    Example:
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> z = ReinMax().path(TorchOneHotCategorical(logits=logits), Size([1]))
        >>> z.sum().item()
        1.0
    """

    biased = "z is differentiated as if f were quadratic in it"

    def path(self, q: Distribution, size: Size) -> Tensor:
        """A sample of q with a derivative of second order."""
        _discrete(q, "ReinMax")
        elements, _ = _elements(q)
        hard, mean = q.sample(size), q.mean
        halfway = ((mean + hard) / 2).detach()
        slope = elements.logits - elements.logits.detach()  # 0, with the derivative of the logits
        if isinstance(elements, TorchBernoulli):
            middle = torch.sigmoid(halfway.logit(_LEAST) + slope)
        else:
            middle = (halfway.clamp(min=_LEAST).log() + slope).softmax(-1)
        path = 2 * middle - mean / 2
        return hard + (path - path.detach())

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _discrete(q, "ReinMax")


class GumbelSoftmax(GradientEstimator):
    r"""The straight-through Gumbel-softmax gradient (Jang et al., 2017, section 2.2; Maddison et al., 2017).

    A categorical sample is ``argmax(logits + g)`` with Gumbel noise g, a bit is ``logits + l > 0`` with logistic noise
    l. Forward, z is that exact sample, so that the bound's value is that of the discrete model; backward, it is
    ``softmax((logits + g) / temperature)`` with the same noise. BIASED, for every bound: a higher temperature gives
    more bias, a lower one more variance. One forward and one backward pass. (Relaxed samples forward would be
    samples of another model, and its "bound" would not be one on log p(x).)

    Args:
        temperature: Temperature of the softmax; positive.
    """

    biased = "z is differentiated as if it were a softmax of its noise"

    @checked_arguments
    def __init__(self, temperature: float = 0.5):
        super().__init__()
        if not temperature > 0:
            raise InputError(f"the temperature must be positive, not {temperature}")
        self.temperature = temperature

    def path(self, q: Distribution, size: Size) -> Tensor:
        """A sample of q with the derivative of its relaxation."""
        _discrete(q, "GumbelSoftmax")
        elements, _ = _elements(q)
        logits = elements.logits.expand(size + elements.logits.shape)
        uniform = torch.rand_like(logits).clamp(torch.finfo(logits.dtype).tiny, 1 - torch.finfo(logits.dtype).eps)
        if isinstance(elements, TorchBernoulli):
            noisy = logits + torch.logit(uniform)
            hard, soft = (noisy > 0).to(logits), torch.sigmoid(noisy / self.temperature)
        else:
            noisy = logits - (-uniform.log()).log()
            hard = F.one_hot(noisy.argmax(-1), logits.shape[-1]).to(logits)
            soft = (noisy / self.temperature).softmax(-1)
        return hard + (soft - soft.detach())

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _discrete(q, "GumbelSoftmax")


def _elements(q: Distribution) -> tuple[Any, int]:
    """The distribution of one element, and the number of dimensions that form an event."""
    dims = 0
    while isinstance(q, Independent):
        q, dims = q.base_dist, dims + q.reinterpreted_batch_ndims
    return q, dims


def _discrete(q: Distribution, name: str) -> None:
    elements, _ = _elements(q)
    if not isinstance(elements, (TorchBernoulli, TorchOneHotCategorical)):
        raise InputError(
            f"{name} replaces the path that bits and one-hot categories lack, but the posterior is "
            f"{type(elements).__name__}. Use Pathwise where q has rsample, ScoreFunction elsewhere."
        )
