"""Batches: the data of an epoch in an order of its own, whole or in shares for several processes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from subo.core.context import check_rows
from subo.data.splits import Split
from subo.errors import InputError
from subo.runtime.arguments import accepted
from subo.runtime.randomness import stream

__all__ = ["Batch", "batch_of", "batches", "check_batch", "num_batches"]

POOL = 4  # batches whose sequences are sorted together: more have less padding, and are less random


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of a batch.

    Attributes:
        x: `(B, *event)`.
        context: What is known of each example: `index`, and `label` where there are labels, `(B,)` each; and what else
            the split knows.
        weight: What the mean over this share counts: the mean over processes of `weight * mean(share)` is the
            mean over the whole batch. 1 for a single process.
    """

    x: Float[Tensor, " B *event"]
    context: dict[str, Tensor]
    weight: float


def batch_of(item: Any) -> Batch:
    """Accepts ``x``, ``(x, label)``, ``(x, context)`` or a Batch.

    Raises:
        InputError: It is none of these.
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
    if x.ndim:  # else it is refused as no rows
        check_rows(context, len(x))
    return Batch(x.float() if x.dtype in (torch.bool, *_WHOLE) else x, context, 1.0)


_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _described(item: Any) -> str:
    """What came, such as ``(Tensor (3, 5), Tensor (3, 1))``."""
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')} {tuple(item.shape)}"
    if isinstance(item, list | tuple):
        return f"({', '.join(map(_described, item))})"
    return type(item).__name__


def check_batch(batch: Batch) -> None:
    """Refuses a batch that has no rows of real numbers.

    Raises:
        InputError: Says what came.
    """
    x = accepted("a batch", batch.x, Tensor)
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"a batch is rows, (B, ...), at least one, and a tensor of shape {tuple(x.shape)} came")


def num_batches(split: Split, batch_size: int) -> int:
    """Counts the batches of an epoch; the last, smaller one is kept."""
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
    """Gives the batches of one epoch, or one process's shares of them.

    The order depends on `(seed, epoch)`, the bits of batch b on `(seed, epoch, b)`, and neither on the number
    of processes, of which each takes every `world_size`-th example: several see together what one would see.
    Shuffled sequences meet others of about their length, so that less of a batch is padding.

    Args:
        split: What to read.
        batch_size: The number of data in a whole batch, over all processes.
        seed: Which order, and which bits.
        epoch: Each epoch has another order and other bits.
        shuffle: Whether to permute the data; else they come in the split's order.
        rank: Which process this is.
        world_size: The number of processes.
        first: The batch to begin with, for going on after an interruption; those before it cost nothing.

    Yields:
        Batches. A process whose share of the last batch is empty gets that batch's first example, weighing 0,
        so that all processes take the same number of steps.
    """
    count = num_batches(split, batch_size)
    order = torch.arange(len(split))
    if shuffle:
        order = torch.randperm(len(split), generator=stream("order", seed, epoch))
        if split.lengths is not None:
            order = _of_like_length(order, split.lengths, batch_size, stream("order of batches", seed, epoch))
    for b in range(first, count):
        index = order[b * batch_size : (b + 1) * batch_size]
        generator = stream("batch", seed, epoch, b) if split.resample else None
        if world_size == 1:
            yield Batch(*split.read(index, generator=generator), 1.0)
            continue
        share = torch.arange(len(index))[rank::world_size]
        weight = len(share) * world_size / len(index)
        if weight == 0:
            share = torch.zeros(1, dtype=torch.long)
        if split.resample:  # the whole batch is drawn, so that a share's bits are those of one process
            x, context = split.read(index, generator=generator)
            yield Batch(x[share], {name: value[share] for name, value in context.items()}, weight)
        else:
            yield Batch(*split.read(index[share]), weight)


def _of_like_length(
    order: Integer[Tensor, " N"], lengths: Integer[Tensor, " N"], batch_size: int, generator: torch.Generator
) -> Integer[Tensor, " N"]:
    """The same data, sorted by length within every few batches; whole batches in a random order.

    The last, smaller batch is taken before they are sorted: its data count more in a step, and any may be among them.
    """
    whole = len(order) // batch_size * batch_size
    pools = order[:whole].split(POOL * batch_size)
    parts = [part for pool in pools for part in pool[lengths[pool].argsort(stable=True)].split(batch_size)]
    shuffled = [parts[b] for b in torch.randperm(len(parts), generator=generator).tolist()]
    return torch.cat([*shuffled, order[whole:]])
