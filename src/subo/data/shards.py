"""Arrays in files, one after the other, of which rows are read without the others: `.npy`, one file or many."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from subo.errors import InputError

__all__ = ["NpyShards"]

_GAP = 2**16  # bytes of unwanted rows that are read through rather than skipped
_SPAN = 2**24  # bytes that are read at once


class _Shard(NamedTuple):
    path: Path
    offset: int
    rows: int


class NpyShards:
    """The rows of `.npy` files, in the files' order.

    Read, not mapped: pages of a mapped file count as memory of the process, which would seem to grow.

    Args:
        paths: The files; arrays of one type and shape but for the number of rows.

    Raises:
        InputError: A file cannot be read, is cut off, is not an array of numbers, or does not fit to the first.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(2):
        ...     np.save(folder / f"{number}.npy", np.full((3, 2), number))
        >>> NpyShards([folder / "0.npy", folder / "1.npy"]).rows(np.array([2, 3]))
        array([[0, 0],
               [1, 1]])
    """

    neighbors = 1

    def __init__(self, paths: Sequence[Path]):
        headers = [_header(path) for path in paths]
        event, self.dtype = headers[0][1][1:], headers[0][2]
        for path, (_, shape, dtype) in zip(paths, headers, strict=True):
            if (shape[1:], dtype) != (event, self.dtype):
                raise InputError(
                    f"{path} holds rows of shape {shape[1:]} of {dtype}, and {paths[0]} of shape {event} of "
                    f"{self.dtype}: all files of one data set need one shape and type; numpy.load and astype convert"
                )
        self.shards = [_Shard(path, offset, shape[0]) for path, (offset, shape, _) in zip(paths, headers, strict=True)]
        self.shape = (sum(shard.rows for shard in self.shards), *event)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([shard.rows for shard in self.shards])

    @property
    def _row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:]))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of these numbers, from 0, which never fall; neighbors are read together."""
        found, span = (np.empty((count, *self.shape[1:]), dtype=self.dtype) for count in (len(numbers), 0))
        for start, end in self._spans(numbers):
            number = int(np.searchsorted(self._ends, numbers[start], side="right"))
            shard = self.shards[number]
            within = numbers[start:end] - (self._ends[number] - shard.rows)
            count = int(within[-1] - within[0]) + 1
            if bool((np.diff(within) == 1).all()):  # and none is wanted twice
                self._fill(found[start:end], shard, int(within[0]))
                continue
            if count > len(span):  # memory that was touched before is filled faster
                span = np.empty((count, *self.shape[1:]), dtype=self.dtype)
            self._fill(span[:count], shard, int(within[0]))
            np.take(span, within - within[0], axis=0, out=found[start:end], mode="clip")  # "raise" copies once more
        return found

    def place(self, number: int) -> str:
        """Where a row is, in words."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return f"{self.shards[shard].path}, row {number - (self._ends[shard] - self.shards[shard].rows) + 1},"

    def _spans(self, numbers: np.ndarray) -> list[tuple[int, int]]:
        """Ranges of positions whose rows are read at once: near each other, in one file, and not too many."""
        near, most = 1 + _GAP // self._row_bytes, max(1, _SPAN // self._row_bytes)
        shard = np.searchsorted(self._ends, numbers, side="right")
        cut = (np.diff(numbers) > near) | (np.diff(shard) != 0) | (np.diff(numbers // most) != 0)
        edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(numbers)]
        return [(start, end) for start, end in pairwise(edges) if end > start]

    def _fill(self, into: np.ndarray, shard: _Shard, first: int) -> None:
        """Reads neighbors from a file into an array that is contiguous."""
        try:
            with shard.path.open("rb", buffering=0) as file:
                file.seek(shard.offset + first * self._row_bytes)
                view = memoryview(into.reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
                while len(view):
                    if not (count := file.readinto(view)):
                        raise InputError(f"{shard.path} was cut off while it was read: write it again")
                    view = view[count:]
        except OSError as error:
            raise InputError(f"{shard.path} can't be read any more: {error.strerror}") from error


def _header(path: Path) -> tuple[int, tuple[int, ...], np.dtype]:
    """Where the numbers of a `.npy` begin, their shape and type; refuses what cannot be read row by row."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            offset = file.tell()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a NumPy file ({error}): write it again with numpy.save") from error
    if dtype.kind not in "fiub":
        raise InputError(f"{path}: expected numbers, got an array of {dtype}: convert it to float32 first")
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"{path}: expected shape (N, ...), one row per example, got {shape}")
    if by_columns:
        raise InputError(
            f"{path} is written column by column (Fortran order), so that rows cannot be read one by one: write it "
            "again with numpy.save(path, numpy.ascontiguousarray(x))"
        )
    if path.stat().st_size - offset < int(np.prod(shape)) * dtype.itemsize:
        raise InputError(f"{path}: its header promises an array {shape} of {dtype}, and the file is cut off before")
    return offset, shape, dtype
