"""Training epochs: their batches, and what all processes agree on."""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import torch

from subo.data.batches import Batch, batches
from subo.data.on_device import Places, kept_on, places
from subo.data.splits import Split
from subo.training.checkpoints import TrainingState

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["agreed", "stream_of"]


def stream_of(
    split: Split, batch_size: int, seed: int, state: TrainingState, fabric: "Fabric"
) -> Iterator[Batch | Places]:
    """An endless stream of batches from the state's position; gathered on a GPU where the data fit there."""
    first = state.batch
    there = kept_on(fabric.device, split) if fabric.world_size == 1 else None
    for epoch in count(state.epoch):
        if there is not None:
            yield from places(there, batch_size, seed=seed, epoch=epoch, first=first)
            first = 0
            continue
        rank, world_size = fabric.global_rank, fabric.world_size
        yield from batches(split, batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size, first=first)
        first = 0


def agreed(fabric: "Fabric", seconds: float, signal: int, due: bool) -> tuple[float, int, bool]:
    """The time, the signal received and whether to save, agreed between all processes: the largest of each."""
    if fabric.world_size == 1:
        return seconds, signal, due
    values = torch.tensor([seconds, float(signal), float(due)], dtype=torch.float64, device=fabric.device)
    values = fabric.all_reduce(values, reduce_op="max")
    return float(values[0]), int(values[1]), bool(values[2])
