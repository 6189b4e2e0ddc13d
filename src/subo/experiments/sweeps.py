"""Sweeps: one data set, many settings, of which the validation data choose one."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from subo.errors import InputError
from subo.experiments.seeds import seed_folder
from subo.files.nonfinite import decoded
from subo.files.tables import write_table
from subo.files.whole import read_json, write_json
from subo.runs.run import Run

__all__ = ["Sweep", "Trial", "ranked", "save_trials"]

_KEYS = {"data", "settings", "grid", "random", "trials", "seed", "seeds"}
_RANGE = {"low", "high", "log"}
_LARGEST = 1e18  # of a range's ends
_EXAMPLE = '{"data": "digits", "settings": {"epochs": 20}, "grid": {"latent_dim": [2, 5], "beta": [0.5, 1]}}'


@dataclass(frozen=True)
class Sweep:
    """What is tried.

    Attributes:
        data: Name or path of the data.
        settings: Options of ``fit`` that all trials have.
        varied: Names of the options in which they differ.
        trials: What each has of these.
        seeds: Training seeds of each trial; without any it is one run, with the seed of its settings.
    """

    data: str
    settings: Mapping[str, Any]
    varied: tuple[str, ...]
    trials: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """Reads a sweep from JSON.

        Its keys are ``data``, ``settings`` that all trials have, and either ``grid``, lists of values of which all
        combinations are tried, or ``random`` with the number of ``trials``: a value of each list, or of the range
        ``{"low": 1e-4, "high": 1e-2, "log": true}``, is drawn for each trial, with a ``seed``. With a number of
        ``seeds`` each trial is trained so many times.

        Raises:
            InputError: The file is none, or has other keys or values; says which.
        """
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("data"), str):
            raise InputError(f"{path} is not a sweep: expected an object with the key data, such as {_EXAMPLE}")
        if unknown := sorted({*found} - _KEYS):
            raise InputError(f"{path} has the unknown key {unknown[0]!r}: the keys are {', '.join(sorted(_KEYS))}")
        settings, by_grid = found.get("settings", {}), "grid" in found
        if by_grid == ("random" in found) or (by_grid and {"trials", "seed"} & {*found}):
            raise InputError(f"{path} needs either a grid, or random values with a number of trials")
        varied = found["grid"] if by_grid else found["random"]
        for what, value in (("settings", settings), ("grid" if by_grid else "random", varied)):
            if not isinstance(value, dict) or (what != "settings" and not value):
                raise InputError(f"{path}, {what}: expected an object of options and their values, got {value!r}")
        if twice := sorted({*settings} & {*varied}):
            raise InputError(f"{path}: {twice[0]} is both set and varied: give one")
        try:
            trials = _grid(varied) if by_grid else _drawn(varied, found.get("trials"), found.get("seed", 0))
        except InputError as error:
            raise InputError(f"{path}, {error}") from error
        try:
            seeds = _seeds(found.get("seeds", 1), {**settings, **varied}.get("seed", 0))
        except InputError as error:
            raise InputError(f"{path}, {error}") from error
        return cls(found["data"], settings, tuple(varied), trials, seeds)

    def keep(self, folder: Path, *, num_samples: int) -> "Sweep":
        """Writes what is tried into the sweep's folder, which may hold a part of it: more values, trials or seeds now.

        Args:
            folder: The folder.
            num_samples: K for log p(x), which grows with it: it is the same for all trials.

        Returns:
            The sweep, its trials in the order of their folders: those that were asked for first, then the new ones.

        Raises:
            InputError: The folder holds a sweep that has begun and has a trial that is not asked for now, or a run.
        """
        if Run(folder).config.exists():
            raise InputError(f"{folder} is a run, and a sweep has runs in subfolders: give another `run_dir`")
        file, sweep = folder / "sweep.json", self
        if file.exists() and (any(folder.glob("*/config.json")) or any(folder.glob("*/seed-*/config.json"))):
            kept = read_json(file)
            if kept == self._record(num_samples):
                return self
            if (extended := self._extending(kept, num_samples)) is None:
                raise InputError(
                    f"{folder} holds a sweep of other trials, or with another `num_samples`: give another `run_dir`, "
                    "or remove it. What is asked for beside all that it has would be added: values of a grid, a higher "
                    "number of random trials, more seeds where it has several"
                )
            sweep = extended
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, sweep._record(num_samples))
        return sweep

    def _record(self, num_samples: int) -> dict[str, Any]:
        """In JSON's types; without the key seeds where each trial is one run."""
        known = {name: value for name, value in asdict(self).items() if name != "seeds" or value}
        return json.loads(json.dumps({**known, "num_samples": num_samples}))

    def _extending(self, kept: Any, num_samples: int) -> "Sweep | None":
        """The sweep with the trials of one that was kept first; None where it lacks one of them or other things differ.

        Its seeds may be more, but not several instead of one, whose run is no folder of runs.
        """
        own = self._record(num_samples)
        grown = {"trials": own.pop("trials"), "seeds": own.pop("seeds", [])}
        if not isinstance(kept, dict) or any(kept.get(name) != value for name, value in own.items()):
            return None
        trials, seeds = kept.get("trials") or [], kept.get("seeds") or []
        if bool(seeds) != bool(grown["seeds"]) or seeds != grown["seeds"][: len(seeds)]:
            return None
        new = grown["trials"]  # some may be equal, if they are drawn at random
        for trial in trials:
            if trial not in new:
                return None
            new.remove(trial)
        return replace(self, trials=(*trials, *new))

    def folder(self, out: Path, number: int) -> Path:
        """The folder of a trial, numbered from 1: its run, or of several seeds that of its runs."""
        names = (f"{number:0{digits}d}" for digits in range(1, len(str(len(self.trials)))))  # while there were fewer
        before = (out / name for name in names if (out / name).is_dir())
        return next(before, out / f"{number:0{len(str(len(self.trials)))}d}")

    def runs(self, folder: Path) -> list[Path]:
        """The runs of a trial in a folder."""
        return [seed_folder(folder, seed) for seed in self.seeds] or [folder]


def _seeds(count: Any, first: Any) -> tuple[int, ...]:
    """The seeds of each trial, none for a single one."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"seeds must be the number of trainings of each trial, at least 1, got {count!r}")
    if count == 1:
        return ()
    if isinstance(first, bool) or not isinstance(first, int):
        raise InputError(f"seeds: each trial has {count} seeds, so that seed cannot be varied, too, got {first!r}")
    return tuple(range(first, first + count))


def _grid(lists: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """All combinations; the last option varies fastest."""
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid: {name} must be a list of values, got {values!r}")
    return tuple(dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))


def _drawn(choices: Mapping[str, Any], trials: Any, seed: Any) -> tuple[dict[str, Any], ...]:
    """Values at random: of lists, or uniform in a range, of numbers or their logarithms."""
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise InputError(f"trials must be a whole number, at least 1, got {trials!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number, at least 0, got {seed!r}")
    rng = np.random.default_rng(seed)
    return tuple({name: _value(name, choice, rng) for name, choice in choices.items()} for _ in range(trials))


def _value(name: str, choice: Any, rng: np.random.Generator) -> Any:
    if isinstance(choice, list) and choice:
        return choice[int(rng.integers(len(choice)))]
    if not isinstance(choice, dict) or not {"low", "high"} <= {*choice} <= _RANGE:
        raise InputError(f'random: {name} must be a list of values or a range such as {{"low": 1, "high": 9}}')
    low, high, log = choice["low"], choice["high"], choice.get("log", False)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not (numbers and max(abs(low), abs(high)) < _LARGEST and low < high and (low > 0 or not log)):
        above = ", both above 0 for log" if log else ""
        raise InputError(f"random: the range of {name} must have numbers low < high{above}; got {low!r} and {high!r}")
    if isinstance(low, int) and isinstance(high, int) and not log:
        return int(rng.integers(low, high + 1))
    drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if log else float(rng.uniform(low, high))
    rounded = round(drawn) if isinstance(low, int) and isinstance(high, int) else float(f"{drawn:.4g}")
    return rounded if low <= rounded <= high else drawn


@dataclass(frozen=True)
class Trial:
    """A trial and what came of it.

    Attributes:
        name: Its folder's name.
        values: The options in which it differs.
        log_px: Mean log p(x) of the validation data, of several seeds their mean; None if one failed.
        log_px_se: Its standard error over the data; of several seeds, whose data are the same, the mean of theirs.
        log_px_seed_se: Its standard error over the seeds, if there are several.
        num_samples: K.
        epochs: Epochs of training, on average.
        seconds: Their time, on average.
        failure: What a failed one said.
    """

    name: str
    values: Mapping[str, Any]
    log_px: float | None = None
    log_px_se: float | None = None
    log_px_seed_se: float | None = None
    num_samples: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    failure: str = ""

    @classmethod
    def of(cls, folder: Path, values: Mapping[str, Any], runs: Sequence[Path] = ()) -> "Trial":
        """A finished trial, from its run folder, or those of its seeds."""
        found = [decoded(Run(run).read_evaluation("validation")) for run in runs or [folder]]
        last = [Run(run).read_metrics()[-1] for run in runs or [folder]]
        log_px = np.array([one["log_px"] for one in found], dtype=float)
        return cls(
            folder.name,
            values,
            log_px=float(log_px.mean()),
            log_px_se=float(np.mean([one["log_px_se"] for one in found])),
            log_px_seed_se=float(log_px.std(ddof=1) / math.sqrt(len(log_px))) if len(log_px) > 1 else None,
            num_samples=found[0]["num_samples"],
            epochs=round(np.mean([one["epoch"] for one in last])),
            seconds=float(np.mean([one["seconds"] for one in last])),
        )


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, the highest log p(x) first, then those where it is no number, then failed ones."""

    def rank(trial: Trial) -> tuple[int, float]:
        if trial.log_px is None or math.isnan(trial.log_px):
            return (0 if trial.log_px is None else 1), 0.0
        return 2, trial.log_px

    return sorted(trials, key=rank, reverse=True)


def save_trials(path: Path, trials: Sequence[Trial], varied: Sequence[str]) -> None:
    """Writes a table, .csv, with a row for each trial."""
    errors = ("log_px_se", "log_px_seed_se") if any(t.log_px_seed_se is not None for t in trials) else ("log_px_se",)
    own = ("log_px", *errors, "num_samples", "epochs", "seconds", "failure")
    header = ["trial", *varied, *(f"validation_{name}" if "log_px" in name else name for name in own)]
    cells = ([t.name, *(_text(t.values[name]) for name in varied), *(getattr(t, name) for name in own)] for t in trials)
    write_table(path, header, cells)


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value)
