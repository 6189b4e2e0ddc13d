"""Rows that stay in files, in the place of a tensor of rows: only those that are read are in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Integer, Shaped
from torch import Size, Tensor

from subo.errors import InputError

__all__ = ["HeldTo", "RowSource", "RowsOnDisk", "spread_positions"]

_BLOCK = 2**20  # bytes of neighboring rows that are read together
_LOOKED_AT, _MOST_ROWS = 2**26, 10_000  # bytes and rows from which all are judged

Change: TypeAlias = Callable[[Tensor], Tensor]
"""What is done to rows after reading, ``(B, *event)``: to each by itself."""


@runtime_checkable
class RowSource(Protocol):
    """Files that hold rows of one shape and type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, *event)``."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type of the numbers."""
        ...

    @property
    def neighbors(self) -> int:
        """How many rows can only be read together."""
        ...

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of these numbers, from 0, which never fall; neighbors are read together."""
        ...

    def place(self, number: int) -> str:
        """Where a row is, in words."""
        ...


@dataclass(frozen=True)
class HeldTo:
    """Which values are of the kind that was inferred from some rows: not a change but a check of what is read.

    Args:
        kind: ``binary``, ``grey`` or ``whole``, as :func:`subo.data.kind_of` gives it.
        levels: The stored value that means 1.0.
    """

    kind: str
    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "binary":
            return (x == 0) | (x == self.levels)
        if self.kind == "grey":
            return (x >= 0) & (x <= self.levels)
        return (x >= 0) & (x == x.round() if x.is_floating_point() else x >= 0)


class RowsOnDisk:
    """Rows of files, ``(N, *event)``, as a :class:`~subo.Split` keeps them.

    They are taken as those of a tensor are, and stay where they are; :meth:`index_select` reads those that it takes.
    Bits and pixels become bytes, all else float32. What is to be known of all of them, such as their kind and their
    units, is judged from some: up to 10,000 and 64 MB, in blocks that are spread evenly.

    Args:
        source: The files.
        numbers: Which of their rows, rising; all by default.
        changes: What is done to rows after they were read, in this order.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from subo.data.shards import NpyShards
        >>> path = Path(tempfile.mkdtemp(), "x.npy")
        >>> np.save(path, np.arange(12.0).reshape(6, 2))
        >>> rows = RowsOnDisk(NpyShards([path]))
        >>> rows.shape, rows[torch.tensor([1, 4])].index_select(0, torch.tensor([1]))
        (torch.Size([6, 2]), tensor([[8., 9.]]))
    """

    def __init__(
        self, source: RowSource, *, numbers: Integer[Tensor, " N"] | None = None, changes: Sequence[Change] = ()
    ):
        self.source, self.changes = source, tuple(changes)
        count = source.shape[0]
        narrow = torch.int32 if count < 2**31 else torch.int64
        self.numbers = torch.arange(count, dtype=narrow) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"RowsOnDisk({len(self):,} rows of shape {tuple(self.shape[1:])}, {self.dtype})"

    @cached_property
    def _none(self) -> Tensor:
        """No row, of the shape and type that rows have once they are read."""
        return self._changed(np.empty((0, *self.source.shape[1:]), dtype=self.source.dtype))

    @property
    def shape(self) -> Size:
        """``(N, *event)``."""
        return Size((len(self), *self._none.shape[1:]))

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._none.ndim

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return self._none.dtype

    def is_floating_point(self) -> bool:
        """Whether these are real numbers rather than pixels or bits."""
        return self._none.is_floating_point()

    @property
    def block(self) -> int:
        """How many neighbors are read together."""
        return max(self.source.neighbors, self.at_most(_BLOCK))

    @property
    def _row_bytes(self) -> int:
        return max(1, self._none.dtype.itemsize * self._none.shape[1:].numel())

    def at_most(self, bytes_: int) -> int:
        """How many rows take that many bytes; at least one."""
        return max(1, bytes_ // self._row_bytes)

    def __getitem__(self, index: Any) -> "RowsOnDisk":
        """These rows, which stay on disk.

        Raises:
            InputError: The index is not of rows.
        """
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim == 1):
            raise InputError(f"rows on disk are taken by a slice or a tensor of their positions, not by {index!r}")
        return RowsOnDisk(self.source, numbers=self.numbers[index], changes=self.changes)

    def then(self, change: Change) -> "RowsOnDisk":
        """The same rows, with one more change after reading."""
        return RowsOnDisk(self.source, numbers=self.numbers, changes=(*self.changes, change))

    def index_select(self, dim: int, index: Integer[Tensor, " B"]) -> Shaped[Tensor, " B *event"]:
        """These rows, read.

        Raises:
            InputError: A number is not finite; says in which row.
        """
        rising, where = self.numbers[index].unique(return_inverse=True)
        x = self._changed(self.source.rows(rising.numpy()), rising)
        in_order = len(rising) == len(where) and bool((where[1:] > where[:-1]).all())
        return x if in_order else x.index_select(0, where)

    def _refused(self, bad: Tensor, numbers: Tensor, why: str) -> InputError:
        """The error for the first row with a number that it may not hold."""
        return InputError(f"{self.source.place(int(numbers[int(bad.flatten(1).any(1).nonzero()[0, 0])]))} {why}")

    def _changed(self, array: np.ndarray, numbers: Tensor | None = None) -> Tensor:
        is_bytes = array.dtype == bool or (array.dtype == np.uint8 and array.ndim > 2)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            x = torch.from_numpy(array.astype(np.uint8 if is_bytes else np.float32, copy=False))
        if numbers is not None and x.is_floating_point() and not _all_finite(x):
            bad = ~x.isfinite()
            why = (
                "holds NaN or infinity, but all values must be finite. Usually a value is missing or beyond float32 "
                "(3.4e38): drop the row, or fill or scale the value"
            )
            raise self._refused(bad, numbers, why)
        for change in self.changes:
            if not isinstance(change, HeldTo):
                x = change(x)
            elif numbers is not None and bool((bad := ~change(x)).any()):
                why = (
                    f"holds {x[bad][0].item():g}, but by the rows that were looked at, all values are {change.kind}. "
                    "Let one of the first rows show what there is, or read the data into memory (`on_disk=False`)"
                )
                raise self._refused(bad, numbers, why)
        return x

    def spread(self) -> Shaped[Tensor, " n *event"]:
        """Some of them, read: blocks that are spread evenly over all."""
        return self._some

    @cached_property
    def _some(self) -> Tensor:
        return self.index_select(0, self.looked_at())

    def looked_at(self) -> Integer[Tensor, " n"]:
        """The positions of :meth:`spread`."""
        return spread_positions(len(self), min(_MOST_ROWS, self.at_most(_LOOKED_AT)), block=self.block)


def _all_finite(x: Tensor) -> bool:
    """Whether all numbers are finite, by the least and the greatest, which takes a tenth of the time."""
    return x.numel() == 0 or bool(torch.stack(x.aminmax()).isfinite().all())


def spread_positions(count: int, most: int, *, block: int) -> Integer[Tensor, " n"]:
    """Positions among `count`, rising: all, or at most that many, in blocks of neighbors that are spread evenly.

    Example:
        >>> spread_positions(20, 6, block=1)
        tensor([ 0,  3,  7, 11, 15, 19])
    """
    if count <= most:
        return torch.arange(count)
    block = min(block, max(1, most // 50))  # of few blocks all might be alike
    starts = torch.linspace(0, count - block, max(1, most // block), dtype=torch.float64).long()
    return (starts.unsqueeze(1) + torch.arange(block)).flatten().unique()  # blocks may meet
