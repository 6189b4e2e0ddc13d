"""Batches: the data of an epoch in its own order, whole or in shares for several processes."""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, tee
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from subo.core.context import check_rows
from subo.data.read_ahead import ReadAhead, by_blocks, rows_in_buffer
from subo.data.rows_on_disk import RowsOnDisk
from subo.data.splits import Split
from subo.errors import InputError
from subo.runtime.arguments import accepted
from subo.runtime.randomness import stream

__all__ = ["Batch", "batch_of", "batches", "check_batch", "num_batches", "order_of"]

POOL = 4  # batches whose sequences are sorted together: larger values give less padding and less randomness


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of a batch.

    Attributes:
        x: `(B, *event)`.
        context: Named context of each example: `index`, and `label` if there are labels, `(B,)` each; and whatever
            else the split has.
        weight: Weight of the mean over this share: the mean over processes of `weight * mean(share)` is the
            mean over the whole batch. 1 for a single process.
        whole: Number of examples in the whole batch, over all processes; None if it is not shared.
    """

    x: Float[Tensor, " B *event"]
    context: dict[str, Tensor]
    weight: float
    whole: int | None = None

    def __len__(self) -> int:
        return len(self.x)


def batch_of(item: Any) -> Batch:
    """Accepts ``x``, ``(x, label)``, ``(x, context)`` or a Batch.

    Raises:
        InputError: The item is none of these.
    """
    if isinstance(item, Batch):
        return item
    match item:
        case Tensor() as x:
            context = {}
        case [Tensor() as x]:
            context = {}
        case [Tensor() as x, Tensor() as label] if label.ndim == 1 and label.dtype in _WHOLE:
            context = {"label": label}
        case [Tensor() as x, dict() as context]:
            pass
        case _:
            raise InputError(
                "a batch is x, or (x, label) with the label a whole number for each example, (B,), or (x, context) "
                f"with the context a dict of tensors by name; got {_described(item)}"
            )
    if x.ndim:  # otherwise it is refused below for having no rows
        check_rows(context, len(x))
    return Batch(x.float() if x.dtype in (torch.bool, *_WHOLE) else x, context, 1.0)


_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _described(item: Any) -> str:
    """Describes what was received, such as ``(Tensor (3, 5), Tensor (3, 1))``."""
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')} {tuple(item.shape)}"
    if isinstance(item, list | tuple):
        return f"({', '.join(map(_described, item))})"
    return type(item).__name__


def check_batch(batch: Batch) -> None:
    """Refuses a batch without rows of real numbers.

    Raises:
        InputError: Says what was received.
    """
    x = accepted("a batch", batch.x, Tensor)
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"a batch is at least one row, (B, ...); received a tensor of shape {tuple(x.shape)}")


def num_batches(split: Split, batch_size: int) -> int:
    """Counts the batches of an epoch; the last, smaller batch is kept."""
    if batch_size < 1:
        raise InputError(f"a batch needs at least one example; batch_size is {batch_size}")
    return math.ceil(len(split) / batch_size)


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """Yields the batches of one epoch, or one process's shares of them.

    The order depends on `(seed, epoch)`, the bits of batch b on `(seed, epoch, b)`, and neither on the number
    of processes. Each process takes every `world_size`-th example: together they see what one would see.
    Shuffled sequences are batched with others of similar length, to reduce padding. Rows on disk are shuffled by
    blocks, and then within buffers (:func:`subo.data.read_ahead.by_blocks`), and read ahead.

    Args:
        split: Split to read.
        batch_size: Number of examples in a whole batch, over all processes.
        seed: Seed for the order and the bits.
        epoch: Epoch number; each epoch has its own order and bits.
        shuffle: Whether to permute the data; otherwise they come in the split's order.
        rank: Index of this process.
        world_size: Number of processes.
        first: Index of the first batch, for resuming after an interruption; skipped batches cost nothing.

    Yields:
        Batches. A process whose share of the last batch is empty gets that batch's first example with weight 0,
        so that all processes take the same number of steps.
    """
    drawn = split.resample or split.lengths is not None  # bits and padding do not depend on the number of processes
    whole = world_size == 1 or drawn
    orders, ahead = tee(_orders(split, batch_size, seed=seed, epoch=epoch, shuffle=shuffle, first=first))
    with _opened(split, ahead, batch_size, every=1 if whole else world_size, rank=rank) as source:
        for b, index in enumerate(chain.from_iterable(order.split(batch_size) for order in orders), first):
            generator = stream("batch", seed, epoch, b) if split.resample else None
            if world_size == 1:
                yield Batch(*source.read(index, generator=generator), 1.0)
                continue
            share = torch.arange(len(index))[rank::world_size]
            weight = len(share) * world_size / len(index)
            if weight == 0:
                share = torch.zeros(1, dtype=torch.long)
            if whole:
                x, context = source.read(index, generator=generator)
                yield Batch(x[share], {name: value[share] for name, value in context.items()}, weight, len(index))
            else:
                yield Batch(*source.read(index[share]), weight, len(index))


def _orders(
    split: Split, batch_size: int, *, seed: int, epoch: int, shuffle: bool, first: int
) -> Iterator[Integer[Tensor, " n"]]:
    """The order of an epoch from a batch on: in one piece, or buffer by buffer for rows on disk."""
    num_batches(split, batch_size)  # refuses an impossible size
    skipped = first * batch_size
    if not isinstance(split.x, RowsOnDisk):
        order = order_of(split, batch_size, seed=seed, epoch=epoch) if shuffle else torch.arange(len(split))
        if skipped < len(order):
            yield order[skipped:]
        return
    buffer = rows_in_buffer(split.x, batch_size)  # whole batches
    generator = stream("order", seed, epoch)
    orders = by_blocks(len(split), block=split.x.block, buffer=buffer, generator=generator)
    if not shuffle:
        orders = (torch.arange(start, min(start + buffer, len(split))) for start in range(0, len(split), buffer))
    for order in orders:
        if skipped < len(order):
            yield order[skipped:]
        skipped = max(0, skipped - len(order))


def order_of(split: Split, batch_size: int, *, seed: int, epoch: int) -> Integer[Tensor, " N"]:
    """The random order of an epoch of data in memory."""
    order = torch.randperm(len(split), generator=stream("order", seed, epoch))
    if split.lengths is None:
        return order
    return _of_like_length(order, split.lengths, batch_size, stream("order of batches", seed, epoch))


def _opened(
    split: Split, orders: Iterable[Integer[Tensor, " n"]], batch_size: int, *, every: int, rank: int
) -> AbstractContextManager[Split | ReadAhead]:
    """What batches are read from: the split itself, or buffers of its rows on disk.

    Of buffers, only the rows of this process's shares are read: every so many of a batch, and its first, which stands
    in for an empty share.
    """
    if not isinstance(split.x, RowsOnDisk):
        return nullcontext(split)
    within = torch.arange(rows_in_buffer(split.x, batch_size)) % batch_size
    mine = (within % every == rank % every) | (within == 0)
    return ReadAhead(split, (some[mine[: len(some)]] for some in orders))


def _of_like_length(
    order: Integer[Tensor, " N"], lengths: Integer[Tensor, " N"], batch_size: int, generator: torch.Generator
) -> Integer[Tensor, " N"]:
    """The same data, sorted by length within every few batches, with whole batches in random order.

    The last, smaller batch is taken before sorting: its examples weigh more in a step, and any may be among them.
    """
    whole = len(order) // batch_size * batch_size
    pools = order[:whole].split(POOL * batch_size)
    parts = [part for pool in pools for part in pool[lengths[pool].argsort(stable=True)].split(batch_size)]
    shuffled = [parts[b] for b in torch.randperm(len(parts), generator=generator).tolist()]
    return torch.cat([*shuffled, order[whole:]])
