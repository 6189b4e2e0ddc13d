"""Numbers in Parquet files, one after the other, of which row groups are read without the others."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subo.errors import InputError

__all__ = ["ParquetRows"]


class _Group(NamedTuple):
    path: Path
    number: int
    rows: int


class ParquetRows:
    """The rows of Parquet files whose columns are numbers, in the files' order.

    A source of :class:`~subo.data.rows_on_disk.RowsOnDisk`; a missing cell is NaN, which that refuses.

    Args:
        paths: The files, with the same columns.
        apart: Columns that are not rows' numbers, such as labels.

    Raises:
        InputError: pyarrow is missing, a file cannot be read, has other columns than the first, or one of no numbers.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, paths: Sequence[Path], *, apart: Sequence[str] = ()):
        files = [_opened(path) for path in paths]
        self.names = tuple(name for name in files[0].schema_arrow.names if name not in apart)
        for path, file in zip(paths, files, strict=True):
            _check(path, file.schema_arrow, paths[0], files[0].schema_arrow, self.names)
        self._groups = [
            _Group(path, number, file.metadata.row_group(number).num_rows)
            for path, file in zip(paths, files, strict=True)
            for number in range(file.num_row_groups)
        ]
        if not sum(group.rows for group in self._groups):
            raise InputError(f"{paths[0].parent if len(paths) > 1 else paths[0]} is empty: it has no rows")
        self.shape = (sum(group.rows for group in self._groups), len(self.names))

    @property
    def neighbors(self) -> int:
        """The rows of the largest group, which are read together."""
        return max(group.rows for group in self._groups)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([group.rows for group in self._groups])

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of these numbers, from 0, which never fall; of each group once."""
        found = np.empty((len(numbers), self.shape[1]), dtype=self.dtype)
        of = np.searchsorted(self._ends, numbers, side="right")
        for number in np.unique(of).tolist():
            start, end = np.searchsorted(of, [number, number + 1])
            within = numbers[start:end] - (self._ends[number] - self._groups[number].rows)
            table = self._read(self._groups[number])
            for column, name in enumerate(self.names):
                found[start:end, column] = table[name].to_numpy()[within]
        return found

    def column(self, name: str) -> np.ndarray | None:
        """A column of all files, whole; None where there is none."""
        paths = dict.fromkeys(group.path for group in self._groups)
        if name not in _opened(next(iter(paths))).schema_arrow.names:
            return None
        return np.concatenate([_opened(path).read(columns=[name])[name].to_numpy() for path in paths])

    def place(self, number: int) -> str:
        """Where a row is, in words."""
        group = self._groups[int(np.searchsorted(self._ends, number, side="right"))]
        first = next(at for at, other in enumerate(self._groups) if other.path == group.path)
        return f"{group.path}, row {number - (self._ends[first - 1] if first else 0) + 1},"

    def _read(self, group: _Group) -> Any:
        try:
            return _opened(group.path).read_row_group(group.number, columns=[*self.names])
        except OSError as error:
            raise InputError(f"{group.path} can't be read any more: {error}") from error


def _opened(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"{path}: .parquet files are read by pyarrow: pip install 'subo[parquet]'") from error
    try:
        return ParquetFile(path)
    except Exception as error:  # of bytes that are no such file pyarrow raises nearly anything
        raise InputError(f"{path} cannot be read as a .parquet file ({str(error).splitlines()[0]})") from error


def _check(path: Path, schema: Any, first: Path, expected: Any, names: Sequence[str]) -> None:
    from pyarrow import types

    if schema.names != expected.names:
        raise InputError(
            f"{path} has the columns {', '.join(schema.names)}, and {first} has {', '.join(expected.names)}: all files "
            "of one data set need the same columns in one order"
        )
    for name in names:
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise InputError(
                f"{path}: the column {name!r} holds {kind}, and only tables of numbers can stay on disk: leave "
                "`on_disk` out, to read mixed columns into memory, or leave the column out of the file"
            )
