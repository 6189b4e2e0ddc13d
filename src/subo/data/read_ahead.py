"""An epoch over rows on disk: blocks in random order, shuffled within a buffer, read ahead of their batches."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Integer
from torch import Tensor

from subo.data.rows_on_disk import RowsOnDisk
from subo.data.splits import Split

__all__ = ["ReadAhead", "by_blocks", "rows_in_buffer"]

_Read: TypeAlias = tuple[Tensor, dict[str, Tensor]]
_BUFFER, _BLOCKS = 2**26, 4  # bytes that are shuffled together, or blocks if these are larger; two are in memory


def rows_in_buffer(x: RowsOnDisk, batch_size: int) -> int:
    """How many rows are shuffled together: whole batches that take about 64 MB, or as many as four blocks."""
    return batch_size * max(1, max(x.at_most(_BUFFER), _BLOCKS * x.block) // batch_size)


def by_blocks(count: int, *, block: int, buffer: int, generator: torch.Generator) -> Iterator[Integer[Tensor, " b"]]:
    """A random order in which neighbors can be read together: blocks in random order, then rows within each buffer.

    With blocks of one row it is uniform among all orders.

    Args:
        count: Number of rows.
        block: Neighbors that stay in one buffer.
        buffer: Rows that are shuffled together.
        generator: Source of the order.

    Yields:
        The rows of each buffer, so that memory never holds the order of all.

    Example:
        >>> order = torch.cat([*by_blocks(12, block=2, buffer=4, generator=torch.Generator().manual_seed(0))])
        >>> sorted(order.tolist()) == list(range(12))
        True
    """
    held = torch.empty(0, dtype=torch.long)
    for some in torch.randperm(-(-count // block), generator=generator).split(max(1, buffer // block)):
        rows = (some.unsqueeze(1) * block + torch.arange(block)).flatten()
        held = torch.cat([held, rows[rows < count]])
        while len(held) >= buffer:
            yield held[torch.randperm(buffer, generator=generator)]
            held = held[buffer:]
    if len(held):
        yield held[torch.randperm(len(held), generator=generator)]


class ReadAhead:
    """Reads batches of a split on disk from a buffer, while the next buffer is read in the background.

    Args:
        split: The split, whose rows are on disk.
        buffers: Positions of the rows of each buffer, in the order in which batches ask for them.
    """

    def __init__(self, split: Split, buffers: Iterable[Integer[Tensor, " b"]]):
        self._split, self._reader = split, ThreadPoolExecutor(1, thread_name_prefix="read ahead")
        self._wanted = iter(buffers)
        self._next = self._ask()
        self._positions, self._held = torch.empty(0, dtype=torch.long), split

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    def read(self, index: Integer[Tensor, " B"], *, generator: torch.Generator | None = None) -> _Read:
        """As :meth:`subo.Split.read`, of rows of one buffer, which is the one at hand or the next."""
        while not bool(torch.isin(index[:1], self._positions)):
            if self._next is None:
                raise IndexError("these rows are in no buffer that is still to come")
            self._positions, self._held = self._next.result()
            self._next = self._ask()
        x, context = self._held.read(torch.searchsorted(self._positions, index), generator=generator)
        return x, context | {"index": index + self._split.first}

    def _ask(self) -> "Future[tuple[Tensor, Split]] | None":
        wanted = next(self._wanted, None)
        return None if wanted is None else self._reader.submit(self._load, wanted)

    def _load(self, wanted: Tensor) -> tuple[Tensor, Split]:
        positions = wanted.sort().values
        few = self._split.take(positions)
        return positions, replace(few, x=few.x.index_select(0, torch.arange(len(few))))
