"""The depth of a run's full evaluation: chosen by a timing once, and the same whenever the evaluation continues."""

from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.effort import gradient_time
from subo.files.whole import read_json, write_json
from subo.report.depth import Depth, Reduced, affordable_depth
from subo.runtime.randomness import stream

__all__ = ["chosen_depth", "chosen_rows"]

_LEAST = 300.0  # seconds that the costly measurements may always take


def chosen_depth(
    asked: Depth,
    model: Any,
    split: Split,
    *,
    reducible: Collection[str],
    training_seconds: float | None,
    folder: Path,
    note: Callable[[str], object] | None = None,
) -> Reduced:
    """The depth that fits into the time that training took, or into five minutes if that is longer.

    Args:
        asked: Depth without a limit of time.
        model: The model.
        split: The data to measure it on.
        reducible: Which numbers may be lowered, see :func:`~subo.report.depth.affordable_depth`.
        training_seconds: How long training took; None if unknown.
        folder: Folder of the evaluation's pieces, in which the choice is kept.
        note: Is given what was lowered, or what takes long.
    """
    seconds = max(_LEAST, training_seconds or 0.0)
    kept, question = folder / "depth.json", {"asked": asdict(asked), "reducible": sorted(reducible), "seconds": seconds}
    answer = _kept(kept, question)
    if answer is None:
        answer = affordable_depth(asked, seconds, gradient_time(model, split), model, split, reducible=reducible)
        write_json(kept, {"question": question, "answer": answer.to_dict()})
    if note is not None:
        for sentence in answer.sentences():
            note(sentence)
    return answer


def _kept(file: Path, question: dict[str, Any]) -> Reduced | None:
    """What was chosen before; None if nothing was, or if the file is damaged or from another version."""
    try:
        found = read_json(file) if file.exists() else {}
        return Reduced.from_dict(found["answer"]) if found.get("question") == question else None
    except (InputError, LookupError, TypeError, AttributeError):
        return None


def chosen_rows(length: int, max_data: int | None, *, seed: int) -> Tensor:
    """Positions of at most that many examples, at random, in order."""
    if max_data is None:
        return torch.arange(length)
    return torch.randperm(length, generator=stream("evaluation data", seed))[:max_data].sort().values
