"""Means over runs that differ only in the training seed, and the meaning of their standard errors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.evaluation.scores import Scores

__all__ = ["OverSeeds", "SeedMean", "difference_over_seeds", "mean_over_seeds", "over_seeds"]


@dataclass(frozen=True)
class SeedMean:
    r"""A mean over S training seeds and N data points, or the difference of two such means.

    Let ``l_si`` be the value of data point i under the run of seed s, and ``l_s`` a run's mean over the data. The two
    errors answer two questions: how far the mean is from that over all seeds, on these data; and how far it is from
    that over all data, for these runs. With ``l_si = mu + a_s + b_i + c_si`` (crossed random effects) the sum of their
    squares has expectation ``var(a)/S + var(b)/N + 2 var(c)/SN``. The variance of the mean over new seeds and new data
    has one ``var(c)/SN`` less: the sum errs on the safe side.

    Attributes:
        mean: The mean, in nats per data point.
        seed_error: Standard error between seeds, ``sd_s(l_s) / sqrt(S)``. For a difference, the runs of the two
            settings are independent, and their squares add up. None if a setting has a single run.
        data_error: Standard error over the data, ``sd_i(mean_s l_si) / sqrt(N)``. A difference is first computed at
            each data point: hard ones are hard for both settings.
        degrees: Degrees of freedom of the sum of the squared errors (Satterthwaite, 1946); None if `seed_error` is.
    """

    mean: float
    seed_error: float | None
    data_error: float
    degrees: float | None

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean over both seeds and data; None if a setting has a single run."""
        return None if self.seed_error is None else math.hypot(self.seed_error, self.data_error)

    @property
    def differs(self) -> bool:
        """Whether 0 is outside the 95% interval by Student's t: few seeds say little about their own spread."""
        from scipy.special import stdtrit

        error = self.standard_error
        return error is not None and abs(self.mean) > float(stdtrit(self.degrees, 0.975)) * error


def mean_over_seeds(values: Float[Tensor, "S N"]) -> SeedMean:
    """The mean of one setting's runs.

    Args:
        values: Values of each run at each data point; N is at least 2.

    Example:
        >>> import torch
        >>> mean = mean_over_seeds(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
        >>> mean.mean, round(mean.seed_error, 4), round(mean.data_error, 4)
        (3.0, 1.0, 1.0)
    """
    return _of(values.mean(0), [values.mean(1)])


def difference_over_seeds(values: Float[Tensor, "S N"], first: Float[Tensor, "R N"]) -> SeedMean:
    """How much larger the mean of a setting is than that of the first one, on the same data points."""
    return _of(values.mean(0) - first.mean(0), [values.mean(1), first.mean(1)])


def _of(at_each: Float[Tensor, " N"], runs: Sequence[Float[Tensor, " _"]]) -> SeedMean:
    """The mean from the values at each data point and the means of each setting's runs."""
    num_data, mean, data_error = len(at_each), at_each.mean().item(), _error(at_each)
    if min(map(len, runs)) < 2:
        return SeedMean(mean, None, data_error, None)
    squares = [(data_error**2, num_data - 1), *((_error(means) ** 2, len(means) - 1) for means in runs)]
    total = sum(square for square, _ in squares)
    spread = sum(square**2 / degrees for square, degrees in squares)
    degrees = total**2 / spread if spread > 0 else math.inf
    return SeedMean(mean, math.sqrt(sum(square for square, _ in squares[1:])), data_error, degrees)


def _error(values: Float[Tensor, " N"]) -> float:
    return values.std().item() / math.sqrt(len(values))


@dataclass(frozen=True)
class OverSeeds:
    """One setting's means over its runs.

    Attributes:
        name: Name of the first of its runs.
        runs: Names of the runs, each trained with a different seed.
        log_px: Importance-sampled log p(x).
        elbo: ``-(rate + distortion)``.
        log_px_difference: Difference from the first setting; None for that one.
        elbo_difference: The same for the ELBO.
    """

    name: str
    runs: tuple[str, ...]
    log_px: SeedMean
    elbo: SeedMean
    log_px_difference: SeedMean | None
    elbo_difference: SeedMean | None

    def flat(self) -> dict[str, Any]:
        """Plain numbers by name, with their errors as ``_se_seeds`` and ``_se_data``; None for missing ones."""
        record: dict[str, Any] = {"name": self.name, "runs": list(self.runs)}
        for name in ("log_px", "elbo", "log_px_difference", "elbo_difference"):
            value: SeedMean | None = getattr(self, name)
            record[name] = None if value is None else value.mean
            record[f"{name}_se_seeds"] = None if value is None else value.seed_error
            record[f"{name}_se_data"] = None if value is None else value.data_error
        return record


def over_seeds(scores: Mapping[str, Scores], settings: Mapping[str, Sequence[str]]) -> tuple[OverSeeds, ...]:
    """The means of several settings, and their differences from the first.

    Args:
        scores: Scores of each run, by name, on the same data points in the same order.
        settings: Names of each setting's runs, by the setting's name.
    """

    def stacked(quantity: str, runs: Sequence[str]) -> Float[Tensor, "S N"]:
        return torch.stack([getattr(scores[run], quantity).double() for run in runs])

    first = next(iter(settings.values()))
    return tuple(
        OverSeeds(
            name,
            tuple(runs),
            *(mean_over_seeds(stacked(quantity, runs)) for quantity in ("log_px", "elbo")),
            *(
                None if runs is first else difference_over_seeds(stacked(quantity, runs), stacked(quantity, first))
                for quantity in ("log_px", "elbo")
            ),
        )
        for name, runs in settings.items()
    )
