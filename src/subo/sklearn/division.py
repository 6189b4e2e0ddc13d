"""Which rows train, which select the epoch, and which are kept apart to calibrate."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from subo.errors import InputError
from subo.runtime.randomness import stream

__all__ = ["Parts", "divided"]


class Parts(NamedTuple):
    """Numbers of rows: for training, for selecting the epoch, and of which nothing in the fit knows."""

    training: Tensor
    validation: Tensor
    calibration: Tensor

    @property
    def known(self) -> Tensor:
        """Those of the first two, in order."""
        return torch.cat([self.training, self.validation]).sort().values

    @property
    def stand_ins(self) -> Tensor:
        """All in order, with the first known one in place of those that nothing knows."""
        rows = torch.arange(sum(map(len, self)))
        rows[self.calibration] = self.known[0]
        return rows


def divided(count: int, *, validation: float, calibration: float, seed: int) -> Parts:
    """Divides rows at random; at least one is left for training.

    Args:
        count: Number of rows.
        validation: Fraction that selects the epoch, rounded up.
        calibration: Fraction that is kept apart, rounded up.
        seed: Seed for the division.

    Raises:
        InputError: There is no row.

    Example:
        >>> [len(part) for part in divided(50, validation=0.1, calibration=0.2, seed=0)]
        [35, 5, 10]
    """
    if count == 0:
        raise InputError("X has no row: give it the rows to be fitted")
    selecting = min(math.ceil(count * validation), count - 1)
    calibrating = min(math.ceil(count * calibration), count - 1 - selecting)
    order = torch.randperm(count, generator=stream("split", seed))
    first, second, rest = order.split([selecting, calibrating, count - selecting - calibrating])
    return Parts(rest, first, second)
