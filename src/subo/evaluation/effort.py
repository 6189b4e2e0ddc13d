"""How long an evaluation takes, estimated by a quick timing, and how much fits into a given time."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split
from subo.evaluation.evidence.annealed import has_discrete_latents
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.scores import latents_at_a_time
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream

__all__ = ["NUM_SAMPLES", "Effort", "affordable", "caution_of_annealing", "caution_of_samples", "seconds_a_sample"]

NUM_SAMPLES = 1000  # if there is time for them
_FEWER = (500, 200, 100)
_LEAST = 100  # examples, before there are fewer samples than the last of these
_TIMED, _ENOUGH = 4, 0.2  # examples at a time, and seconds enough for a timing
_QUICK = 200_000  # samples in total, which take less than an hour
_HOUR = 3600.0  # seconds
_GRADIENTS = 10 * 5  # leapfrog steps per temperature, and samples per step in time: 6 to 20 were measured


@dataclass(frozen=True)
class Effort:
    """The number of samples and of examples.

    Args:
        num_samples: K of log p(x).
        num_data: N.
    """

    num_samples: int
    num_data: int

    def rows(self, length: int, *, seed: int = 0) -> torch.Tensor:
        """Positions of that many out of `length` examples: all, or some at random, in order."""
        if self.num_data >= length:
            return torch.arange(length)
        return torch.randperm(length, generator=stream("evaluation data", seed))[: self.num_data].sort().values


def affordable(seconds: float, a_sample: float, num_data: int, *, all_data: bool = False) -> Effort:
    """The most that fits into a time: 1,000 samples for all examples; else fewer samples, to 100; else fewer examples.

    If even 100 samples for 100 examples take longer, the samples are reduced to what fits, but not below 2.

    Args:
        seconds: Time limit.
        a_sample: Seconds per sample and example, as returned by :func:`seconds_a_sample`.
        num_data: Number of examples.
        all_data: Whether all examples must be measured.

    Example:
        >>> affordable(60.0, 1e-4, 500)
        Effort(num_samples=1000, num_data=500)
        >>> affordable(60.0, 1e-3, 500)
        Effort(num_samples=100, num_data=500)
        >>> affordable(60.0, 2e-3, 500)
        Effort(num_samples=100, num_data=300)
    """
    most = seconds / a_sample if a_sample > 0 else math.inf  # samples in total
    for num_samples in (NUM_SAMPLES, *_FEWER):
        if num_samples * num_data <= most:
            return Effort(num_samples, num_data)
    if not all_data and most >= _FEWER[-1] * min(_LEAST, num_data):
        return Effort(_FEWER[-1], min(num_data, int(most) // _FEWER[-1]))
    few = num_data if all_data else min(_LEAST, num_data)
    return Effort(max(2, int(most) // few), few)


def caution_of_samples(
    model: LatentVariableModel, split: Split, num_samples: int, *, option: str = "num_samples"
) -> str:
    """A caution that says how long log p(x) takes if that is more than an hour; otherwise empty.

    Args:
        model: The model.
        split: The data.
        num_samples: K.
        option: Name of the option that sets K.
    """
    if num_samples * len(split) <= _QUICK:
        return ""
    an_example = seconds_a_sample(model, split) * len(split)
    if num_samples * an_example <= _HOUR:
        return ""
    fewer = min(NUM_SAMPLES, num_samples // 10)
    return (
        f"Careful: log p(x) of {len(split):,} examples by {num_samples:,} samples each takes about "
        f"{_in_words(num_samples * an_example)}; `{option}={fewer}` takes about {_in_words(fewer * an_example)}"
    )


@torch.no_grad()
def caution_of_annealing(model: LatentVariableModel, split: Split, transitions: int) -> str:
    """A caution that says how long annealing takes at least, if that is more than an hour; otherwise empty.

    Args:
        model: The model.
        split: The data.
        transitions: Temperatures times chains times examples.
    """
    with evaluating(model), forked(0):
        if has_discrete_latents(model.draw(*place(model, *split.read(torch.arange(1))), path=False)):
            return ""  # discrete latents are not annealed
    seconds = seconds_a_sample(model, split) * _GRADIENTS * transitions
    if seconds <= _HOUR:
        return ""
    return (
        f"Careful: annealing takes {_in_words(seconds)} or more. Lower `temperatures`, `chains` or `intensive_data`, "
        "or give `minutes`; lower the first two if even a few examples take longer than that"
    )


def _in_words(seconds: float) -> str:
    """Such as ``3.2 hours``.

    Example:
        >>> _in_words(2.0), _in_words(7200.0), _in_words(1e9)
        ('2 seconds', '2 hours', '32 years')
    """
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{float(f'{seconds / size:.2g}'):,g} {unit}"
    return f"{max(1, round(seconds))} seconds"


@torch.no_grad()
def seconds_a_sample(model: LatentVariableModel, split: Split) -> float:
    """Seconds to draw, decode and weigh a sample of z for one example; doubles the number until that is measurable.

    Args:
        model: The model.
        split: The data, of which a few examples are used.
    """
    few = min(_TIMED, len(split))
    x, context = split.read(torch.linspace(0, len(split) - 1, few).long())
    x, context = place(model, x, context)
    max_rows = latents_at_a_time(model, split)
    most, count = max(1, max_rows // few), 1
    options: dict[str, Any] = {"max_rows": max_rows, "pareto": False}
    with evaluating(model), forked(0):
        log_marginal(model, x, context, num_samples=1, **options)  # a first pass fills caches
        while True:
            began = time.perf_counter()
            log_marginal(model, x, context, num_samples=count, **options)
            taken = time.perf_counter() - began
            if taken >= _ENOUGH or count >= most:
                return taken / (count * few)
            count = min(2 * count, most)
