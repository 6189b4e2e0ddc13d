"""Normalizing flows as families: richer posteriors than a Gaussian, given the encoder's context.

The maps are zuko's. Importing zuko switches torch's argument validation off for the whole process; the switch is
set back here, so that importing subo changes nothing, and stays off for zuko's own distributions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.arguments import checked_arguments
from subo.distributions import Flow
from subo.errors import InputError
from subo.families import checked
from subo.location_scale import Gaussian

_validation, _constraints = Distribution._validate_args, Distribution.arg_constraints
import zuko.distributions  # noqa: E402
from zuko.flows.autoregressive import MaskedAutoregressiveTransform  # noqa: E402
from zuko.lazy import LazyComposedTransform, LazyTransform  # noqa: E402
from zuko.transforms import MonotonicRQSTransform  # noqa: E402

Distribution._validate_args = _validation
Distribution.arg_constraints = _constraints  # pyright: ignore[reportAttributeAccessIssue]
for _kind in vars(zuko.distributions).values():
    if isinstance(_kind, type) and _kind.__module__ == zuko.distributions.__name__:
        _kind._validate_args = False

__all__ = ["InverseAutoregressiveFlow", "NeuralSplineFlow", "autoregressive", "spline"]


def autoregressive(
    dim: int, *, context_dim: int = 0, transforms: int = 2, hidden: Sequence[int] = (64, 64)
) -> LazyTransform:
    """A stack of masked autoregressive affine maps of vectors, alternating the order of the elements.

    One pass forward; D passes to invert.

    Args:
        dim: Size D of the vectors.
        context_dim: Size of the context that the maps are given.
        transforms: How many maps.
        hidden: Widths of each map's network.
    """
    return _stack(dim, transforms, context=context_dim, hidden_features=tuple(hidden))


def spline(
    dim: int, *, context_dim: int = 0, transforms: int = 2, hidden: Sequence[int] = (64, 64), bins: int = 8
) -> LazyTransform:
    """A stack of coupling maps by monotonic rational-quadratic splines on [-5, 5], the identity outside.

    Two passes either way.

    Args:
        dim: Size D of the vectors.
        context_dim: Size of the context that the maps are given.
        transforms: How many maps.
        hidden: Widths of each map's network.
        bins: Pieces of each spline.
    """
    shapes = [(bins,), (bins,), (bins - 1,)]
    return _stack(
        dim,
        transforms,
        context=context_dim,
        hidden_features=tuple(hidden),
        passes=2,
        univariate=MonotonicRQSTransform,
        shapes=shapes,
    )


def _stack(dim: int, transforms: int, **options: Any) -> LazyTransform:
    if transforms < 1:
        raise InputError(f"a flow needs at least one transform, not {transforms}")
    ascending: Any = torch.arange(dim)
    orders = [ascending, ascending.flip(0)]
    return LazyComposedTransform(
        *(MaskedAutoregressiveTransform(dim, order=orders[i % 2], **options) for i in range(transforms))
    )


class _FlowFamily(nn.Module):
    """A diagonal Gaussian and a context, both from the parameters, and a map of the one given the other."""

    def __init__(self, event_shape: Sequence[int], context_dim: int, transform: LazyTransform):
        super().__init__()
        self.base = Gaussian(event_shape)
        self.num_params = self.base.num_params + context_dim
        self.transform = transform

    def forward(self, params: Tensor) -> Distribution:
        params = checked(params, self.base.event_shape, self.num_params)
        base, context = params.flatten(1).split([self.base.num_params, self.num_params - self.base.num_params], dim=1)
        return Flow(self.base(base), self.transform(context), validate_args=False)


class InverseAutoregressiveFlow(nn.Module):
    r"""Posterior by inverse autoregressive flow: ``z = f_T(... f_1(e; h) ...; h)``, ``e ~ N(loc, diag scale^2)``.

    Each map is affine in its input, with location and slope from the elements before it and from the context h
    (Kingma et al., 2016, equations 10 and 11). A sample with its density costs one pass a map; the density of a
    z from elsewhere costs D passes.

    Args:
        event_shape: ``(D,)``.
        context_dim: Size of h, which the encoder gives beside location and scale.
        transforms: How many maps.
        hidden: Widths of each map's network.
    """

    @checked_arguments
    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        context_dim: int = 32,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
    ):
        super().__init__()
        self.event_shape = _vector(event_shape)
        maps = autoregressive(self.event_shape[0], context_dim=context_dim, transforms=transforms, hidden=hidden)
        self.flow = _FlowFamily(self.event_shape, context_dim, maps)
        self.num_params = self.flow.num_params

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        return self.flow(params)


class NeuralSplineFlow(nn.Module):
    """Posterior by coupling layers of monotonic rational-quadratic splines (Durkan et al., 2019).

    Sampling and density both cost two passes a map. The splines act on [-5, 5], where a standard prior has its mass.

    Args:
        event_shape: ``(D,)``.
        context_dim: Size of the context that the encoder gives beside location and scale.
        transforms: How many maps.
        hidden: Widths of each map's network.
        bins: Pieces of each spline.
    """

    @checked_arguments
    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        context_dim: int = 32,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
    ):
        super().__init__()
        self.event_shape = _vector(event_shape)
        maps = spline(self.event_shape[0], context_dim=context_dim, transforms=transforms, hidden=hidden, bins=bins)
        self.flow = _FlowFamily(self.event_shape, context_dim, maps)
        self.num_params = self.flow.num_params

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        return self.flow(params)


def _vector(event_shape: Sequence[int]) -> Size:
    if len(event_shape) != 1:
        raise InputError(f"a flow is over vectors (D,), not over events of shape {tuple(event_shape)}")
    return Size(event_shape)
