"""What a split keeps its rows in: a tensor, a sparse matrix, or files; and what is known of all rows in each case."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from subo.data.rows_on_disk import RowsOnDisk
from subo.data.sparse_rows import SparseRows, sparse_ranges
from subo.errors import InputError

with warnings.catch_warnings():  # whose filters SciPy's import changes
    from scipy.sparse import vstack

__all__ = ["Rows", "arrays", "changed", "chunks", "column_ranges", "joined", "some_of", "stored"]

Rows: TypeAlias = Tensor | SparseRows | RowsOnDisk
"""What a split keeps its rows in."""


_AT_ONCE = 1_000_000  # numbers


def some_of(x: Rows) -> Tensor:
    """Rows from which all are judged: those of a tensor, and of others some that are spread evenly, dense."""
    return x if isinstance(x, Tensor) else x.spread()


def changed(x: Rows, change: Callable[[Tensor], Tensor]) -> Any:
    """Rows, each of them changed; those of files when they are read, and sparse ones become dense."""
    if isinstance(x, RowsOnDisk):
        return x.then(change)
    return change(x if isinstance(x, Tensor) else torch.cat([*chunks(x)]))


def stored(x: Rows) -> Tensor:
    """Numbers among which all values are: of a tensor, of sparse rows those that are kept, and a 0; of files some."""
    if isinstance(x, SparseRows):
        return torch.from_numpy(np.append(x.matrix.data, x.matrix.dtype.type(0)))
    return some_of(x)


def arrays(x: Rows) -> tuple[Tensor, ...]:
    """All that is kept of some rows, as tensors; of files the numbers of the rows, and some of these."""
    if isinstance(x, Tensor):
        return (x,)
    if isinstance(x, RowsOnDisk):
        return x.numbers, x.spread()
    return tuple(map(torch.from_numpy, (x.matrix.data, x.matrix.indices, x.matrix.indptr)))


def chunks(x: Rows) -> Iterator[Tensor]:
    """The rows a few at a time, dense; of files only some."""
    if not isinstance(x, SparseRows):
        some = some_of(x)
        yield from some.split(max(1, _AT_ONCE * len(some) // max(1, some.numel())))
        return
    for start in range(0, len(x), x.at_a_time):
        yield x.index_select(0, torch.arange(start, min(start + x.at_a_time, len(x))))


def column_ranges(x: Rows) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number of each element, ``(*event)`` each."""
    if isinstance(x, SparseRows):
        return sparse_ranges(x)
    some = some_of(x)
    if some.is_floating_point() and bool(some.isnan().any()):  # missing values of sequences
        return some.nan_to_num(torch.inf).amin(0), some.nan_to_num(-torch.inf).amax(0)
    return some.amin(0), some.amax(0)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several splits, one after the other."""
    if any(isinstance(part, SparseRows) for part in parts):
        return SparseRows(vstack([part.matrix for part in parts], format="csr"))  # pyright: ignore
    if any(isinstance(part, RowsOnDisk) for part in parts):
        raise InputError("rows on disk of several parts are not joined: name one part, train, validation or test")
    return torch.cat([*parts])  # pyright: ignore
