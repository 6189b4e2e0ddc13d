"""How long an evaluation takes, estimated by a quick timing, and how much fits into a given time."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.evidence.annealed import Annealing, begin
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.scores import latents_at_a_time, rows_at_a_time
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream

__all__ = [
    "NUM_SAMPLES",
    "Effort",
    "GradientTime",
    "affordable",
    "caution_of_samples",
    "gradient_time",
    "in_words",
    "samples_for",
    "seconds_a_sample",
]

NUM_SAMPLES = 1000  # if there is time for them
_FEWER = (500, 200, 100)
_LEAST = 100  # examples, before there are fewer samples than the last of these
_TIMED, _ENOUGH = 4, 0.2  # examples at a time, and seconds enough for a timing
_MANY = 50  # examples of the larger batch of gradients
_QUICK = 200_000  # samples in total, which take less than an hour
_SCORED = 5_000_000  # samples in total for scores of all examples
_HOUR = 3600.0  # seconds


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


@dataclass(frozen=True)
class GradientTime:
    """How long a gradient of log p(x, z) in z takes: small batches are mostly overhead.

    Args:
        fixed: Seconds of a pass to log p(x, z) and back, whatever the batch.
        per_latent: Seconds of each latent in addition.
    """

    fixed: float
    per_latent: float

    def of(self, num_latents: int) -> float:
        """Seconds of a pass with that many latents."""
        return self.fixed + self.per_latent * num_latents


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


def samples_for(num_data: int) -> int:
    """Samples for the score of each of many examples: 1,000 for up to 5,000, then fewer, to 100.

    They follow from the number of examples, not from a timing, so that scores are the same on every machine.

    Example:
        >>> samples_for(400), samples_for(15_000), samples_for(1_000_000)
        (1000, 200, 100)
    """
    fitting = (count for count in (NUM_SAMPLES, *_FEWER) if count * num_data <= _SCORED)
    return next(fitting, _FEWER[-1])


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
        f"{in_words(num_samples * an_example)}; `{option}={fewer}` takes about {in_words(fewer * an_example)}"
    )


def in_words(seconds: float) -> str:
    """Such as ``3.2 hours``.

    Example:
        >>> in_words(2.0), in_words(7200.0), in_words(1e9)
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


def gradient_time(model: LatentVariableModel, split: Split) -> GradientTime | None:
    """How long a gradient of log p(x, z) in z takes, by a timing of a small batch and of a larger one.

    On the CPU it is the time of this thread, which does not depend on what else the machine does.

    Args:
        model: The model.
        split: The data, of which a few examples are used.

    Returns:
        The time; None if the model cannot be annealed, such as one with discrete latents.
    """
    annealing = Annealing()
    few = max(1, min(_MANY, len(split), rows_at_a_time(model, split) // annealing.chains))
    timed = {}
    with evaluating(model), forked(0):
        for rows in (1, few):
            x, context = place(model, *split.read(torch.linspace(0, len(split) - 1, rows).long()))
            try:
                bridge, state = begin(model, x, context, annealing)
            except InputError:
                return None
            clock = time.thread_time if x.device.type == "cpu" else time.perf_counter
            bridge.at(state.z)  # a first pass fills caches
            count, began = 0, clock()
            while clock() - began < _ENOUGH:
                bridge.at(state.z).log_joint.sum().item()  # waits for the device
                count += 1
            timed[rows * annealing.chains] = (clock() - began) / count
    (least, short), (most, long) = min(timed.items()), max(timed.items())
    if most == least:
        return GradientTime(0.0, long / most)
    per_latent = max(0.0, long - short) / (most - least)
    return GradientTime(max(0.0, short - per_latent * least), per_latent)
