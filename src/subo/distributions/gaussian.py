"""Gaussian distributions and closed-form divergences that torch lacks.

Importing this module adds rules to torch's registry of KL divergences for pairs that had none.
"""

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)

from subo.distributions.continuous_bernoulli import ContinuousBernoulli
from subo.once import once

__all__ = ["ContinuousBernoulli", "Gaussian", "StandardNormal", "finite_density"]

_HALF_LOG_2PI = math.log(2 * math.pi) / 2


class Gaussian(Independent):
    r"""Independent normals as one event: torch's, built and sampled in fewer operations, which speeds up training.

    Args:
        loc: Locations, ``(*batch, *event)``.
        scale: Standard deviations, of a shape that broadcasts to that of `loc`.
        event_dims: Number of trailing dimensions that form an event.
    """

    has_rsample = True  # pyright: ignore[reportAssignmentType] (known without building the elements)

    def __init__(self, loc: Tensor, scale: Tensor, event_dims: int):
        self.loc, self.scale = loc, scale
        self.reinterpreted_batch_ndims = event_dims
        shape = loc.shape
        split = len(shape) - event_dims
        Distribution.__init__(self, shape[:split], shape[split:], validate_args=False)

    @once
    def base_dist(self) -> Normal:  # pyright: ignore[reportIncompatibleVariableOverride] (an attribute of torch's)
        """The elementwise distribution, created on first access."""
        return Normal(self.loc, self.scale, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Gaussian":
        """The same distribution with its parameters expanded to `batch_shape`."""
        shape = Size(batch_shape) + self.event_shape
        return Gaussian(self.loc.expand(shape), self.scale.expand(shape), self.reinterpreted_batch_ndims)

    def unflatten(self, sizes: tuple[int, ...]) -> "Gaussian":
        """The same distribution with its first batch dimension split into `sizes`; a view."""
        scale = self.scale.expand(self.loc.shape).unflatten(0, sizes)
        return Gaussian(self.loc.unflatten(0, sizes), scale, self.reinterpreted_batch_ndims)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """``loc + scale * noise``, of shape ``(*sample, *batch, *event)``."""
        return torch.addcmul(self.loc, self.scale, self._noise(sample_shape))

    def _noise(self, sample_shape: Any) -> Tensor:
        return torch.randn(Size(sample_shape) + self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The same, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def sample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        r"""Samples and their log-density, without a gradient.

        The density is that of the noise, ``-sum_d [ noise_d^2 / 2 + log scale_d + 1/2 log 2 pi ]``, which need not be
        recovered from the sample.
        """
        with torch.no_grad():
            noise = self._noise(sample_shape)
            z = torch.addcmul(self.loc, self.scale, noise)
            log_scale = sum_last(self.scale.log().expand(self.loc.shape), self.reinterpreted_batch_ndims)
            half_square = 0.5 * sum_last(noise.square_(), self.reinterpreted_batch_ndims)
            return z, -(half_square + log_scale) - _HALF_LOG_2PI * self.event_shape.numel()

    def log_prob(self, value: Tensor) -> Tensor:
        r"""``-sum_d [ (x_d - loc_d)^2 / (2 scale_d^2) + log scale_d + 1/2 log 2 pi ]``."""
        standard = (value - self.loc) / self.scale
        elements = torch.add(self.scale.log(), standard.square(), alpha=0.5)
        return -sum_last(elements, self.reinterpreted_batch_ndims) - _HALF_LOG_2PI * self.event_shape.numel()


class StandardNormal(Gaussian):
    """``N(0, I)`` over events: a type of its own, so that divergences recognize it and need not divide by 1.

    Args:
        zeros: A tensor of zeros of the event's shape, on the device of the samples.
    """

    def __init__(self, zeros: Tensor):
        self.loc = zeros
        self.reinterpreted_batch_ndims = zeros.ndim
        Distribution.__init__(self, Size(), zeros.shape, validate_args=False)

    @once
    def scale(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Ones."""
        return torch.ones_like(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """``-1/2 sum_d [ x_d^2 + log 2 pi ]``."""
        return -0.5 * sum_last(value.square(), self.loc.ndim) - _HALF_LOG_2PI * self.event_shape.numel()


def finite_density(elements: Distribution) -> Distribution:
    """The same elementwise distribution, whose density is finite where it is very wide.

    torch's normal squares its scale, which overflows above 1e19 in float32; no rule of its KL registry takes its place.
    """
    return Gaussian(elements.loc, elements.scale, 0) if isinstance(elements, Normal) else elements


@register_kl(Gaussian, StandardNormal)
def _kl_gaussian_standard(q: Gaussian, p: StandardNormal) -> Tensor:
    r"""KL(N(m, diag s^2) || N(0, I)) = sum_i [ (m_i^2 + s_i^2) / 2 - log s_i ] - D / 2.

    Kingma and Welling, 2014, appendix B.
    """
    squares = torch.addcmul(q.loc.square(), q.scale, q.scale)
    elements = torch.sub(q.scale.log(), squares, alpha=0.5)
    return torch.rsub(sum_last(elements, q.reinterpreted_batch_ndims), -0.5 * q.event_shape.numel())


@register_kl(Independent, StandardNormal)
def _kl_independent_standard(q: Independent, p: StandardNormal) -> Tensor:
    """The same for torch's own Independent(Normal); other elements use torch's registry."""
    elements = q.base_dist
    if isinstance(elements, Normal):
        return _kl_gaussian_standard(Gaussian(elements.loc, elements.scale, q.reinterpreted_batch_ndims), p)
    return sum_last(kl_divergence(elements, p.base_dist), q.reinterpreted_batch_ndims)


def sum_last(values: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    if dims == 1:
        return values.sum(-1)
    return values.flatten(-dims).sum(-1) if dims else values


@register_kl(MultivariateNormal, Independent)
def _kl_full_rank_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    r"""KL(N(m, L L^T) || N(n, diag s^2)), the full-rank posterior against a factorized prior.

    ``1/2 sum_i [ (L L^T)_ii / s_i^2 + (m_i - n_i)^2 / s_i^2 - 1 + log s_i^2 ] - sum_i log L_ii``
    """
    if not (isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1):
        raise NotImplementedError  # which torch's kl_divergence also raises where it knows none
    variance = p.base_dist.variance
    squares = q.scale_tril.square().sum(-1) + (q.loc - p.base_dist.loc).square()
    log_det = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squares / variance - 1 + variance.log()).sum(-1) - log_det
