"""The rows of a table: independent columns of different kinds, and only the observed cells count."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

__all__ = ["Columns", "Group", "Jacobian", "Rows", "Warp"]

_CANDIDATES = 100  # of which a missing cell is chosen
_CELLS = 100_000  # at a time


class Group(NamedTuple):
    """Columns of one kind.

    Attributes:
        index: Their numbers.
        params: The slice of the parameters that is theirs.
        make: Parameters ``(..., P)`` to their distribution, of batch shape ``(..., n)``.
        mask: The model of which cells are missing, :class:`subo.parts.self_masking.SelfMasking`; None where that
            does not depend on their values.
    """

    index: Tensor
    params: slice
    make: Callable[[Tensor], Distribution]
    mask: Any = None


class Warp(NamedTuple):
    """An increasing map of each column's numbers t, linear between knots and beyond them: from the knots to the scores.

    Attributes:
        knots: ``(D, Q)``, increasing, at least two.
        scores: ``(D, Q)``, increasing.
    """

    knots: Tensor
    scores: Tensor

    def back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The t of numbers x, ``(..., D)``, and ``log dx / dt`` there."""
        rows = x.reshape(-1, x.shape[-1]).T.contiguous()
        above = torch.searchsorted(self.scores, rows).clamp(1, self.scores.shape[1] - 1)
        knot, score = self.knots.gather(1, above), self.scores.gather(1, above)
        rise = (score - self.scores.gather(1, above - 1)) / (knot - self.knots.gather(1, above - 1))
        return (knot + (rows - score) / rise).T.reshape(x.shape), rise.log().T.reshape(x.shape)


class Jacobian(NamedTuple):
    r""":math:`\log |dx / dy| = \log w'(t) - (\mathrm{shift} + \mathrm{slope} \cdot t)` of numbers x = w(t) for cells y.

    Attributes:
        shift: ``(D,)``.
        slope: ``(D,)``; not 0 where the cell is the exponential of a number t.
        warp: w; None where x is t.
    """

    shift: Tensor
    slope: Tensor
    warp: Warp | None = None

    def of(self, x: Tensor) -> Tensor:
        """The sum over the cells that have a density, ``(...)``."""
        return self.of_columns(x).sum(-1)

    def of_columns(self, x: Tensor) -> Tensor:
        """That of each cell, ``(..., D)``; 0 where it is missing or at a spike."""
        finite = x.isfinite()
        t, log_rise = x.where(finite, 0), 0
        if self.warp is not None:
            t, log_rise = self.warp.back(t)
        return torch.where(finite, log_rise - self.shift - self.slope * t, 0)


class Rows(constraints.Constraint):
    """Rows whose cells are numbers, infinity at a spike, or NaN where they are missing; and levels that exist."""

    event_dim = 1

    def __init__(self, spiked: Tensor, whole: Tensor, highest: Tensor):
        self.spiked, self.whole, self.highest = spiked, whole, highest
        super().__init__()

    @classmethod
    def of(cls, kinds: Sequence[Any], shape: Size) -> "Rows":
        """Those of columns of some kinds, each with its ``index``, ``size``, ``spiked``, ``whole`` and ``highest``."""
        spiked, whole = torch.zeros(2, *shape, dtype=torch.bool)
        highest = torch.full(shape, torch.inf)
        for kind in kinds:
            spiked[kind.index], whole[kind.index] = kind.spiked, kind.whole
            highest[kind.index] = torch.tensor([kind.highest(number) for number in range(kind.size)])
        return cls(spiked, whole, highest)

    def cells(self, value: Tensor) -> Tensor:
        """Which cells are inside, ``(..., D)``."""
        spiked, whole, highest = (tensor.to(value.device) for tensor in (self.spiked, self.whole, self.highest))
        number = value.isfinite() | (spiked & (value == torch.inf))
        return value.isnan() | (number & (~whole | ((value == value.round()) & (value >= 0) & (value <= highest))))

    def check(self, value: Tensor) -> Tensor:
        """Which rows are inside, ``(...)``."""
        return self.cells(value).all(-1)


class Columns(Distribution):
    r"""Independent columns, :math:`\log p(y) = \sum_{d\ \text{observed}} \log p_d(x_d) + \log |dx_d / dy_d|`.

    The numbers x are coded cells y; a missing cell is NaN. Integrating it out of a product leaves the other factors,
    so that the sum over the observed cells is the exact log-density of those. With a model of which cells are missing
    it is the joint density of the observed cells and of which cells these are, see :mod:`subo.parts.self_masking`.

    Args:
        params: ``(..., P)``.
        groups: The columns by kind; together all of them, each once.
        jacobian: What turns the density of the numbers into one of the cells.
        support: Of the rows.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)

    def __init__(self, params: Tensor, groups: Sequence[Group], jacobian: Jacobian, support: Rows):
        self.params, self.groups, self.jacobian, self._support = params, groups, jacobian, support
        super().__init__(params.shape[:-1], jacobian.shift.shape, validate_args=False)

    @property
    def support(self) -> Rows:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Rows of such numbers."""
        return self._support

    def unflatten(self, sizes: tuple[int, ...]) -> "Columns":
        """The same distribution with its first batch dimension split into `sizes`; a view."""
        return self._of(self.params.unflatten(0, sizes))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Columns":
        """The same distribution with its parameters expanded to `batch_shape`."""
        return self._of(self.params.expand(*batch_shape, self.params.shape[-1]))

    def _of(self, params: Tensor) -> "Columns":
        return Columns(params, self.groups, self.jacobian, self.support)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the observed cells."""
        total = self.jacobian.of(value)
        for cells in self._of_groups(value):
            total = total + cells.sum(-1)
        return total

    def log_prob_of_columns(self, value: Tensor) -> Tensor:
        """That of each cell, ``(..., D)``; where it is missing 0, or the log-probability that it is."""
        cells = torch.cat(list(self._of_groups(value)), -1)
        return cells[..., self._order] + self.jacobian.of_columns(value)

    def _of_groups(self, value: Tensor) -> Iterator[Tensor]:
        for group in self.groups:
            x = value[..., group.index]
            missing = x.isnan()
            p = group.make(self.params[..., group.params])
            log_prob = p.log_prob(x.where(~missing, 0)).masked_fill(missing, 0)
            yield log_prob if group.mask is None else log_prob + group.mask.log_prob(x, p)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rows without missing cells, ``(*sample, *batch, D)``."""
        return self._joined(lambda distribution: distribution.sample(Size(sample_shape)))

    @property
    def has_mask(self) -> bool:
        """Whether it has a model of which cells are missing."""
        return any(group.mask is not None for group in self.groups)

    def log_missing(self, value: Tensor) -> Tensor:
        """``log P(missing | x)`` of each cell of rows without missing cells, ``(..., D)``, by the model of the mask."""
        return torch.cat([group.mask(value[..., group.index])[0] for group in self.groups], -1)[..., self._order]

    @torch.no_grad()
    def sample_missing(self) -> Tensor:
        """Rows ``(*batch, D)`` as they are where cells are missing: each cell from ``p(x | z, missing)``.

        Without a model of the mask those of :meth:`sample`. With one, each is chosen from 100 of these by
        P(missing | x), as many as can be at a time.
        """
        if not self.has_mask:
            return self.sample()
        if self.batch_shape.numel() * self.event_shape.numel() > _CELLS and len(self.batch_shape):
            parts = [self._of(params).sample_missing() for params in self.params.chunk(2)]
            return torch.cat(parts) if len(self.params) > 1 else parts[0]
        x = self.sample(Size([_CANDIDATES]))
        chosen = torch.distributions.Categorical(logits=self.log_missing(x).movedim(0, -1), validate_args=False)
        return x.gather(0, chosen.sample().unsqueeze(0)).squeeze(0)

    @property
    def mean(self) -> Tensor:
        """The mean of each number; for levels the median or the most probable one."""
        return self._joined(lambda distribution: distribution.mean)

    @property
    def mode(self) -> Tensor:
        """The most probable number of each column."""
        return self._joined(lambda distribution: distribution.mode)

    def _joined(self, of: Callable[[Distribution], Tensor]) -> Tensor:
        parts = [of(group.make(self.params[..., group.params])) for group in self.groups]
        return torch.cat(parts, -1)[..., self._order]

    @property
    def _order(self) -> Tensor:
        """Where each column is among the groups' columns."""
        return torch.cat([group.index for group in self.groups]).argsort()
