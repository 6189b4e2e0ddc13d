"""All that a page shows of a run, in one record of JSON types."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from subo.data.dataset import Data
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.reconstruction import decode
from subo.evaluation.summary import Evaluation
from subo.experiments.experiment import Experiment, model_for
from subo.experiments.units import describe_log_px
from subo.explorer.course import course_record
from subo.explorer.examples import chosen, example_record
from subo.explorer.forecasts import forecasts_record
from subo.explorer.layered import layers_record
from subo.explorer.model import exported
from subo.explorer.numbers import packed
from subo.files.nonfinite import encoded
from subo.report.class_pictures import class_names, has_discrete_prior
from subo.runs.paths import SPLITS
from subo.runtime.devices import evaluating

__all__ = ["record_of"]

_FORMAT = 1
_ATLAS, _REACH = 41, 3.0  # points of an axis of the plane, and where it ends


def record_of(experiment: Experiment, data: Data, *, split: str = "test", command: str = "") -> dict[str, Any]:
    """What a page shows of a run.

    Args:
        experiment: The run.
        data: Its data.
        split: Which split the examples are of.
        command: The command that made the run, to be shown.

    Returns:
        A record of JSON types, in which arrays are packed.

    Raises:
        InputError: There is no such split.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    held_out: Split = getattr(data, split)
    config = experiment.config
    few, rows = chosen(held_out, latents=int(config.options.get("latent_dim", 0)))
    model = model_for(experiment, few)
    with evaluating(model), torch.no_grad():
        own = exported(model, torch.Size(config.data.event_shape))
        examples = example_record(experiment, model, data, few, rows, split=split)
        needs_atlas = "missing" in own["decoder"] and not data.sequential
        atlas = _atlas(model, examples) if needs_atlas else None
        layers, forecasts = layers_record(model, few, _shading(few)), forecasts_record(model, few)
    return {
        "format": _FORMAT,
        "run": experiment.run.path.name,
        "about": {**_about(experiment), "command": command},
        "shape": list(config.data.event_shape),
        "sequential": data.sequential,
        "shading": _shading(few),
        "classes": class_names(model, data.class_names),
        "features": list(data.feature_names) if data.feature_names else None,
        "columns": _columns(data),
        "log_px": config.log_px,
        "log_px_is": describe_log_px(config),
        "model": own,
        "atlas": atlas,
        "examples": examples,
        "layers": layers,
        "forecasts": forecasts,
        "course": course_record(experiment.run, data),
        "findings": findings_of(experiment),
    }


def _about(experiment: Experiment) -> dict[str, Any]:
    """Configuration, data and versions, as the page lists them."""
    config = experiment.config
    settings = {name: _text(value) for name, value in config.settings.items()}
    versions = {"subo": config.subo, "this page by subo": version("subo"), "torch": torch.__version__}
    data = {
        "source": config.data.source,
        "examples": ", ".join(f"{count:,} {part}" for part, count in config.data.sizes.items()),
        "shape of one": " x ".join(map(str, config.data.event_shape)),
        "binarization": config.data.binarization,
        "noise": config.data.noise,
    }
    return {
        "recipe": config.recipe or "a model made in Python",
        "settings": settings,
        "data": data,
        "versions": {**versions, "Python": platform.python_version()},
        "weights": experiment.digest,
    }


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _shading(few: Split) -> dict[str, float]:
    """Factor and shift with which values become shades in [0, 1]."""
    if few.lengths is not None or len(few.event_shape) < 3:
        return {"factor": 1.0, "shift": 0.0}
    if few.dequantize:  # a mean E[y + u] is shown as E[y]
        return {"factor": 1 / few.levels, "shift": -0.5 / few.levels}
    x, _ = few.read(torch.arange(min(len(few), 100)))
    low, high = (value.item() for value in x.aminmax())
    if low >= 0 and high <= 1:
        return {"factor": 1.0, "shift": 0.0}
    return {"factor": 1 / ((high - low) or 1.0), "shift": -low / ((high - low) or 1.0)}


def _columns(data: Data) -> list[dict[str, Any]] | None:
    """The columns of a table, with what turns coded numbers into cells."""
    table = data.meaning.table
    if table is None:
        return None
    names = ("name", "kind", "center", "unit", "log", "spike", "knots", "scores")
    return [
        encoded({name: getattr(column, name) for name in names})
        | {"levels": [str(level) for level in column.levels or ()]}
        for column in table.modeled
    ]


def _atlas(model: Any, examples: dict[str, Any]) -> dict[str, Any] | None:
    """Means of p(x|z) over the plane of two continuous latents, for a decoder that cannot run in the page."""
    if len(examples["latents"]["names"]) != 2 or examples["latents"]["layers"][1:] or has_discrete_prior(model):
        return None
    axis = torch.linspace(-_REACH, _REACH, _ATLAS)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    try:
        means = decode(model, torch.stack([z1, z2], -1).reshape(-1, 2))
    except (AttributeError, TypeError, ValueError):  # p(x|z) needs a context, or has no mean
        return None
    return {"reach": _REACH, "points": _ATLAS, "means": packed(means.flatten(1), "f16")}


def findings_of(experiment: Experiment) -> dict[str, Any]:
    """What was measured on each split, line by line, with the sentences that say what it means."""
    run, found = experiment.run, {}
    for split in SPLITS:
        if not run.evaluation_of(split).exists():
            continue
        record = run.read_evaluation(split)
        if record.get("weights") not in (None, experiment.digest):
            continue
        full = "numbers" in record
        lines = record["numbers"] if full else [asdict(line) for line in _evaluation(record).numbers()]
        log_px = experiment.config.log_px
        count = record.get("num_data")
        named = [
            {**line, "name": line["name"].replace("log p(x)", log_px), "num_data": line.get("num_data") or count}
            for line in lines
        ]
        about = {"complete": record.get("complete", True), "sentences": record.get("sentences", []), "full": full}
        found[split] = {"numbers": encoded(named), "count": count, **about}
    return found


def _evaluation(record: dict[str, Any]) -> Evaluation:
    known = Evaluation.__dataclass_fields__
    defaults = {"bits_per_dim": float("nan"), "highest_pareto_k": 0.7, "median_pareto_k": None, "at_floor": None}
    numbers = {
        name: np.nan if value is None and name.endswith(("px", "elbo")) else value for name, value in record.items()
    }
    return Evaluation(**{**defaults, **{name: value for name, value in numbers.items() if name in known}})
