"""The amount of work of a full evaluation, how long its costly part takes, and how much of it fits into a time."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.effort import GradientTime, in_words
from subo.evaluation.evidence.annealed import Annealing
from subo.parts.conditionals import Given, Local

__all__ = ["REDUCIBLE", "Depth", "Reduced", "affordable_depth", "examples_a_piece", "has_row_of_parameters"]

REDUCIBLE = ("temperatures", "intensive_data")
"""The numbers of a depth that may be lowered to what fits into a time."""
_LOWER = ((1000, 100), (1000, 50), (500, 50), (500, 25), (200, 25), (200, 10))  # such numbers, in this order
_ELEMENTS, _FEWEST = 10 * 28 * 28, 10  # elements of x, and examples, in a piece: small batches are mostly overhead
_SEARCHES, _SEARCH_SAMPLES = 3, 64  # of the gaps: two for the best q and one for a flow, and the samples of a step
_HOUR = 3600.0  # seconds


@dataclass(frozen=True)
class Depth:
    """The amount of work that goes into a full evaluation.

    Args:
        num_samples: K for importance sampling, from q and from the prior.
        max_data: Number of examples, chosen at random; all by default.
        intensive_data: Number of these for costly measurements: annealing, gaps, bracket, samples from the prior.
        temperatures: T for annealing.
        chains: C for annealing.
        gap_steps: Maximum number of steps in each search for an example's best q.
        calibration_data: Number of examples simulated for calibration.

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


@dataclass(frozen=True)
class Reduced:
    """A depth that fits into a time, and what was lowered for that.

    Args:
        depth: The depth.
        asked: The depth without a limit of time; `depth` itself if nothing was lowered.
        seconds: Time for annealing, bracket and gaps.
        taken: Predicted seconds at `depth`; None if unknown.
        asked_taken: Predicted seconds at `asked`; None if unknown.
    """

    depth: Depth
    asked: Depth
    seconds: float
    taken: float | None = None
    asked_taken: float | None = None

    @property
    def reduced_from(self) -> dict[str, int | float] | None:
        """What the lowered numbers would have been, and the time in seconds; None if nothing was lowered."""
        lowered = {name: getattr(self.asked, name) for name in REDUCIBLE if self.lowers(name)}
        return {**lowered, "seconds": self.seconds} if lowered else None

    def lowers(self, name: str) -> bool:
        """Whether this number was lowered."""
        return getattr(self.depth, name) < getattr(self.asked, name)

    def sentences(self) -> tuple[str, ...]:
        """What was lowered, why, and how to get all of it; what takes more than an hour."""
        if self.taken is None or self.asked_taken is None:
            return ()
        if lowered := [name for name in REDUCIBLE if self.lowers(name)]:
            words = {"temperatures": "temperatures of annealing", "intensive_data": "examples"}
            what = [f"{getattr(self.depth, n):,} {words[n]} instead of {getattr(self.asked, n):,}" for n in lowered]
            options = ", ".join(f"`{name}={getattr(self.asked, name)}`" for name in lowered)
            return (
                f"Annealing, bracket, samples from the prior and gaps: {' and '.join(what)}, which take about "
                f"{in_words(self.taken)} of computing; {options} takes about {in_words(self.asked_taken)}.",
            )
        if self.taken > _HOUR:
            return (
                f"Careful: annealing, bracket and gaps take about {in_words(self.taken)}. Lower `temperatures`, "
                "`chains` or `intensive_data`, or give `minutes`; lower the first two if even a few examples take "
                "longer than that.",
            )
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reduced":
        """The inverse of :meth:`to_dict`."""
        depth, asked = Depth(**values["depth"]), Depth(**values["asked"])
        return cls(depth, asked, values["seconds"], values["taken"], values["asked_taken"])


def affordable_depth(
    asked: Depth, seconds: float, time: GradientTime | None, model: Any, split: Split, *, reducible: Collection[str]
) -> Reduced:
    """The most that fits into a time: fewer examples, fewer temperatures, then both; at least 200 of 10 examples.

    Args:
        asked: Depth without a limit of time.
        seconds: Time for annealing, bracket and gaps; the other measurements take little.
        time: How long a gradient takes; None if latents have none, in which case nothing is lowered.
        model: The model.
        split: The data.
        reducible: Which of :data:`REDUCIBLE` may be lowered.
    """
    if time is None:
        return Reduced(asked, asked, seconds)
    found, taken = asked, _seconds(asked, time, model, split)
    asked_taken = taken
    for numbers in _LOWER if taken > seconds else ():
        lower = {n: min(getattr(asked, n), m) for n, m in zip(REDUCIBLE, numbers, strict=True) if n in reducible}
        found = replace(asked, **lower)
        taken = _seconds(found, time, model, split)
        if taken <= seconds:
            break
    return Reduced(found, asked, seconds, taken, asked_taken)


def _seconds(depth: Depth, time: GradientTime, model: Any, split: Split) -> float:
    """Predicted seconds of annealing, upwards on data and both ways on simulated data, and of the gaps' searches."""
    num_data = min(depth.intensive_data, depth.max_data or len(split), len(split))
    few = min(num_data, examples_a_piece(split))
    pieces = math.ceil(num_data / few)
    gradients = Annealing(depth.temperatures, depth.chains).num_gradients
    annealing = pieces * (gradients(runs=1) + gradients(runs=2)) * time.of(few * depth.chains)
    posterior = getattr(model, "posterior", None)
    if posterior is None or isinstance(posterior, Local | Given):  # no gaps
        return annealing
    if has_row_of_parameters(model):
        return annealing + pieces * _SEARCHES * depth.gap_steps * time.of(few * _SEARCH_SAMPLES)
    return annealing + num_data * depth.gap_steps * time.of(_SEARCH_SAMPLES)


def has_row_of_parameters(model: Any) -> bool:
    """Whether q of an example is one row of parameters; else its best q is a network that is trained on it."""
    return hasattr(getattr(model, "posterior", None), "family")


def examples_a_piece(split: Split) -> int:
    """Examples annealed at a time: ten images of 28 x 28, more if they are smaller."""
    return max(_FEWEST, _ELEMENTS // split.num_elements)
