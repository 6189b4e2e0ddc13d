"""How much work goes into a full evaluation, and what it found."""

from dataclasses import dataclass

import torch
from torch import Tensor

from subo.errors import InputError
from subo.evaluation.latents.usage import LatentUsage
from subo.report.stages import Measured

__all__ = ["Depth", "Findings"]


@dataclass(frozen=True)
class Depth:
    """How much work goes into a full evaluation.

    Args:
        num_samples: K of importance sampling, from q and from the prior.
        max_data: How many data, at random; all by default.
        intensive_data: How many of these for what is costly: annealing, gaps, bracket, the prior's samples.
        temperatures: T of annealing.
        chains: C of annealing.
        gap_steps: The most of each search for an example's best q.
        calibration_data: How many data are simulated for calibration.

    Raises:
        InputError: A number makes no sense.
    """

    num_samples: int = 1000
    max_data: int | None = None
    intensive_data: int = 100
    temperatures: int = 1000
    chains: int = 16
    gap_steps: int = 1000
    calibration_data: int = 1000

    def __post_init__(self):
        least_of = {"num_samples": 2, "intensive_data": 2, "temperatures": 1, "chains": 2, "calibration_data": 100}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.max_data is not None and self.max_data < 2:
            raise InputError(f"max_data must be at least 2, not {self.max_data}: one example gives no standard error")


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found, stage by stage; :mod:`subo.report.table` makes a table of it.

    Attributes:
        measured: What is known of each stage: ``importance``, ``information``, ``calibration``, ``probe``, ``prior``,
            ``gaps``, ``annealed``, ``bracket``.
        usage: How each dimension of z is used; None of latents that are no vector.
        depth: How much work went into it.
        bracket: The estimator of the bracket: ``annealed``, or ``importance`` where latents are discrete.
    """

    measured: dict[str, Measured]
    usage: LatentUsage | None
    depth: Depth
    bracket: str

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return all(stage.complete for stage in self.measured.values())

    def values(self, stage: str, name: str) -> Tensor | None:
        """A result, where it is known."""
        return self.measured[stage].results.get(name) if stage in self.measured else None

    def column(self, stage: str, name: str, length: int) -> Tensor:
        """A per-datum result at the data's positions in the split; NaN elsewhere."""
        column = torch.full((length,), torch.nan, dtype=torch.float64)
        values = self.values(stage, name)
        if values is not None:
            column[self.measured[stage].rows] = values.double()
        return column
