"""How sequences go on: a forecast of the last quarter of each, beside what came."""

from typing import Any

import torch

from subo.data.sequences import unpadded
from subo.data.splits import Split
from subo.evaluation.forecasting import forecast
from subo.explorer.numbers import packed
from subo.models.markov import Markov

__all__ = ["forecasts_record"]

_MOST, _NUMBERS = 40, 100_000  # sequences, and numbers of all of them
_STEPS = 48  # of a forecast, at most
_SAMPLES = 200
_COVERAGE = 0.9


def forecasts_record(model: Any, few: Split) -> dict[str, Any] | None:
    """Forecasts from the first three quarters of a sequence, and its last steps; None where there is no chain.

    Args:
        model: The model, in evaluation mode.
        few: The sequences.
    """
    if few.lengths is None or not isinstance(getattr(model, "prior", None), Markov):
        return None
    shown = few.take(torch.arange(min(len(few), _MOST)))
    x, context = shown.read(torch.arange(len(shown)))
    found = [_of_one(model, sequence) for sequence in unpadded(x, context["mask"])]
    kept, total = [], 0
    for record, size in found:
        total += size
        if total > _NUMBERS and kept:
            break
        kept.append(record)
    return {"coverage": _COVERAGE, "sequences": kept}


def _of_one(model: Any, sequence: torch.Tensor) -> tuple[dict[str, Any], int]:
    """A sequence with its forecast, and how many numbers that is."""
    steps = min(_STEPS, len(sequence) // 4)
    begin = max(0, len(sequence) - steps - 3 * _STEPS)  # what is shown of the past
    record: dict[str, Any] = {"first": begin, "x": packed(sequence[begin:].float(), "f16"), "steps": steps}
    if steps and bool(sequence[: len(sequence) - steps].isnan().all()):  # nothing to go on from
        record["steps"] = steps = 0
    if steps:
        past = Split.from_sequences([sequence[: len(sequence) - steps]])
        ahead = forecast(model, past, steps=steps, num_samples=_SAMPLES, coverage=_COVERAGE)
        record |= {name: packed(getattr(ahead, name)[0], "f16") for name in ("mean", "lower", "upper")}
    return record, (len(sequence) - begin + 3 * steps) * sequence.shape[1]
