"""A flow that shares nothing: every example has its own maps, with their weights among its parameters.

The flows of :mod:`subo.parts.flows` share their maps among all data and give each example a context. When q is fitted
to one example at a time, as :func:`subo.infer` does, such maps stay fixed. Those of this family are fitted with
the rest.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from subo.distributions.flow import Flow
from subo.errors import InputError
from subo.parts.families import Family, checked
from subo.parts.location_scale import Gaussian
from subo.runtime.arguments import checked_arguments

__all__ = ["CouplingFlow"]

_LARGEST = 2.0  # log-scale: no map can stretch by more than e^2, and none can blow up


class CouplingFlow(nn.Module):
    r"""A base family transformed by affine couplings with networks of each example's own.

    .. math:: z = m + s \, f_T(\dots f_1((e - m) / s)), \qquad e \sim \mathrm{base}, \qquad
              f_t(u)_b = u_b \exp(r(u_a)) + h(u_a), \quad f_t(u)_a = u_a

    with m and s the base's mean and standard deviation, a and b alternately the even and odd elements, and ``r, h`` a
    network with one hidden layer (Dinh et al., 2017, equations 7 and 8; as the posterior of a single example Cremer et
    al., 2018, section 3.2). Sample, density and inverse are in closed form: T batched matrix products either way.

    Parameters are those of the base, then the networks' weights; like all families, it takes them from any source, and
    an encoder that outputs them is a hypernetwork. At zero the maps are the identity, so the family contains the base.
    The hidden layers' weights are offset by fixed random ones: with all weights at zero no gradient would lead away.

    Args:
        event_shape: ``(D,)``, D at least 2.
        transforms: Number of maps.
        hidden: Hidden units of each map's network.
        base: Gaussian family that is transformed; diagonal by default.

    Example:
        >>> family = CouplingFlow((3,), transforms=2, hidden=4)
        >>> z, log_q = family(torch.zeros(5, family.num_params)).rsample_and_log_prob()
        >>> z.shape, torch.allclose(log_q, Gaussian((3,))(torch.zeros(5, 6)).log_prob(z), atol=1e-5)
        (torch.Size([5, 3]), True)
    """

    is_discrete = False

    fixed: Tensor

    @checked_arguments
    def __init__(
        self, event_shape: Sequence[int], *, transforms: int = 4, hidden: int = 16, base: Family | None = None
    ):
        super().__init__()
        self.event_shape = Size(event_shape)
        if len(self.event_shape) != 1 or self.event_shape[0] < 2:
            raise InputError(
                f"a CouplingFlow is over vectors (D,) of at least two elements, one to move given the other, not over "
                f"events of shape {tuple(event_shape)}"
            )
        if transforms < 1 or hidden < 1:
            raise InputError(f"a flow needs at least one transform and one hidden unit, not {transforms} and {hidden}")
        self.base: Any = base or Gaussian(self.event_shape)
        if self.base.event_shape != self.event_shape:
            raise InputError(
                f"the base is over events of shape {tuple(self.base.event_shape)}, but the flow over those of shape "
                f"{tuple(self.event_shape)}"
            )
        (dim,) = self.event_shape
        self.layers = [_layers(dim, first, hidden) for first in (t % 2 for t in range(transforms))]
        fixed, generator = [], torch.Generator().manual_seed(0)
        for (rows, _), last in self.layers:
            fixed += [torch.randn(rows * hidden, generator=generator) / rows**0.5, torch.zeros(last[0] * last[1])]
        self.register_buffer("fixed", torch.cat(fixed))
        self.num_params = self.base.num_params + len(self.fixed)

    def around(self, params: Float[Tensor, "N P"]) -> Float[Tensor, "N Q"]:
        """This family's parameters for the base's distributions, with identity maps."""
        return torch.cat([params, params.new_zeros(len(params), len(self.fixed))], 1)

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        params = checked(params, self.event_shape, self.num_params)
        of_base, weights = params.flatten(1).split([self.base.num_params, len(self.fixed)], 1)
        base = self.base(of_base)
        maps = _Couplings(base.mean, base.stddev, self._networks(weights + self.fixed))
        return Flow(base, maps, validate_args=False)

    def _networks(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Both layers of each map's network, one matrix per example; the last row of each is the bias."""
        shapes = [shape for layers in self.layers for shape in layers]
        parts = weights.split([rows * columns for rows, columns in shapes], 1)
        matrices = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        return list(zip(matrices[::2], matrices[1::2], strict=True))


def _layers(dim: int, first: int, hidden: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of the two layers that see the elements ``first, first + 2, ...`` and move the others."""
    seen = len(range(first, dim, 2))
    return (seen + 1, hidden), (hidden + 1, 2 * (dim - seen))


class _Couplings(Transform):
    """The maps of N examples, with their determinants and inverses."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, mean: Tensor, scale: Tensor, networks: list[tuple[Tensor, Tensor]], *, inverse: bool = False):
        super().__init__()
        self.mean, self.scale, self.networks, self.inverse = mean, scale, networks, inverse

    @property
    def inv(self) -> "_Couplings":  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inverse map."""
        return _Couplings(self.mean, self.scale, self.networks, inverse=not self.inverse)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map of x ``(..., N, D)``, and the logarithm of its Jacobian's determinant, ``(..., N)``."""
        num_data, dim = self.mean.shape
        x = x.expand(*torch.broadcast_shapes(x.shape[:-1], (num_data,)), dim)
        rows = x.reshape(-1, num_data, dim).transpose(0, 1)  # a matrix per example: (N, S, D)
        mean, scale = self.mean.unsqueeze(1), self.scale.unsqueeze(1)
        u, log_det = (rows - mean) / scale, rows.new_zeros(rows.shape[:2])
        steps = list(enumerate(self.networks))
        for t, network in reversed(steps) if self.inverse else steps:
            u, step = self._coupled(u, t % 2, *network)
            log_det = log_det + step
        z = (mean + scale * u).transpose(0, 1)  # the standardization and its inverse cancel in the determinant
        return z.reshape(x.shape), log_det.transpose(0, 1).reshape(x.shape[:-1])

    def _coupled(self, u: Tensor, first: int, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        seen, moved = u[..., first::2], u[..., 1 - first :: 2]
        hidden = torch.baddbmm(inner[:, -1:], seen, inner[:, :-1]).tanh()
        shift, raw = torch.baddbmm(outer[:, -1:], hidden, outer[:, :-1]).chunk(2, -1)
        log_scale = _LARGEST * torch.tanh(raw / _LARGEST)
        if self.inverse:
            log_scale = -log_scale
            moved = (moved - shift) * log_scale.exp()
        else:
            moved = moved * log_scale.exp() + shift
        result = torch.empty_like(u)
        result[..., first::2], result[..., 1 - first :: 2] = seen, moved
        return result, log_scale.sum(-1)
