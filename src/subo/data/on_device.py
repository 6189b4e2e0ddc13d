"""Data that lie on the accelerator as they are stored: batches are gathered there, and their bits drawn there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Integer
from torch import Tensor

from subo.data.batches import Batch, num_batches, order_of
from subo.data.splits import Split
from subo.runtime.randomness import seed_of_stream

__all__ = ["Places", "kept_on", "places"]

_SHARE = 0.5  # of the free memory of a device, at most, for data


def kept_on(device: torch.device, split: Split) -> Split | None:
    """The data on a device, if it is a GPU with room for them; None elsewhere.

    Rows on disk and sparse rows stay where they are, and so do sequences, which are padded batch by batch.
    """
    if device.type != "cuda" or not isinstance(split.x, Tensor) or split.lengths is not None:
        return None
    tensors = [split.x, *split.context.values(), *([] if split.labels is None else [split.labels])]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    free, _ = torch.cuda.mem_get_info(device)
    return moved(split, device) if needed <= _SHARE * free else None


def moved(split: Split, device: torch.device) -> Split:
    """A split whose tensors that batches are read from are on a device."""
    context = {name: tensor.to(device) for name, tensor in split.context.items()}
    labels = None if split.labels is None else split.labels.to(device)
    return replace(split, x=split.x.to(device), labels=labels, context=context)


@dataclass(frozen=True, eq=False)
class Places:
    """A batch that is not read yet: which examples it has, and the seed of what is drawn of them.

    Attributes:
        split: The data, on a device.
        index: Their positions, ``(B,)``, on that device.
        seed: Seed of their bits or noise; None if nothing is drawn.
    """

    split: Split
    index: Integer[Tensor, " B"]
    seed: int | None

    def __len__(self) -> int:
        return len(self.index)

    def read(self, generator: torch.Generator | None = None) -> Batch:
        """The batch.

        Args:
            generator: Generator on the device that is at the start of the batch's stream; by default one is made.
        """
        if generator is None and self.seed is not None:
            generator = torch.Generator(self.index.device).manual_seed(self.seed)
        x, context = self.split.read(self.index, generator=generator)
        return Batch(x, context, 1.0)


def places(split: Split, batch_size: int, *, seed: int, epoch: int, first: int = 0) -> Iterator[Places]:
    """The batches of one epoch, in the order of :func:`subo.data.batches.batches`; not read yet.

    Args:
        split: The data, on a device.
        batch_size: Number of examples in a batch.
        seed: Seed for the order and the bits.
        epoch: Epoch number.
        first: Index of the first batch.
    """
    order = order_of(split, batch_size, seed=seed, epoch=epoch).to(split.x.device)
    for b in range(first, num_batches(split, batch_size)):
        drawn = seed_of_stream("batch", seed, epoch, b) if split.resample else None
        yield Places(split, order[b * batch_size : (b + 1) * batch_size], drawn)
