"""Writes arrays and sequences to files: .npy, .npz and .csv."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from subo.errors import InputError
from subo.files.tables import write_table
from subo.files.whole import replacing

__all__ = ["save_array", "save_sequences"]


def save_array(
    path: str | Path,
    array: Tensor | np.ndarray,
    *,
    names: Sequence[str] | None = None,
    of: Mapping[str, Sequence[Any]] | None = None,
    whole: bool = False,
) -> None:
    """Writes an array, whole or not at all: a reader never sees half of it.

    Args:
        path: `.npy`, for the array itself; or `.csv`, for a header and a line per row, with events flattened and
            enough digits to recover every number exactly.
        array: `(N, *event)`.
        names: Names of the columns of a `.csv`; `x0`, `x1`, ... if None.
        of: Leading columns of a `.csv`, by name, which identify each row.
        whole: Whether all numbers are whole, so that a `.csv` has them without a decimal point.

    Raises:
        InputError: The ending is unknown, the number of names is wrong, or the file can't be written.
    """
    path = Path(path)
    values = np.atleast_1d(array.detach().cpu().numpy() if isinstance(array, Tensor) else array)
    if path.suffix.lower() not in (".npy", ".csv"):
        raise InputError(
            f"{path}: an array is written as .npy or .csv, not as {path.suffix or 'a file without ending'!r}"
        )
    table = values.reshape(len(values), math.prod(values.shape[1:]))
    if table.dtype == bool:  # written as 0 and 1, which can be read back
        table = table.astype(np.uint8)
    header = [f"x{i}" for i in range(table.shape[1])] if names is None else list(names)
    if len(header) != table.shape[1]:
        raise InputError(f"{path}: {len(header)} names for {table.shape[1]} columns; give one name per column")
    if path.suffix.lower() == ".csv":
        first = of or {}
        write_table(path, [*first, *header], _after([*first.values()], table, whole=whole))
        return
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def save_sequences(
    path: str | Path,
    steps: Tensor | np.ndarray,
    lengths: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    of: Sequence[str] | None = None,
) -> None:
    """Writes sequences, whole or not at all.

    Args:
        path: `.npz`, for one array `(T_i, D)` each, named 1, 2, ..., which `load_data` reads; or `.csv`, for a line per
            step, with the numbers of its sequence and of the step in it, counted from 1, before its values.
        steps: All steps, one sequence after the other, `(sum of T_i, *event)`.
        lengths: Lengths T_i.
        names: Names of the columns of a `.csv`; `x0`, `x1`, ... if None.
        of: Names of the sequences in a `.csv`, in place of their numbers.

    Raises:
        InputError: The ending is unknown, or the file can't be written.
    """
    path = Path(path)
    values = steps.detach().cpu().numpy() if isinstance(steps, Tensor) else steps
    values = values.reshape(len(values), -1)
    if path.suffix.lower() == ".csv":
        called = range(1, len(lengths) + 1) if of is None else of
        of_sequence = (itertools.repeat(name, length) for name, length in zip(called, lengths, strict=True))
        places = map(itertools.chain.from_iterable, (of_sequence, (range(1, length + 1) for length in lengths)))
        columns = [f"x{i}" for i in range(values.shape[1])] if names is None else names
        write_table(path, ["sequence", "step", *columns], _after([*places], values))
        return
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: sequences are written as .npz or .csv, not as {path.suffix or 'without ending'!r}")
    arrays = np.split(values, np.cumsum(lengths)[:-1])
    named: Any = {str(i + 1): array for i, array in enumerate(arrays)}
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **named)


def _after(first: Sequence[Iterable[Any]], rows: np.ndarray, *, whole: bool = False) -> Iterator[list[Any]]:
    """Lines of numbers, each after its cells for the leading columns."""
    beginnings = zip(*first, strict=True) if first else itertools.repeat(())
    for beginning, row in zip(beginnings, rows, strict=False):
        numbers = row.astype(np.int64) if whole else row
        yield [*beginning, *map(str, numbers)]  # NumPy's shortest exact digits; row.astype(str) would lose a Ctrl-C
