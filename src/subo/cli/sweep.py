"""The command ``sweep``: many settings in processes, chosen by the validation data."""

import math
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from subo.cli.flags import words_of
from subo.cli.messages import say
from subo.cli.options import fit_signature
from subo.cli.seeds import say_ended
from subo.errors import InputError, Interrupted
from subo.runtime.digits import in_digits
from subo.runtime.interrupts import Stopped
from subo.runtime.jobs import Job, run_jobs
from subo.runtime.wording import counted

if TYPE_CHECKING:
    from subo.experiments.sweeps import Sweep, Trial

__all__ = ["sweep"]

_COLUMNS = 100  # the widest table
_REFUSED = ("out", "resume", "overwrite", "quiet", "seeds", "jobs", "measure", "evaluation_samples", "help", "version")


def sweep(
    config: Annotated[Path, Parameter(help="The sweep, .json: data, settings, and a grid or random values.")],
    /,
    *,
    out: Path | None = None,
    jobs: int | None = None,
    num_samples: int = 1000,
) -> None:
    """Trains many settings, and chooses one by log p(x) of the validation data.

    The file has the keys data, settings that all trials have, and either grid, lists of values of which all
    combinations are tried, or random with the number of trials: for each, a value is drawn from each list, or from a
    range such as {"low": 0.0001, "high": 0.01, "log": true}. Names are those of fit's options, with underscores:
    {"data": "digits", "settings": {"epochs": 20}, "grid": {"latent_dim": [2, 5], "hidden": [[200], [200, 200]]}}.
    With the key seeds, a number, each trial is trained so many times, and the mean over its seeds decides.

    Each trial is a run of its own, or a folder of such runs. A stopped sweep goes on when the command is repeated, and
    if the file then has more values of a grid, random trials or seeds, with these. The test data are measured once, for
    the chosen trial: its log p(x) of the validation data is the highest of many, so it is too high on average.

    Args:
        config: The sweep.
        out: Folder of the sweep; runs/NAME by default.
        jobs: Trainings at a time; by default one for each processor core.
        num_samples: Posterior samples for each log p(x).
    """
    from subo.experiments.compare import open_comparable
    from subo.experiments.sweeps import Sweep, Trial, ranked, save_trials

    asked = Sweep.read(config)
    if refused := [name for name in (*asked.settings, *asked.varied) if name in _REFUSED]:
        remedy = "give it beside the settings" if refused[0] == "seeds" else "leave it out"
        raise InputError(f"{config} sets {refused[0]}, which the sweep sets itself: {remedy}")
    _check_names(asked, config)
    out = out or Path("runs") / config.stem
    asked = asked.keep(out, num_samples=num_samples)
    folders = [asked.folder(out, number) for number in range(1, len(asked.trials) + 1)]
    todo = [(n, run) for n, folder in enumerate(folders) for run in asked.runs(folder) if not _is_done(run)]
    left, times = len({n for n, _ in todo}), f" of {len(asked.seeds)} seeds each" if asked.seeds else ""
    say(f"{counted(len(folders), 'trial')}{times}, {left} of them still to be done, in {out}")
    own = words_of({"out": out, "num_samples": num_samples, "jobs": jobs})
    again = shlex.join(["subo", "sweep", str(config), *own])
    failures = _train(asked, todo, jobs=jobs, num_samples=num_samples, again=again)
    trials = [
        Trial(folder.name, values, failure=failures[n])
        if n in failures
        else Trial.of(folder, values, asked.runs(folder))
        for n, (folder, values) in enumerate(zip(folders, asked.trials, strict=True))
    ]
    best, *_ = order = ranked(trials)
    save_trials(out / "trials.csv", order, asked.varied)
    _print(order, asked.varied)
    say(f"written to {out / 'trials.csv'}")
    if best.log_px is None:
        raise InputError(f"all trials failed; the first said: {best.failure}")
    if not math.isfinite(best.log_px):
        raise InputError("no trial has a finite log p(x) of the validation data: nothing is chosen")
    if len(measured := [asked.runs(out / trial.name)[0] for trial in trials if trial.log_px is not None]) > 1:
        open_comparable(measured)  # refuses other data, or a density beside a probability
    _measure(out / best.name, asked.runs(out / best.name), num_samples)


def _check_names(asked: "Sweep", config: Path) -> None:
    """Refuses options that ``fit`` does not have with a trial's recipe, before any trial is trained."""
    recipes: dict[str, list[str]] = {}
    for trial in asked.trials:
        settings = {**asked.settings, **trial}
        if not isinstance(recipe := settings.get("recipe") or "vae", str):
            raise InputError(f"{config} sets recipe to {recipe!r}, and it is one name")
        known = recipes.setdefault(recipe, [name for name in fit_signature(recipe).parameters if name != "data"])
        for name in settings:
            if name not in known:
                near = "".join(f" Did you mean {other}?" for other in get_close_matches(name, known, n=1))
                raise InputError(
                    f"{config} sets {name}, which fit does not have with the recipe {recipe}.{near} All names, with "
                    f"underscores: subo fit --recipe {recipe} --help"
                )


def _is_done(folder: Path) -> bool:
    from subo.runs.run import Run

    return Run(folder).model.exists() and Run(folder).evaluation_of("validation").exists()


def _train(
    asked: "Sweep", todo: list[tuple[int, Path]], *, jobs: int | None, num_samples: int, again: str
) -> dict[int, str]:
    """Trains what is not done; gives what failed ones said, by their number."""
    from subo.runs.run import Run

    places: dict[str, tuple[int, Path]] = {}
    commands = []
    for number, run in todo:
        own = {"out": run, "quiet": True, "measure": "validation", "evaluation_samples": num_samples}
        begun = Run(run).config.exists()
        seed = {"seed": asked.seeds[asked.runs(run.parent).index(run)]} if asked.seeds else {}
        settings = {"resume": True} if begun else {**asked.settings, **asked.trials[number], **seed}
        name = f"trial {run.parent.name}, seed {seed['seed']}" if seed else f"trial {run.name}"
        commands.append(Job(name, ("fit", *(() if begun else (asked.data,)), *words_of({**settings, **own}))))
        places[name] = number, run

    try:
        ended = run_jobs(commands, at_a_time=jobs, on_end=say_ended)
    except Stopped as stopped:
        raise Interrupted(f"stopped. To go on, repeat: {again}", signal=stopped.signal) from stopped
    failures = {}
    for one in ended:
        number, run = places[one.job.name]
        if one.code or not _is_done(run):
            failures.setdefault(number, one.message or f"nothing was measured, exit code {one.code}")
    return failures


def _print(trials: "list[Trial]", varied: tuple[str, ...]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for name in ("trial", *varied):
        table.add_column(name, overflow="fold")
    several = any(trial.log_px_seed_se is not None for trial in trials)
    for name in ("validation log p(x)", *(["error over seeds"] if several else []), "epochs", "seconds"):
        table.add_column(name, justify="right", overflow="fold")
    for trial in trials:
        shown = (
            "failed" if trial.log_px is None else " +- ".join(filter(None, in_digits(trial.log_px, trial.log_px_se)))
        )
        numbers = ["" if value is None else f"{value:.0f}" for value in (trial.epochs, trial.seconds)]
        over = [] if not several else ["" if trial.log_px_seed_se is None else f"{trial.log_px_seed_se:.2g}"]
        cells = [trial.name, *(str(trial.values[name]) for name in varied), shown, *over, *numbers]
        table.add_row(*map(Text, cells))
    Console(width=_COLUMNS).print(table)


def _measure(folder: Path, runs: list[Path], num_samples: int) -> None:
    """Measures the chosen run, or its runs of several seeds, on the test data, unless that is done."""
    from dataclasses import asdict

    from subo.cli.messages import print_evaluation
    from subo.cli.seeds import conclude
    from subo.experiments.experiment import open_run
    from subo.experiments.fitting import finish_run
    from subo.files.nonfinite import decoded
    from subo.runs.run import Run

    before = any(Run(run).evaluation_of("test").exists() for run in runs)
    others = [path for path in folder.parent.iterdir() if path != folder and path.is_dir()]
    if earlier := sorted(path.name for path in others if any(path.rglob(Run(path).evaluation_of("test").name))):
        say(f"of an earlier choice, {', '.join(earlier)}, the test data were measured, too")
    say(f"chosen: {folder}, whose test data {'were measured before' if before else 'are measured now'}, once:")
    results = {}
    for run in runs:
        experiment = open_run(run)
        if experiment.run.evaluation_of("test").exists():
            results[run] = decoded(experiment.run.read_evaluation("test"))
        else:
            results[run] = asdict(finish_run(experiment, num_samples=num_samples, note=say))
    if len(runs) > 1:
        conclude(runs, folder, quiet=False, split="test", num_samples=num_samples)
    else:
        print_evaluation(results[folder], open_run(folder).config, run=folder)
