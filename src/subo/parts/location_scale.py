r"""Families with a location and a scale: Gaussians, diagonal and full-rank, Laplace and Student's t.

.. math:: x = \mathrm{loc} + \mathrm{scale} \cdot e

The scale is a fixed number, learned numbers, or given by the network, and it has a floor: a density without one is
unbounded.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal
from torch.distributions import Laplace as TorchLaplace

from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.distributions.student_t import StudentT as StudentTDistribution
from subo.errors import InputError
from subo.parts.families import checked, fields, independent
from subo.runtime.arguments import checked_arguments

__all__ = [
    "DegreesSource",
    "FullRankGaussian",
    "Gaussian",
    "Laplace",
    "LocationScale",
    "Scale",
    "ScaleSource",
    "StudentT",
]

ScaleSource = float | Literal["shared", "per-dimension", "network"]
"""A fixed number, one learned number, one learned number per dimension, or numbers given by the network."""

DegreesSource = float | Literal["shared", "per-dimension"]
"""A fixed number, one learned number, or one learned number per dimension."""


class Scale(nn.Module):
    """The source of the scale of a location-scale family; never below its floor.

    ``scale = floor + softplus_b(raw)``, ``softplus_b(r) = log(1 + e^(b r)) / b``, with b such that ``raw = 0`` gives 1.
    Without a floor the density is unbounded: one dimension that the model reproduces exactly sends log p(x) to
    infinity.

    Args:
        source: A fixed number, ``"shared"`` (one learned number), ``"per-dimension"`` (one learned number per
            element) or ``"network"`` (given with the parameters).
        event_shape: Shape of one event.
        floor: The smallest scale, between 0 and 1.
    """

    fixed: Tensor

    def __init__(self, source: ScaleSource, event_shape: Size, *, floor: float):
        super().__init__()
        if not isinstance(source, str) and not source >= floor:
            raise InputError(f"a fixed scale must be at least min_scale = {floor}, not {source}")
        self.source = source
        self.floor = floor
        self.beta = math.log(2) / (1 - floor)
        self.from_network = source == "network"
        if not isinstance(source, str):
            self.register_buffer("fixed", torch.tensor(float(source)), persistent=False)
        elif not self.from_network:
            self.raw = nn.Parameter(torch.zeros(event_shape if source == "per-dimension" else ()))

    def of(self, raw: Tensor | None = None) -> Tensor:
        """The scale, given the network's output for it, if any: 1 where that is 0."""
        if raw is None:
            if not isinstance(self.source, str):
                return self.fixed
            raw = self.raw
        return F.softplus(raw.contiguous(), beta=self.beta) + self.floor  # three times as fast as on a strided half

    def raw_of(self, scale: Tensor) -> Tensor:
        """The network's output, or the free number, for a scale above the floor: the inverse of :meth:`of`."""
        above = self.beta * (scale - self.floor)
        return (above + torch.log(-torch.expm1(-above))) / self.beta


class _Units(nn.Module):
    """Location and scale of independent real elements, in the data's own units. Held by a family, not inherited."""

    center: Tensor | None
    unit: Tensor | None

    def __init__(
        self,
        event_shape: Size,
        scale: ScaleSource,
        min_scale: float,
        center: float | Tensor | None,
        unit: float | Tensor | None,
    ):
        super().__init__()
        self.event_shape = event_shape
        self.scale = Scale(scale, event_shape, floor=min_scale)
        self.count = 1 + self.scale.from_network
        self.plain = center is None and unit is None
        self.register_buffer("center", None if center is None else _number(center))
        self.register_buffer("unit", None if unit is None else _number(unit))

    def of(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale, ``(N, *event)``; a plain method, since a module call would double its cost."""
        loc, *rest = fields(params, self.event_shape, self.count)
        scale = self.scale.of(*rest)
        if self.plain:
            return loc, scale
        if self.unit is not None:
            loc, scale = self.unit * loc, self.unit * scale
        return loc if self.center is None else self.center + loc, scale

    def share_at_floor(self, scale: Tensor) -> float:
        """Share of scales within 5% of the floor."""
        floor = self.scale.floor if self.unit is None else self.scale.floor * self.unit
        return (scale <= 1.05 * floor).double().mean().item()


def _number(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).clone()


class LocationScale(nn.Module, ABC):
    r"""Independent real elements with a location and a scale, ``x = center + unit * (loc + scale * noise)``.

    A family defines its noise in one method.

    Args:
        event_shape: Shape of one event.
        scale: A fixed number, ``"shared"``, ``"per-dimension"`` or ``"network"``.
        min_scale: Floor of the scale, in units of `unit`. A density without one is unbounded.
        center: Position of ``loc = 0`` in the data's units; a number or a tensor of the event's shape; 0 by default.
        unit: Meaning of ``scale = 1`` in the data's units, such as the data's standard deviation. Networks then
            work with numbers of order one, while densities stay those of the unscaled data. 1 by default.
    """

    is_discrete = False

    @checked_arguments
    def __init__(
        self,
        event_shape: Sequence[int],
        scale: ScaleSource = "network",
        *,
        min_scale: float = 1e-3,
        center: float | Tensor | None = None,
        unit: float | Tensor | None = None,
    ):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.location_scale = _Units(self.event_shape, scale, min_scale, center, unit)
        self.num_params = self.location_scale.count * self.event_shape.numel()

    @abstractmethod
    def distribution(self, loc: Tensor, scale: Tensor) -> Distribution:
        """The distributions of events with these locations, ``(N, *event)``, and scales, which broadcast to them."""

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        return self.distribution(*self.location_scale.of(params))

    def share_at_floor(self, distribution: Independent) -> float:
        """Share of the distribution's scales within 5% of the floor; if it is not 0, log p(x) depends on the floor."""
        return self.location_scale.share_at_floor(distribution.base_dist.scale)


class Gaussian(LocationScale):
    r"""Independent normals, with every constant in the density; arguments as for :class:`LocationScale`.

    Example:
        >>> q = Gaussian((2,))(torch.zeros(5, 4))  # two numbers a dimension: location and scale
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def distribution(self, loc: Tensor, scale: Tensor) -> Distribution:
        """``N(loc, scale^2)``."""
        return GaussianDistribution(loc, scale, len(self.event_shape))


class Laplace(LocationScale):
    """Independent Laplace elements, ``exp(-|x - loc| / scale) / (2 scale)``: heavier tails than the Gaussian's.

    Arguments as for :class:`LocationScale`.
    """

    def distribution(self, loc: Tensor, scale: Tensor) -> Distribution:
        """``Laplace(loc, scale)``."""
        return independent(TorchLaplace(loc, scale, validate_args=False), self.event_shape)


class DegreesOfFreedom(nn.Module):
    """Degrees of freedom of a Student t: a fixed number, or ``2 + 8 exp(raw)``, learned, which starts at 10.

    Above 2 the mean and the variance exist; the smaller they are, the heavier the tails.

    Args:
        source: A number, ``"shared"`` (one learned number) or ``"per-dimension"`` (one learned number per element).
        event_shape: Shape of one event.
    """

    fixed: Tensor

    def __init__(self, source: DegreesSource, event_shape: Size):
        super().__init__()
        self.learned = isinstance(source, str)
        if isinstance(source, str):
            self.raw = nn.Parameter(torch.zeros(event_shape if source == "per-dimension" else ()))
        else:
            self.register_buffer("fixed", torch.tensor(float(source)), persistent=False)

    def value(self) -> Tensor:
        """The degrees of freedom, with shape ``()`` or that of the event."""
        return 2 + 8 * self.raw.exp() if self.learned else self.fixed


class StudentT(LocationScale):
    """Independent Student t elements, with tails that fall as a power of x: an outlier affects the model little.

    The log-density falls as ``-(v + 1) log|x|`` for v degrees of freedom, the Gaussian's as ``-x^2 / 2``; as v grows
    it becomes the Gaussian's. The standard deviation is ``scale * sqrt(v / (v - 2))``.

    Args:
        event_shape: Shape of one event.
        scale: As for :class:`LocationScale`.
        degrees_of_freedom: A fixed number above 2, ``"shared"`` or ``"per-dimension"``; if learned, they start at 10.
        min_scale: As for :class:`LocationScale`.
        center: As for :class:`LocationScale`.
        unit: As for :class:`LocationScale`.

    Example:
        >>> p = StudentT((2,), 1.0, degrees_of_freedom=4.0)(torch.zeros(1, 2))
        >>> p.variance
        tensor([[2., 2.]])
    """

    @checked_arguments
    def __init__(
        self,
        event_shape: Sequence[int],
        scale: ScaleSource = "network",
        *,
        degrees_of_freedom: DegreesSource = "shared",
        min_scale: float = 1e-3,
        center: float | Tensor | None = None,
        unit: float | Tensor | None = None,
    ):
        super().__init__(event_shape, scale, min_scale=min_scale, center=center, unit=unit)
        self.degrees_of_freedom = DegreesOfFreedom(degrees_of_freedom, self.event_shape)

    def distribution(self, loc: Tensor, scale: Tensor) -> Distribution:
        """``t_v(loc, scale)``."""
        return independent(StudentTDistribution(self.degrees_of_freedom.value(), loc, scale), self.event_shape)


class FullRankGaussian(nn.Module):
    """A Gaussian over vectors with any covariance, ``N(loc, L L^T)``, by its Cholesky factor L.

    Parameters are the D locations, then the ``D (D + 1) / 2`` entries of L's lower triangle, row by row; its
    diagonal goes through the softplus with a floor, so that ``params = 0`` is the standard normal.

    Args:
        event_shape: ``(D,)``.
        min_scale: Floor of L's diagonal.
    """

    is_discrete = False

    rows_and_columns: Tensor

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, min_scale: float = 1e-3):
        super().__init__()
        self.event_shape = Size(event_shape)
        if len(self.event_shape) != 1:
            raise InputError(f"FullRankGaussian is over vectors (D,), not over events of shape {tuple(event_shape)}")
        (self.dim,) = self.event_shape
        self.num_params = self.dim + self.dim * (self.dim + 1) // 2
        self.scale = Scale("network", self.event_shape, floor=min_scale)
        self.register_buffer("rows_and_columns", torch.tril_indices(self.dim, self.dim), persistent=False)

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        params = checked(params, self.event_shape, self.num_params).flatten(1)
        loc, entries = params[:, : self.dim], params[:, self.dim :]
        rows, columns = self.rows_and_columns
        entries = torch.where(rows == columns, self.scale.of(entries), entries)
        scale_tril = entries.new_zeros(len(params), self.dim, self.dim)
        scale_tril[:, rows, columns] = entries
        return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)

    def share_at_floor(self, distribution: MultivariateNormal) -> float:
        """Share of the entries of L's diagonal within 5% of their floor."""
        return (distribution.scale_tril.diagonal(dim1=-2, dim2=-1) <= 1.05 * self.scale.floor).double().mean().item()
