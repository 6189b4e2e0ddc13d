"""Normalizing flows as families: richer posteriors than a Gaussian, given the encoder's context.

The maps are zuko's. Importing zuko switches torch's argument validation off for the whole process; it is
switched back here, so that importing subo changes nothing, and stays off for zuko's own distributions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from subo.distributions.flow import Flow
from subo.errors import InputError
from subo.parts.families import checked
from subo.parts.location_scale import Gaussian
from subo.runtime.arguments import checked_arguments

_validation, _constraints = Distribution._validate_args, Distribution.arg_constraints
import zuko.distributions  # noqa: E402
from zuko.flows.autoregressive import MaskedAutoregressiveTransform  # noqa: E402
from zuko.lazy import LazyComposedTransform, LazyTransform  # noqa: E402
from zuko.transforms import AutoregressiveTransform, MonotonicRQSTransform  # noqa: E402
from zuko.utils import unpack  # noqa: E402

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

    One pass forward; D steps to invert, which together cost about a pass (:class:`Masked`).

    Args:
        dim: Size D of the vectors.
        context_dim: Size of the context of the maps.
        transforms: Number of maps.
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
        context_dim: Size of the context of the maps.
        transforms: Number of maps.
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
    return LazyComposedTransform(*(Masked(dim, order=orders[i % 2], **options) for i in range(transforms)))


class Masked(MaskedAutoregressiveTransform):
    r"""zuko's masked autoregressive map, with an inverse that computes each number of its network once.

    To invert ``z_i = f(e_i; h_i(e_{<i}, c))`` the elements are found stage by stage, in D stages, or two for
    coupling. zuko runs the whole network at each stage, and once more for the determinant. But a hidden unit is known
    as soon as the elements that its mask lets through are, and then does not change: with inputs and units sorted by
    the stage at which they are known, a stage multiplies a block of rows by the columns known so far, and all stages
    together are one pass. The context's input to the first layer is the same for all z that share it: it is added
    once, instead of B times for a mixture of K flows at B latents (a VampPrior).
    """

    def forward(self, c: Tensor | None = None) -> "_Staged":
        return _Staged(self, c)

    def inverse(self, z: Float[Tensor, "*z D"], c: Tensor | None) -> tuple[Tensor, Tensor]:
        """e and the log-determinant of the inverse, for z and a context with batches that broadcast."""
        network: Any = self.hyper
        order: Any = self.order
        layers = list(network)[::2]
        activation, dim = list(network)[1], z.shape[-1]
        known_at = torch.cat([order.cpu() + 1, torch.zeros(layers[0].in_features - dim, dtype=torch.long)])
        weights, counts, places = [], [], [torch.argsort(known_at, stable=True)]
        outputs = order.cpu().repeat_interleave(self.total)  # the stage at which an output is needed
        for layer in layers:
            mask = layer.mask.cpu()
            known_at = outputs if layer is layers[-1] else (mask * known_at).amax(1)
            places.append(torch.argsort(known_at, stable=True))
            weight = (layer.mask * layer.weight)[places[-1]][:, places[-2]]
            weights.append((weight, layer.bias[places[-1]]))
            counts.append([int((known_at <= stage).sum()) for stage in range(-1, self.passes)])
        weight, bias = weights[0]
        num_context = weight.shape[1] - dim
        first = bias if c is None else nn.functional.linear(c, weight[:, :num_context], bias)
        batch = z.shape[:-1] if c is None else torch.broadcast_shapes(z.shape[:-1], c.shape[:-1])
        elements, log_det, z = [], z.new_zeros(batch), z.expand(*batch, -1)
        of_input = places[0][places[0] < dim]  # elements, in the order in which they are found
        z, known = z[..., of_input], z.new_zeros(*batch, 0)
        units = [z.new_zeros(*batch, 0) for _ in weights[1:]]
        for stage in range(self.passes):
            new = None
            for level, (weight, bias) in enumerate(weights):
                rows = slice(counts[level][stage], counts[level][stage + 1])
                if level == 0:
                    seen = weight[rows, num_context : num_context + known.shape[-1]]
                    new = first[..., rows] + (nn.functional.linear(known, seen) if stage else 0.0)
                else:
                    before = units[level - 1] = torch.cat([units[level - 1], activation(new).expand(*batch, -1)], -1)
                    new = nn.functional.linear(before, weight[rows, : before.shape[-1]], bias[rows])
            assert new is not None
            count = new.shape[-1] // self.total
            params = unpack(new.unflatten(-1, (count, self.total)), self.shapes)
            univariate: Any = self.univariate(*params)
            part = z[..., known.shape[-1] : known.shape[-1] + count]
            found = univariate.inv(part)
            log_det = log_det - univariate.log_abs_det_jacobian(found, part).sum(-1)
            elements.append(found)
            known = torch.cat(elements, dim=-1)
        return known[..., torch.argsort(of_input)], log_det


class _Staged(AutoregressiveTransform):
    """The map at a context, and its inverse in stages."""

    def __init__(self, masked: Masked, c: Tensor | None):
        super().__init__(lambda x: masked.meta(c, x), masked.passes)  # pyright: ignore[reportArgumentType]
        self.masked, self.c = masked, c

    def _inverse(self, y: Tensor) -> Tensor:
        return self.masked.inverse(y, self.c)[0]

    @property
    def inv(self) -> Transform:
        return _Inverse(self)


class _Inverse(Transform):
    """The inverse together with its determinant."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, forth: _Staged):
        super().__init__()
        self.forth = forth

    @property
    def inv(self) -> Transform:
        return self.forth

    def _call(self, x: Tensor) -> Tensor:
        return self.forth._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.forth._call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Computed by the map at the inverse."""
        return -self.forth.log_abs_det_jacobian(y, x)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both, under the name that zuko uses."""
        return self.forth.masked.inverse(x, self.forth.c)


class _FlowFamily(nn.Module):
    """A diagonal Gaussian and a context, both from the parameters, and a map of the Gaussian given the context."""

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
    (Kingma et al., 2016, equations 10 and 11). A sample with its density costs one pass per map; the density of
    another z about as much, but in D steps.

    Args:
        event_shape: ``(D,)``.
        context_dim: Size of h, which the encoder outputs in addition to location and scale.
        transforms: Number of maps.
        hidden: Widths of each map's network.
    """

    is_discrete = False

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

    Sampling and density both cost two passes per map. The splines act on [-5, 5], where a standard prior has its mass.

    Args:
        event_shape: ``(D,)``.
        context_dim: Size of the context, which the encoder outputs in addition to location and scale.
        transforms: Number of maps.
        hidden: Widths of each map's network.
        bins: Pieces of each spline.
    """

    is_discrete = False

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
