"""The option ``--seeds`` of ``fit``: one setting trained several times, and its error over training seeds."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subo.cli.compare import print_over_seeds
from subo.cli.flags import words_of
from subo.cli.messages import say
from subo.cli.resuming import changes_of
from subo.errors import InputError, Interrupted
from subo.runtime.interrupts import Stopped
from subo.runtime.jobs import Ended, Job, run_jobs

__all__ = ["conclude", "fit_seeds", "say_ended"]

_OF_ALL = ("data", "out", "seed", "seeds", "jobs", "resume", "overwrite", "quiet")  # the others are each run's


def fit_seeds(given: Mapping[str, Any], out: Path) -> None:
    """Trains a model once for each of several seeds, in processes, and prints its mean over them.

    Args:
        given: Options of ``fit``.
        out: The folder in which each run has its own.
    """
    from subo.experiments.seeds import check_place, seed_folder

    first, quiet = given.get("seed", 0), given.get("quiet", False)
    seeds = range(first, first + given["seeds"])
    resume, overwrite = given.get("resume", False), given.get("overwrite", False)
    check_place(out, seeds, resume=resume, overwrite=overwrite)
    folders = {seed: seed_folder(out, seed) for seed in seeds}
    jobs = [job for seed in seeds if (job := _job(given, seed, folders[seed], resume=resume)) is not None]
    if not quiet:
        say(f"{len(seeds)} trainings, {len(jobs)} of them still to be done: {folders[first]} to {folders[seeds[-1]]}")
    try:
        ended = run_jobs(jobs, at_a_time=given.get("jobs"), on_end=None if quiet else say_ended)
    except Stopped as stopped:
        again = words_of({name: value for name, value in given.items() if name not in ("data", "overwrite", "resume")})
        source = () if given.get("data") is None else (given["data"],)
        command = shlex.join(
            ["subo", "fit", *source, *again, *([] if "out" in given else [f"--out={out}"]), "--resume"]
        )
        raise Interrupted(f"stopped.\nTo go on: {command}", signal=stopped.signal) from stopped
    if failed := [one for one in ended if one.code]:
        raise InputError(
            f"{len(failed)} of {len(seeds)} trainings failed, of {', '.join(one.job.name for one in failed)}; the "
            f"others are finished. The first said: {failed[0].message or f'nothing, exit code {failed[0].code}'}"
        )
    measured = {"split": given.get("measure", "test"), "num_samples": given.get("evaluation_samples") or 1000}
    conclude(list(folders.values()), out, quiet=quiet, **measured)


def _job(given: Mapping[str, Any], seed: int, folder: Path, *, resume: bool) -> Job | None:
    """The command that trains with a seed, or goes on; None if the run is finished and has nothing to change."""
    from subo.runs.run import Run

    run = Run(folder)
    own = {name: value for name, value in given.items() if name not in _OF_ALL}
    goes_on = resume and run.config.exists()
    if goes_on:
        config = run.read_config()
        changes = changes_of(config, {**own, **({} if given.get("data") is None else {"data": given["data"]})})
        same = all(getattr(config.training, name) == value for name, value in changes.items())
        if same and run.model.exists() and run.evaluation_of(given.get("measure", "test")).exists():
            return None
    own |= {"seed": seed, "out": folder, "quiet": True}
    own |= {"resume": True} if goes_on else {"overwrite": True} if given.get("overwrite") else {}
    source = () if given.get("data") is None else (given["data"],)
    if not goes_on and not source:
        raise InputError(f"{folder} is not begun, and needs the data: repeat the command that began the others")
    return Job(f"seed {seed}", ("fit", *source, *words_of(own)))


def say_ended(ended: Ended) -> None:
    """One line about a training that has ended."""
    say(f"{ended.job.name}: {'done' if ended.code == 0 else ended.message or f'exit code {ended.code}'}")


def conclude(folders: Sequence[Path], out: Path, *, quiet: bool, split: str, num_samples: int) -> None:
    """Measures all runs on the same held-out data, prints their mean, and writes it to ``seeds.json``."""
    from subo.experiments import compare as comparing

    experiments = comparing.open_comparable(folders)
    comparison = comparing.compare_runs(experiments, split=split, num_samples=num_samples, progress=not quiet)
    config = next(iter(experiments.values())).config
    if len(comparison.over_seeds) != 1:
        raise InputError(
            f"the runs in {out} differ in more than their seeds, so that they have no common mean: subo compare {out} "
            "shows each"
        )
    named = replace(comparison, over_seeds=tuple(replace(mean, name=str(out)) for mean in comparison.over_seeds))
    comparing.save_comparison(out / "seeds.json", named, config)
    if not quiet:
        print_over_seeds(named, config.log_px)
        say(f"written to {out / 'seeds.json'}; subo compare takes {out} for all of its runs")
