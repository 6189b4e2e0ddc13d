"""The family of mixed tables: a distribution for each column by its kind, over cells coded as numbers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.distributions.cells import Levels, Ordinal, Spiked
from subo.distributions.columns import Columns as ColumnsDistribution
from subo.distributions.columns import Group, Jacobian, Rows, Warp
from subo.distributions.gaussian import Gaussian
from subo.distributions.negative_binomial import NegativeBinomial
from subo.distributions.student_t import StudentT
from subo.errors import InputError
from subo.parts.counts import DispersionSource
from subo.parts.families import checked
from subo.parts.location_scale import DegreesOfFreedom, DegreesSource, Scale, ScaleSource
from subo.parts.self_masking import ByDecay, ByLevel, BySpike, ByThreshold, SelfMasking
from subo.runtime.arguments import checked_arguments

__all__ = ["KINDS", "Columns", "kind_and_levels"]


def kind_and_levels(column: str) -> tuple[str, int]:
    """The kind of a column and its number of levels, or of a number's knots, which is 0 where it has none.

    Example:
        >>> kind_and_levels("category 5"), kind_and_levels("real")
        (('category', 5), ('real', 0))
    """
    kind, _, levels = column.partition(" ")
    return kind, int(levels or 0)


class _OfKind(nn.Module, ABC):
    """The distributions of all columns of one kind.

    Args:
        index: The numbers of the columns.
        levels: Number of levels of each column, 0 where there are none.
        options: Settings of the family.
    """

    index: Tensor
    whole: ClassVar[bool] = False
    """Whether the numbers are whole, from 0 upwards."""
    spiked: ClassVar[bool] = False
    """Whether infinity stands for a cell."""
    num_params: int

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__()
        self.register_buffer("index", torch.tensor(index), persistent=False)
        self.levels, self.size = tuple(levels), len(levels)

    @abstractmethod
    def forward(self, params: Tensor, unseen: Tensor) -> Distribution:
        """Parameters ``(..., num_params)`` to distributions of batch shape ``(..., size)``."""

    def highest(self, column: int) -> float:
        """The largest number that stands for a cell."""
        return math.inf

    def start(self, x: Tensor) -> Tensor:
        """Parameters, ``(num_params,)``, that describe examples ``(N, size)`` without any z; NaN is missing."""
        return torch.zeros(self.num_params)

    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means of counts."""
        return torch.zeros(self.num_params, dtype=torch.bool)

    def masking(self) -> SelfMasking:
        """A model of whether a cell is missing given its value, not fitted yet."""
        return ByLevel(torch.tensor([self.highest(number) for number in range(self.size)]))


class _Normal(_OfKind):
    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        self.scale = Scale(options["scale"], Size([self.size]), floor=options["min_scale"])
        self.num_params = self.size * (1 + self.scale.from_network)

    def forward(self, params: Tensor, unseen: Tensor) -> Gaussian:
        loc, *rest = params.split(self.size, -1)
        return Gaussian(loc, self.scale.of(*rest), 0)

    def masking(self) -> SelfMasking:
        return ByThreshold(self.size)


class _Real(_Normal):
    """Numbers whose tails may be heavy: with a normal, a row that q takes for another kind would cost any price.

    Logarithms stay normal, since the exponential of a Student t has no mean.
    """

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        source = options["degrees_of_freedom"]
        self.degrees_of_freedom = None if source is None else DegreesOfFreedom(source, Size([self.size]))

    def forward(self, params: Tensor, unseen: Tensor) -> Gaussian | StudentT:  # pyright: ignore[reportIncompatibleMethodOverride]
        p = super().forward(params, unseen)
        return p if self.degrees_of_freedom is None else StudentT(self.degrees_of_freedom.value(), p.loc, p.scale)


class _Spike(_Normal):
    spiked = True

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        self.num_params += self.size

    def forward(self, params: Tensor, unseen: Tensor) -> Spiked:  # pyright: ignore[reportIncompatibleMethodOverride]
        logit, rest = params[..., : self.size], params[..., self.size :]
        return Spiked(logit, super().forward(rest, unseen))

    def masking(self) -> SelfMasking:
        return BySpike(self.size)

    def start(self, x: Tensor) -> Tensor:
        spikes, known = x.isinf().sum(0), (~x.isnan()).sum(0)
        share = (spikes + 0.5) / (known + 1)
        return torch.cat([share.logit(), torch.zeros(self.num_params - self.size)])


class _Count(_OfKind):
    whole = True

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        self.dispersion = Scale(options["dispersion"], Size([self.size]), floor=0.0)
        self.num_params = self.size * (1 + self.dispersion.from_network)

    def forward(self, params: Tensor, unseen: Tensor) -> NegativeBinomial:
        log_mean, *rest = params.split(self.size, -1)
        return NegativeBinomial(log_mean, self.dispersion.of(*rest))  # as small as it is: lgamma is slow

    def log_means(self) -> Tensor:
        return torch.arange(self.num_params) < self.size

    def masking(self) -> SelfMasking:
        return ByDecay(self.size)

    def start(self, x: Tensor) -> Tensor:
        """The moments' mean and, from the variance ``m + a m^2``, their dispersion a."""
        known = ~x.isnan()
        mean = (x.nan_to_num(0).sum(0) + 1) / (known.sum(0) + 1)  # as if by one more example, so that it is not 0
        variance = ((x - mean).nan_to_num(0) ** 2).sum(0) / known.sum(0).clamp(min=1)
        raw = self.dispersion.raw_of(((variance - mean) / mean**2).clamp(0.01, 10))
        if self.dispersion.from_network:
            return torch.cat([mean.log(), raw])
        with torch.no_grad():
            if self.dispersion.source == "per-dimension":
                self.dispersion.raw.copy_(raw)
        return mean.log()


class _Category(_OfKind):
    """Columns of up to twice as many levels as each other share an array; fewer arrays would be mostly empty."""

    whole = True
    columns: Tensor
    own: Tensor

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        self.most = max(levels)
        self.num_params = self.size * self.most
        self.register_buffer("columns", torch.tensor(self.levels), persistent=False)
        self.register_buffer("own", torch.arange(self.most) < self.columns.unsqueeze(-1), persistent=False)

    def forward(self, params: Tensor, unseen: Tensor) -> Levels:
        logits = params.unflatten(-1, (self.size, self.most)).masked_fill(~self.own, -torch.inf)
        return Levels(logits, unseen, self.columns)

    def highest(self, column: int) -> float:
        return float(self.levels[column])  # that of an unseen level

    def start(self, x: Tensor) -> Tensor:
        hot = x.unsqueeze(-1) == torch.arange(self.most)  # NaN equals nothing
        return (hot.sum(0) + 0.5).log().flatten()


class _Ordinal(_OfKind):
    whole = True

    def __init__(self, index: Sequence[int], levels: Sequence[int], options: dict[str, Any]):
        super().__init__(index, levels, options)
        self.most = max(levels) - 1
        self.num_params = self.size
        own = torch.arange(self.most) < torch.tensor(levels).unsqueeze(-1) - 1
        self.register_buffer("own", own, persistent=False)
        self.first = nn.Parameter(torch.full((self.size, 1), -1.0))
        self.log_steps = nn.Parameter(torch.zeros(self.size, self.most - 1))

    own: Tensor

    def forward(self, params: Tensor, unseen: Tensor) -> Ordinal:
        thresholds = torch.cat([self.first, self.first + self.log_steps.exp().cumsum(-1)], -1)
        return Ordinal(params, thresholds.masked_fill(~self.own, torch.inf), unseen)

    def highest(self, column: int) -> float:
        return float(self.levels[column])  # that of an unseen level

    def start(self, x: Tensor) -> Tensor:
        """Sets the thresholds to the logits of the levels' cumulative frequencies."""
        grades = torch.arange(self.most)
        below = (x.unsqueeze(-1) <= grades).sum(0) + (grades + 1) / (self.most + 1)
        logits = (below / ((~x.isnan()).sum(0).unsqueeze(-1) + 1)).logit()
        logits = logits.where(self.own, 0)
        with torch.no_grad():
            self.first.copy_(logits[:, :1])
            self.log_steps.copy_(logits.diff(dim=-1).clamp(min=1e-3).log())
        return torch.zeros(self.num_params)


KINDS: dict[str, type[_OfKind]] = {
    "real": _Real,
    "positive": _Normal,
    "date": _Real,
    "spike": _Spike,
    "count": _Count,
    "boolean": _Category,
    "category": _Category,
    "ordinal": _Ordinal,
}
"""The distribution of a column by its kind. Several names may share one: they differ in how cells become numbers."""


class Columns(nn.Module):
    """Independent columns of different kinds, of which only the observed cells count: the likelihood of mixed tables.

    Rows are coded as numbers (:class:`subo.data.tables.coding.Coding`), NaN where a cell is missing; densities are
    those of the cells as they came, once :meth:`set_units` knows the coding.

    Args:
        event_shape: ``(D,)``.
        columns: The kind of each column, followed by its number of levels if it has levels, such as ``"category 5"``,
            or of the knots by which a number is scaled.
        scale: Source of the scale of ``real``, ``positive``, ``date`` and ``spike`` columns, in units of their coding.
        min_scale: Floor of that scale.
        dispersion: Source of the dispersion of ``count`` columns.
        degrees_of_freedom: Source of those of ``real`` and ``date`` columns; None makes these normal.
        missing_model: Whether a cell's being missing depends on its value (``self``), see
            :mod:`subo.parts.self_masking`. ``log_prob`` is then that of the observed cells and of which these are.

    Attributes:
        numbers: The columns whose cells are numbers with a density, as they are coded.

    Example:
        >>> family = Columns((3,), columns=("real", "category 4", "count"))
        >>> p = family(torch.zeros(1, family.num_params))
        >>> p.log_prob(torch.tensor([[float("nan"), 2.0, float("nan")]])).exp().detach()  # one cell is observed
        tensor([0.2500])
    """

    is_discrete = False
    shift: Tensor
    slope: Tensor
    unseen: Tensor
    knots: Tensor
    scores: Tensor

    @checked_arguments
    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        columns: Sequence[str],
        scale: ScaleSource = "per-dimension",
        min_scale: float = 1e-3,
        dispersion: DispersionSource = "per-dimension",
        degrees_of_freedom: DegreesSource | None = None,
        missing_model: Literal["none", "self"] = "none",
    ):
        super().__init__()
        self.event_shape, degrees = Size(event_shape), degrees_of_freedom
        if self.event_shape != (len(columns),):
            raise InputError(f"{len(columns)} columns were described, for data of shape {tuple(event_shape)}")
        read = [*map(kind_and_levels, columns)]
        if unknown := [kind for kind, _ in read if kind not in KINDS]:
            raise InputError(f"there is no kind of column {unknown[0]!r}: expected one of {', '.join(KINDS)}")
        options = {"scale": scale, "min_scale": min_scale, "dispersion": dispersion, "degrees_of_freedom": degrees}
        members: dict[tuple[type[_OfKind], int], list[int]] = {}
        for number, (kind, levels) in enumerate(read):
            alike = (max(levels, 2) - 1).bit_length() if KINDS[kind] is _Category else 0
            members.setdefault((KINDS[kind], alike), []).append(number)
        made = (kind(index, [read[i][1] for i in index], options) for (kind, _), index in members.items())
        self.kinds: Any = nn.ModuleList(made)
        self.masks: Any = nn.ModuleList(kind.masking() for kind in self.kinds if missing_model == "self")
        self.numbers = tuple(i for i, (kind, _) in enumerate(read) if KINDS[kind] in (_Real, _Normal))
        self.num_params = sum(kind.num_params for kind in self.kinds)
        self.rows = Rows.of([*self.kinds], self.event_shape)
        for name, value in (("shift", 0.0), ("slope", 0.0), ("unseen", 1e-4)):
            self.register_buffer(name, torch.full(self.event_shape, value))
        if most := max(levels * (KINDS[kind] not in (_Category, _Ordinal)) for kind, levels in read):
            for name in ("knots", "scores"):
                self.register_buffer(name, torch.arange(float(most)).repeat(len(read), 1))

    def set_units(self, **units: Tensor) -> None:
        r"""Makes densities those of cells y, see :class:`subo.distributions.columns.Jacobian`.

        Args:
            **units: ``shift``, ``slope`` and ``unseen``, the probability of a level that was never seen, ``(D,)`` each;
                of columns with knots also ``knots`` and ``scores``, ``(D, Q)``.
        """
        for name, value in units.items():
            getattr(self, name).copy_(value)

    def forward(self, params: Float[Tensor, "N ..."]) -> ColumnsDistribution:
        params = checked(params, self.event_shape, self.num_params).flatten(1)
        warp = Warp(self.knots, self.scores) if "knots" in self._buffers else None
        return ColumnsDistribution(params, self._groups(), Jacobian(self.shift, self.slope, warp), self.rows)

    def start(self, examples: Float[Tensor, "N D"]) -> Float[Tensor, " P"]:
        """Parameters that describe each column by itself: where an untrained decoder starts."""
        for kind, mask in zip(self.kinds, self.masks, strict=False):  # of masks there may be none
            mask.start(examples[:, kind.index])
        return torch.cat([kind.start(examples[:, kind.index]) for kind in self.kinds])

    @property
    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means: those of columns of counts."""
        return torch.cat([kind.log_means() for kind in self.kinds])

    def share_at_floor(self, distribution: ColumnsDistribution) -> float | None:
        """Share of the scales within 5% of the floor; None without a column that has a scale."""
        near = []
        for kind, group in zip(self.kinds, distribution.groups, strict=True):
            p = group.make(distribution.params[..., group.params])
            normal = p.normal if isinstance(p, Spiked) else p
            if isinstance(normal, Gaussian | StudentT):
                near.append((normal.scale <= 1.05 * kind.scale.floor).flatten())
        return torch.cat(near).double().mean().item() if near else None

    def _groups(self) -> list[Group]:
        groups, first = [], 0
        for kind, mask in zip_longest(self.kinds, self.masks):
            share, unseen = slice(first, first + kind.num_params), self.unseen[kind.index]
            groups.append(Group(kind.index, share, partial(kind, unseen=unseen), mask))
            first = share.stop
        return groups
