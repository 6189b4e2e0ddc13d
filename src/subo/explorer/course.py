"""The course of training as a page shows it: curves of the bound and its parts, and where examples lay."""

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from subo.data.dataset import Data
from subo.experiments.course import kept_course
from subo.explorer.numbers import packed
from subo.report.pictures import curves_of
from subo.runs.run import Run

__all__ = ["course_record"]

_FRAMES, _FOLLOWED = 60, 500  # kept epochs and examples, at most


def course_record(run: Run, data: Data) -> dict[str, Any] | None:
    """Curves over the epochs, and the posterior means that the run kept; None before the first epoch.

    Args:
        run: Run with metrics and snapshots.
        data: Its data; the means are those of validation examples.
    """
    records = run.read_metrics()
    if not records:
        return None
    epochs, train, validation, best = curves_of(records)
    curves = {"train": _lists(train), "validation": None if validation is None else _lists(validation)}
    return {"epochs": epochs.tolist(), **curves, "best": best, "frames": _frames(run, data), "gap": _gap(run)}


def _lists(curves: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    return {
        name: [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
        for name, values in curves.items()
    }


def _gap(run: Run) -> dict[str, list[Any]] | None:
    """Surprisal and error over the epochs, if a full evaluation measured them at two or more."""
    points = sorted(kept_course(run), key=lambda point: point.epoch)
    if len(points) < 2:
        return None
    values = {name: np.array([getattr(point, name) for point in points]) for name in ("surprisal", "error")}
    return {"epochs": [point.epoch for point in points], **_lists(values)}


def _frames(run: Run, data: Data) -> dict[str, Any] | None:
    """The means after some epochs, in the plane of the last ones' principal components if there are more than two."""
    files = sorted(run.snapshots.glob("means-*.npy"))
    if len(files) < 2:
        return None
    kept = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, _FRAMES).round().astype(int))]
    means = np.stack([np.load(file)[:_FOLLOWED] for file in kept])
    if means.shape[2] > 2:
        pca = PCA(2).fit(means[-1])
        means = np.stack([pca.transform(frame) for frame in means])
    if not np.isfinite(means).all():
        return None
    followed = data.validation.take(torch.arange(means.shape[1])) if not data.sequential else None
    labels = None if followed is None or followed.labels is None else followed.labels.tolist()
    return {"epochs": [int(file.stem.split("-")[1]) for file in kept], "means": packed(means, "f16"), "labels": labels}
