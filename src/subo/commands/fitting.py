"""The command ``fit``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from subo.errors import InputError
from subo.messages import print_evaluation, say
from subo.options import defaults, grouped

__all__ = ["fit"]

_CHANGEABLE = ("epochs", "minutes", "patience", "checkpoint_minutes")


def fit(**given: Any) -> None:
    """Fits a model to data, measures it on held-out data and draws its pictures, all in one run folder."""
    from subo import fitting_runs

    recipe, progress = given.get("recipe", "vae"), not given.get("quiet", False)
    groups = grouped(given, recipe)
    out = given.get("out")
    if given.get("resume"):
        if out is None:
            raise InputError("--resume goes on with the run in --out RUN: name it.")
        allowed = {"out", "resume", "evaluation_samples", "quiet", *_CHANGEABLE}
        if foreign := sorted(set(given) - allowed):
            raise InputError(
                f"--resume takes all settings from the run folder, and {_flags(foreign)} would make another run of it. "
                f"Only {_flags(_CHANGEABLE)} can change."
            )
        fitted = fitting_runs.resume_run(out, changes=groups["training"], progress=progress)
    else:
        source = given.get("data")
        if source is None or not source.strip():
            raise InputError("fit needs data: 'subo fit digits', or a file. 'subo fit --help' says what it takes.")
        out = out or Path("runs") / (Path(source).stem or Path(source).resolve().stem)
        settings = {group: {**defaults(recipe, group), **values} for group, values in groups.items()}
        fitted = fitting_runs.start_run(
            source,
            out,
            recipe=recipe,
            options=settings["recipe"],
            training=settings["training"],
            device=settings["device"],
            seed=given.get("seed", 0),
            data_seed=given.get("data_seed", 0),
            overwrite=given.get("overwrite", False),
            num_samples=given.get("evaluation_samples"),
            progress=progress,
            **settings["data"],
        )
    if fitted is None:  # another process of the same run
        return
    experiment, _ = fitted
    result = fitting_runs.finish_run(experiment, num_samples=given.get("evaluation_samples"), progress=progress)
    if progress:
        print_evaluation(asdict(result), experiment.config, run=out)
        say(f"run:      {out}")
        say(f"pictures: {out / 'figures'}")


def _flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
