"""Sequences of different lengths in memory: all steps one after the other, padded batch by batch.

N sequences of T_1, ..., T_N steps take the memory of their steps, ``(sum of T_i, *event)``; a batch is padded to its
longest sequence, and its mask says which steps are real. NaN at a real step is a missing value.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Integer, Shaped
from torch import Tensor

from subo.data.values import check_values
from subo.errors import InputError

__all__ = ["lined_up", "padded", "positions", "unpadded"]


def positions(
    lengths: Integer[Tensor, " N"], index: Integer[Tensor, " B"]
) -> tuple[Integer[Tensor, " S"], Bool[Tensor, "B T"]]:
    """Locates the steps of some sequences among all steps.

    Args:
        lengths: Lengths of all sequences, in order.
        index: Indices of the sequences.

    Returns:
        The positions of their S steps, one sequence after the other, and the mask ``(B, T)`` of the padded batch.

    Example:
        >>> positions(torch.tensor([2, 1, 3]), torch.tensor([2, 1]))
        (tensor([3, 4, 5, 2]), tensor([[ True,  True,  True],
                [ True, False, False]]))
    """
    starts, steps = lengths.cumsum(0) - lengths, lengths[index]
    times = torch.arange(int(steps.max()) if len(steps) else 0)
    mask = times < steps.unsqueeze(1)
    return (starts[index].unsqueeze(1) + times)[mask], mask


def padded(steps: Shaped[Tensor, " S *event"], mask: Bool[Tensor, "B T"]) -> Shaped[Tensor, " B T *event"]:
    """A batch of sequences from their concatenated steps; padded steps are 0."""
    x = steps.new_zeros(*mask.shape, *steps.shape[1:])
    x[mask] = steps
    return x


def unpadded(x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"]) -> list[Tensor]:
    """The individual sequences, ``(T_i, ...)``: the inverse of :func:`padded`."""
    return list(x[mask].split(mask.sum(1).tolist()))


def lined_up(sequences: Mapping[str, np.ndarray], *, where: str | Path) -> tuple[Tensor, Tensor]:
    """All steps of named sequences, one after the other, and the sequences' lengths.

    Args:
        sequences: ``(T_i, D)`` each, or ``(T_i,)`` for one number per step; bits, bytes or numbers.
        where: Name of the sequences in messages.

    Returns:
        Steps ``(sum of T_i, D)`` in float32, and lengths ``(N,)``.

    Raises:
        InputError: A sequence is empty, of another width or rank, not numeric, or holds infinity; or all values are
            NaN, which stands for a missing one.
    """
    columns: dict[str, np.ndarray] = {}
    for name, array in sequences.items():
        if array.dtype.kind not in "fiub":
            raise InputError(f"{where}, sequence {name}: expected numbers, got an array of {array.dtype}")
        steps = array[:, None] if array.ndim == 1 else array
        if steps.ndim != 2:
            raise InputError(
                f"{where}, sequence {name}: a sequence is an array (T, D), one row per time step, but its shape is "
                f"{array.shape}"
            )
        if steps.size == 0:
            raise InputError(
                f"{where}, sequence {name} is empty: its shape is {array.shape}. Leave it out: a sequence has at least "
                "one step and one number per step"
            )
        columns[name] = steps
    widths = {name: steps.shape[1] for name, steps in columns.items()}
    first = next(iter(widths))
    other = next((name for name, width in widths.items() if width != widths[first]), None)
    if other is not None:
        raise InputError(
            f"{where}: sequence {first} has {widths[first]} numbers per step and sequence {other} has {widths[other]}; "
            "all sequences need the same width: an array (T, D) has time in rows. Usually one is transposed, or lacks "
            "a column"
        )
    with np.errstate(over="ignore"):
        ready = {name: torch.from_numpy(steps.astype(np.float32)) for name, steps in columns.items()}
    for name, steps in ready.items():
        check_values(steps.where(~steps.isnan(), 0), where=f"{where}, sequence {name}")  # NaN is a missing value
    if all(bool(steps.isnan().all()) for steps in ready.values()):
        raise InputError(f"{where}: all values are NaN, which stands for a missing value: none is observed")
    return torch.cat(list(ready.values())), torch.tensor([len(steps) for steps in ready.values()])
