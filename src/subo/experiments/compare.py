"""Runs side by side: which ones may be compared, and their comparison on shared held-out data."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.comparison import Comparison, compare
from subo.evaluation.effort import caution_of_samples
from subo.experiments.experiment import Experiment, model_for, open_run, training_seconds
from subo.experiments.units import describe_log_px, kind_of_log_px, provenance
from subo.files.tables import write_table
from subo.files.whole import write_json
from subo.runs.config import RunConfig
from subo.runtime.progress import bar

__all__ = ["compare_runs", "open_comparable", "save_comparison", "settings_of"]

_SETTINGS = {
    "event_shape": "the shape of its data is",
    "sizes": "the sizes of its splits are",
    "seed": "the seed of its split and bits is",
    "binarize": "its binarization is",
}
# These follow from the content or from the likelihood, or do not affect what was held out.
_NO_SETTINGS = {"source", "data_dir", "name", "kind", "levels", "binarization", "fingerprint", "feature_names"}
_NO_SETTINGS |= {"division", "meaning"}
_NO_SETTINGS |= {"constant", "dequantize", "noise"}  # another kind of log p(x), described in words

# What may differ between runs of one setting: the location of their data, the data's seed if it yields the same data,
# the training seed, and whatever does not affect the weights.
_NOT_OF_A_SETTING = {"data": {"source", "data_dir", "name", "seed", "division", "binarization", "noise"}}
_NOT_OF_A_SETTING["training"] = {"seed", "checkpoint_minutes", "keep_weights"}

_KINDS = {
    frozenset(("probability", "density")): (
        "a density is not a probability: it depends on the units of x and may exceed 1"
    ),
    frozenset(("probability", "bound")): (
        "one is the probability of discrete values, the other a lower bound on such a probability by uniform "
        "dequantization: the bound's slack would count against the model"
    ),
    frozenset(("density", "bound")): (
        "one is a density, which depends on the units of x and may exceed 1, the other bounds a probability"
    ),
}


def open_comparable(paths: Sequence[str | Path]) -> dict[str, Experiment]:
    """Opens runs that may be compared: fitted to the same split of the same data, with the same kind of log p(x).

    Args:
        paths: Two or more run folders.

    Returns:
        The runs by path, in the order given.

    Raises:
        InputError: A folder has no finished run or is named twice, or a run differs from the first; the message says
            how.
    """
    if len(paths) < 2:
        given = "none was" if not paths else "one was"
        raise InputError(f"a comparison needs at least two runs, but {given} given: subo compare RUN RUN ...")
    places: dict[Path, str | Path] = {}
    for path in paths:
        place = Path(path).resolve()
        if place in places:
            raise InputError(f"{path} is the same run as {places[place]}. Name each run once.")
        places[place] = path
    experiments = {str(path): open_run(path) for path in paths}
    (first, reference), *others = experiments.items()
    for name, experiment in others:
        if found := _differences(experiment.config, reference.config):
            raise InputError(
                f"{name} cannot be compared with {first}: {'; '.join(found)}. Their numbers would differ for reasons "
                "other than the models: fit both to the same data, with the same `data_seed`, binarization and kind of "
                "likelihood."
            )
    return experiments


def settings_of(experiments: Mapping[str, Experiment]) -> dict[str, list[str]]:
    """The runs of each setting: those whose configs differ only in the training seed.

    Args:
        experiments: Runs returned by :func:`open_comparable`.

    Returns:
        The names of the runs, by the name of the first of them; each has a different training seed, since a copy of a
        run is not independent.
    """
    settings: dict[str, dict[Any, str]] = {}
    for name, experiment in experiments.items():
        config = experiment.config.as_json()
        kept = {section: config[section] for section in ("subo", "recipe", "options", "device")}
        for section, left_out in _NOT_OF_A_SETTING.items():
            kept[section] = {key: value for key, value in config[section].items() if key not in left_out}
        runs = settings.setdefault(json.dumps(kept, sort_keys=True, default=str), {})
        runs.setdefault(config["training"]["seed"], name)
    return {next(iter(runs.values())): list(runs.values()) for runs in settings.values()}


def compare_runs(
    experiments: Mapping[str, Experiment],
    *,
    split: str = "test",
    num_samples: int = 1000,
    max_data: int | None = None,
    seed: int = 0,
    progress: bool = False,
    note: Callable[[str], None] | None = None,
) -> Comparison:
    """Measures runs on the same held-out data, and their differences from the first; writes nothing into the runs.

    Args:
        experiments: Runs returned by :func:`open_comparable`.
        split: ``test`` or ``validation``.
        num_samples: K for log p(x).
        max_data: Number of examples, the first ones; all by default.
        seed: Seed for the samples.
        progress: Whether to show progress.
        note: Called with remarks made in advance, such as how long it takes.

    Raises:
        InputError: There are too few examples or samples, or the data have changed.
    """
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, not {num_samples}")
    if max_data is not None and max_data < 2:
        raise InputError(f"max_data must be at least 2, not {max_data}: one example gives no standard error")
    held_out: Split = getattr(next(iter(experiments.values())).data(), split)  # all have the same fingerprint
    if max_data is not None:
        held_out = held_out.take(torch.arange(min(max_data, len(held_out))))
    models = {}
    with bar("", len(experiments) * len(held_out), show=progress) as advance:
        for name, experiment in experiments.items():
            if experiment.config.is_local:
                advance(description=f"{name}: fitting q to {len(held_out)} examples")
            models[name] = model_for(experiment, held_out)
            if note is not None and (caution := caution_of_samples(models[name], held_out, num_samples)):
                note(f"{name}: {caution}")
        comparison = compare(
            models,
            held_out,
            name=split,
            num_samples=num_samples,
            seed=seed,
            settings=settings_of(experiments),
            advance=lambda name, count: advance(count, f"{name}: log p(x), {num_samples} samples"),
        )
    rows = tuple(
        replace(row, training_seconds=training_seconds(run.run), training_seed=run.config.training.seed)
        for row, run in zip(comparison.rows, experiments.values(), strict=True)
    )
    return replace(comparison, rows=rows)


def save_comparison(path: Path, comparison: Comparison, config: RunConfig) -> None:
    """Writes a comparison: .csv with one line per run, or .json, which also says what the numbers mean.

    Args:
        path: Path of the output file; the means over seeds are only written to .json.
        comparison: Comparison to write.
        config: Config of one of the runs; what it says about the data holds for all.
    """
    if path.suffix.lower() == ".csv":
        rows = comparison.records()
        about = {name: getattr(comparison, name) for name in ("split", "num_data", "num_samples", "seed")}
        write_table(path, [*rows[0], *about], ([*row.values(), *about.values()] for row in rows))
        return
    meaning = {
        **provenance(config),
        "estimator": "importance sampling from q(z|x), the same seed for every run",
        "differences": f"minus {comparison.rows[0].name}, paired over the data",
        "fingerprint": config.data.fingerprint,
    }
    write_json(path, {**comparison.to_dict(), **meaning})


def _differences(config: RunConfig, other: RunConfig) -> list[str]:
    """The differences between a run and the first that make their log p(x) incomparable, in words."""
    own, reference = vars(config.data), vars(other.data)
    same_content, found = own["fingerprint"] == reference["fingerprint"], []
    if not same_content and own["source"] != reference["source"]:
        found.append(f"its data are {own['source']}, not {reference['source']}")
    for name in [*_SETTINGS, *sorted({*own} - {*_SETTINGS, *_NO_SETTINGS})]:
        came, expected = _words(own[name]), _words(reference[name])
        if came != expected and not (same_content and name in ("seed", "sizes")):
            found.append(f"{_SETTINGS.get(name, f'its {name} is')} {came}, not {expected}")
    kinds = kind_of_log_px(config), kind_of_log_px(other)
    if kinds[0] != kinds[1]:
        found.append(
            f"its log p(x) is a {describe_log_px(config)}, not a {describe_log_px(other)}, and "
            + _KINDS[frozenset(kinds)]
        )
    elif config.models_missing != other.models_missing:
        found.append(
            f"its log p(x) is a {describe_log_px(config)}, not a {describe_log_px(other)}: one of them also describes "
            "which cells are missing"
        )
    elif config.given != other.given:
        found.append(
            f"its log p(x) is a {describe_log_px(config)}, not a {describe_log_px(other)}, and the information that "
            "what is given has about x is not to the model's credit"
        )
    if not same_content and not found:
        prints = f"fingerprint {own['fingerprint']}, not {reference['fingerprint']}"
        found.append(f"its data have the same name but different contents ({prints})")
    return found


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {size}" for name, size in value.items())
    return "none" if value is None or value is False else str(tuple(value) if isinstance(value, list) else value)
