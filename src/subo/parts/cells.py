"""The way of a mixed table's cells into a network: numbers of order one, levels one-hot, and which are observed."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.parts.columns import kind_and_levels
from subo.parts.networks import without_limits

__all__ = ["Cells", "GivenCells", "beside_cells"]


class Cells(nn.Module):
    """Coded cells as inputs of a network, ``(N, D) -> (N, out_features)``: a missing cell is 0, and said to be missing.

    The inputs are, one after the other: the numbers of columns that have any, counts as ``log(1 + x)``, all in units of
    their standard deviation; a 1 among as many inputs as a column has levels; a 1 for each spike; and a 1 for each cell
    that is observed. An unseen level is observed, without a level; among levels in order, without a number.

    Args:
        columns: The kind of each column and its number of levels, see :class:`subo.parts.columns.Columns`.
        examples: Some training data, which set the units; without them these are placeholders, for weights to come.
        reach: How far beyond the range of the examples numbers are let through, in units, as by
            :class:`subo.parts.networks.Standardize`.

    Example:
        >>> Cells(("real", "category 3"))(torch.tensor([[2.0, 1.0], [float("nan"), 2.0]]))
        tensor([[2., 0., 1., 0., 1., 1.],
                [0., 0., 0., 1., 0., 1.]])
    """

    numbers: Tensor
    counts: Tensor
    unseen: Tensor
    spikes: Tensor
    column: Tensor
    level: Tensor
    center: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, columns: Sequence[str], examples: Float[Tensor, "N D"] | None = None, *, reach: float = math.inf
    ):
        super().__init__()
        self.reach = reach
        read = [kind_and_levels(column) for column in columns]
        hot = [(i, level) for i, (kind, levels) in enumerate(read) if kind in _HOT for level in range(levels)]
        numbers = [i for i, (kind, _) in enumerate(read) if kind not in _HOT]
        places = {
            "numbers": numbers,
            "counts": [kind == "count" for kind, _ in read if kind not in _HOT],
            "spikes": [i for i, (kind, _) in enumerate(read) if kind == "spike"],
            "column": [i for i, _ in hot],
            "level": [level for _, level in hot],
        }
        for name, values in places.items():
            dtype = torch.bool if name == "counts" else torch.long
            self.register_buffer(name, torch.tensor(values, dtype=dtype), persistent=False)
        unseen = [levels if kind == "ordinal" else torch.inf for kind, levels in read if kind not in _HOT]
        self.register_buffer("unseen", torch.tensor(unseen), persistent=False)
        self.register_buffer("center", torch.zeros(len(numbers)))
        self.register_buffer("unit", torch.ones(len(numbers)))
        self.register_buffer("low", torch.full((len(numbers),), -torch.inf))
        self.register_buffer("high", torch.full((len(numbers),), torch.inf))
        self.register_load_state_dict_pre_hook(without_limits)
        self.out_features = len(numbers) + len(hot) + len(places["spikes"]) + len(columns)
        if examples is not None:
            self._set_units(self._numbers(examples))

    def _numbers(self, x: Tensor) -> Tensor:
        """The numbers, before their units; NaN where there is none."""
        numbers = x[:, self.numbers]
        finite = numbers.where(numbers.isfinite() & (numbers < self.unseen), torch.nan)
        return torch.where(self.counts, finite.clamp(min=0).log1p(), finite)

    def _set_units(self, numbers: Tensor) -> None:
        known = ~numbers.isnan()
        size = known.sum(0).clamp(min=1)
        center = numbers.nan_to_num(0).sum(0) / size
        spread = (((numbers - center).nan_to_num(0) ** 2).sum(0) / size).sqrt()
        self.center.copy_(center)
        self.unit.copy_(spread.where(spread > 0, 1))
        some = known.any(0) & math.isfinite(self.reach)  # otherwise there is no range to stay in
        reach = self.unit * (self.reach if math.isfinite(self.reach) else 0)
        self.low.copy_(torch.where(some, numbers.nan_to_num(torch.inf).amin(0) - reach, -torch.inf))
        self.high.copy_(torch.where(some, numbers.nan_to_num(-torch.inf).amax(0) + reach, torch.inf))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        within = self._numbers(x).clamp(self.low, self.high)
        numbers = ((within - self.center) / self.unit).nan_to_num(0)
        hot = x[:, self.column] == self.level
        spikes = x[:, self.spikes] == torch.inf
        return torch.cat([numbers, hot.to(numbers), spikes.to(numbers), (~x.isnan()).to(numbers)], 1)


class GivenCells(nn.Module):
    """A network that receives the cells of the condition in addition to its input: ``network([input, cells(given)])``.

    It declares ``given`` in its call, the coded cells c of a model ``p(x, z | c)``; some may be missing.

    Args:
        network: Network that takes ``cells.out_features`` more elements than an input has.
        cells: The way of the cells into it.

    Example:
        >>> network = GivenCells(nn.Identity(), Cells(("boolean 2",)))
        >>> network(torch.tensor([[7.0], [8.0]]), given=torch.tensor([[1.0], [float("nan")]]))
        tensor([[7., 0., 1., 1.],
                [8., 0., 0., 0.]])
    """

    def __init__(self, network: nn.Module, cells: Cells):
        super().__init__()
        self.network = network
        self.cells = cells

    def forward(self, input: Float[Tensor, "N ..."], given: Float[Tensor, "N C"]) -> Tensor:
        return self.network(torch.cat([input.flatten(1), self.cells(given)], 1))


def beside_cells(
    make: Callable[[Size], nn.Module],
    input_shape: Sequence[int],
    *,
    columns: Sequence[str],
    examples: Float[Tensor, "N C"] | None = None,
) -> GivenCells:
    """Makes the network for inputs of a given shape plus the cells of the condition.

    Args:
        make: Makes the network, given the shape that it sees.
        input_shape: Shape of one input without the cells.
        columns: Kinds and numbers of levels of the condition's columns, as for :class:`Cells`.
        examples: Some of their cells, which set the units.

    Example:
        >>> beside_cells(lambda shape: nn.Linear(shape.numel(), 4), (2,), columns=("real", "category 3")).network
        Linear(in_features=8, out_features=4, bias=True)
    """
    cells = Cells(columns, examples)
    return GivenCells(make(Size([Size(input_shape).numel() + cells.out_features])), cells)


_HOT = ("boolean", "category")
