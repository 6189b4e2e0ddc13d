"""Runs of one setting with several training seeds, in the subfolders of one folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from subo.errors import InputError
from subo.runs.run import Run

__all__ = ["check_place", "runs_within", "seed_folder"]

_NAME = re.compile(r"seed-(\d+)")


def seed_folder(folder: Path, seed: int) -> Path:
    """The folder of the run with a training seed.

    Example:
        >>> seed_folder(Path("runs/digits"), 3).as_posix()
        'runs/digits/seed-3'
    """
    return folder / f"seed-{seed}"


def runs_within(path: Path) -> list[Path]:
    """The runs with different seeds in a folder, in the order of their seeds; the path itself if it is none of these.

    Args:
        path: A run folder, or a folder of such runs.
    """
    if Run(path).config.exists() or not path.is_dir():
        return [path]
    found = {int(match[1]): one for one in path.iterdir() if (match := _NAME.fullmatch(one.name)) and one.is_dir()}
    return [found[seed] for seed in sorted(found)] or [path]


def check_place(folder: Path, seeds: Sequence[int], *, resume: bool, overwrite: bool) -> None:
    """Refuses a folder that is a run, or has some of these runs already.

    Raises:
        InputError: Says which.
    """
    if Run(folder).config.exists():
        raise InputError(
            f"{folder} is a single run, and runs of several seeds are subfolders of a folder of their own: give "
            "another `run_dir`"
        )
    there = [seed_folder(folder, seed) for seed in seeds if seed_folder(folder, seed).exists()]
    if there and not (resume or overwrite):
        raise InputError(
            f"{there[0]} is there already: `resume` goes on with what is unfinished, `overwrite` trains all anew"
        )
