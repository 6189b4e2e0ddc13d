"""How the gap of a run developed over its training: one point for each of the weights that it kept."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.scores import rows_at_a_time
from subo.evaluation.training_gap import TrainingGap, gap_over_training, models_over_training
from subo.experiments.experiment import Experiment
from subo.files.nonfinite import decoded, encoded
from subo.files.whole import read_json, write_json
from subo.report.depth import Depth
from subo.runs.run import Run
from subo.runtime.randomness import stream
from subo.runtime.shares import in_shares

__all__ = ["COURSE", "Course", "kept_course"]

COURSE = "the gap over training"
"""What it is called in a progress bar."""
_TRAINING_DATA = 500  # examples used to follow it


class Course:
    """Surprisal and error at the weights kept during training: one point each, written once it is measured."""

    def __init__(self, experiment: Experiment, split: Split, name: str, depth: Depth, seed: int):
        run, self.seed = experiment.run, seed
        self.experiment, self.split = experiment, split
        self.num_data = min(_TRAINING_DATA, depth.max_data or len(split), len(split))
        self.num_samples = min(1000, depth.num_samples)
        self.kept = run.pieces(name) / f"training-{self.num_data}-{self.num_samples}-{seed}.json"
        unavailable = len(run.kept_epochs()) < 2 or experiment.config.is_local
        recorded = {record["epoch"] for record in run.read_metrics()}
        self.epochs = [] if unavailable else [epoch for epoch in run.kept_epochs() if epoch in recorded]

    @property
    def points(self) -> list[TrainingGap]:
        """The points measured so far."""
        return _points(self.kept)

    @property
    def missing(self) -> list[int]:
        """Epochs that still have to be measured."""
        known = {point.epoch for point in self.points}
        return [epoch for epoch in self.epochs if epoch not in known]

    def go_on(self, is_over: Callable[[], bool], advance: Callable[[str, int], Any], *, processes: int) -> None:
        """Measures missing points, one for each process at a time, until time is up."""
        chosen = torch.randperm(len(self.split), generator=stream("training gap data", self.seed))[: self.num_data]
        data = self.split.read(chosen.sort().values, generator=stream("training gap bits", self.seed))
        model = self.experiment.objective.model
        options: dict[str, Any] = {
            "seed": self.seed,
            "num_samples": self.num_samples,
            "max_rows": rows_at_a_time(model, self.split),
        }
        points = self.points
        missing = self.missing
        for start in range(0, len(missing), processes):
            epochs = missing[start : start + processes]
            work = partial(_points_at, self.experiment.run, model, data, options, epochs)
            points += in_shares(work, len(epochs), processes=processes)
            write_json(self.kept, encoded([asdict(point) for point in points]))
            advance(COURSE, len(epochs))
            if is_over():
                break


def _points_at(
    run: Run, model: Any, data: tuple[Tensor, Any], options: dict[str, Any], epochs: Sequence[int], pieces: range
) -> list[TrainingGap]:
    """The points of some of the epochs."""
    wanted = epochs[pieces.start : pieces.stop]
    found = (checkpoint for checkpoint in models_over_training(run, model) if checkpoint[0] in wanted)
    return [point for checkpoint in found for point in gap_over_training([checkpoint], *data, **options)]


def kept_course(run: Run, split: str = "test") -> list[TrainingGap]:
    """Surprisal and error as a full evaluation measured them last; empty if it did not."""
    files = sorted(run.pieces(split).glob("training-*.json"), key=lambda file: file.stat().st_mtime)
    return _points(files[-1]) if files else []


def _points(file: Path) -> list[TrainingGap]:
    """The points in a file; none in a damaged one, which is measured again."""
    unknown: Any = math.nan  # null, from older runs
    try:
        points: list[dict[str, Any]] = decoded(read_json(file)) if file.exists() else []
        return [TrainingGap(**{name: unknown if n is None else n for name, n in point.items()}) for point in points]
    except (InputError, TypeError, AttributeError):
        return []
