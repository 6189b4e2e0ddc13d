"""What a folder holds that is a run, or may become one, and how an older run in it gives way to a new one.

What was there is whole until the new config takes the old one's place, in one step; from then on the old run's other
files count nothing, whether they are removed yet or a crash came before.
"""

from pathlib import Path
from typing import Any

from subo.data.named_sets import NAMES
from subo.errors import InputError
from subo.files.whole import read_json, remove, write_json
from subo.runs.own_files import foreign_files, is_left_by_a_crash, own_files
from subo.runs.paths import RunPaths

__all__ = ["check_free", "check_run", "make_folder", "make_run"]

_REPLACING = "replacing"  # in a config: files of an older run may lie beside it still


def check_run(run: RunPaths, *, finished: bool) -> None:
    """Refuses a folder that holds no run.

    Args:
        run: Its paths.
        finished: Whether the run's weights must be there.

    Raises:
        InputError: There is no run, or it is not finished.
    """
    path = run.path
    if path.is_file() or (str(path) in NAMES and not run.config.exists()):
        what = "a file" if path.is_file() else "a data set"
        raise InputError(
            f"{path} is {what}, and the folder of a run is expected, as given to `run_dir`. Where a command takes "
            "both, the run comes first, then the data."
        )
    if not path.is_dir():
        raise InputError(f"there is no run folder {path}. Fitting with `run_dir={path}` makes one.")
    if not run.config.exists():
        raise InputError(
            f"{path} is not a run folder: it has no config.json. Name the folder given to `run_dir`; where a command "
            "takes a run and data, the run comes first."
        )
    if _is_half_replaced(run):
        raise InputError(
            f"the run in {path} was stopped while it took the place of an older one, and holds nothing yet. "
            f"Start it again with `run_dir={path}`."
        )
    if finished and not run.model.exists():
        raise InputError(
            f"the run in {path} is not finished: it has no model.safetensors yet. Go on with it by "
            f"`resume` and `run_dir={path}`."
        )


def check_free(run: RunPaths, *, overwrite: bool) -> None:
    """Refuses to make a run where there is one, unless it is to be replaced, and among files that are no run's.

    Raises:
        InputError: Says what is there.
    """
    if run.config.exists():
        if not overwrite and not _is_half_replaced(run):
            raise InputError(
                f"{run.path} holds a run already. Add `resume` to go on with it, `overwrite` to replace it, or "
                "give another `run_dir`."
            )
    elif foreign_files(run.path):
        raise InputError(f"{run.path} is not empty, and what it holds is not a run of subo. Give another `run_dir`.")
    elif not overwrite and not all(map(is_left_by_a_crash, own_files(run.path))):
        raise InputError(
            f"{run.path} holds files of a run, and no config.json that would make it one. Add `overwrite` to "
            "replace them, or give another `run_dir`."
        )


def make_folder(path: Path) -> None:
    """Makes a run's folder, where there is none.

    Raises:
        InputError: The place cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def make_run(run: RunPaths, config: dict[str, Any] | None, *, overwrite: bool) -> None:
    """Makes a run with a config alone, or none, in its folder, which is there.

    Args:
        run: Its paths; whoever calls is their one writer.
        config: What is asked for.
        overwrite: Whether a run that is there already is removed; only files of a run ever are.

    Raises:
        InputError: Something is there, or the place cannot be written to.
    """
    check_free(run, overwrite=overwrite)
    try:
        old = [file for file in own_files(run.path) if file != run.config]
        if old or run.config.exists():
            write_json(run.config, {**(config or {}), _REPLACING: True})
        for file in old:
            remove(file)
        if config is not None:
            write_json(run.config, config)
        else:
            remove(run.config)
        run.figures.mkdir(exist_ok=True)
        run.snapshots.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(run.path, error) from error


def _is_half_replaced(run: RunPaths) -> bool:
    """Whether a crash came while this run took another one's place."""
    try:
        config = read_json(run.config)
    except InputError:
        return False
    return isinstance(config, dict) and bool(config.get(_REPLACING))


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {path}: {error.strerror}. Give another `run_dir`.")
