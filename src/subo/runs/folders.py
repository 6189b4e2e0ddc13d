"""What a folder that is a run, or may become one, contains, and how a new run replaces an older one in it.

The old run stays intact until the new config replaces its config in one step; from then on its other files no longer
count, whether they have been removed yet or a crash came first.
"""

from pathlib import Path
from typing import Any

from subo.data.named_sets import NAMES
from subo.errors import InputError
from subo.files.whole import read_json, remove, write_json
from subo.runs.own_files import foreign_files, is_left_by_a_crash, own_files
from subo.runs.paths import RunPaths

__all__ = ["check_free", "check_run", "make_folder", "make_run"]

_REPLACING = "replacing"  # in a config: files of an older run may still lie beside it


def check_run(run: RunPaths, *, finished: bool) -> None:
    """Refuses a folder that does not contain a run.

    Args:
        run: Paths of the run.
        finished: Whether the run's weights must be there.

    Raises:
        InputError: There is no run, or it is not finished.
    """
    path = run.path
    if path.is_file() or (str(path) in NAMES and not run.config.exists()):
        what = "a file" if path.is_file() else "a data set"
        raise InputError(
            f"{path} is {what}, but a run folder was expected, as given to `run_dir`. Where a command takes both, the "
            "run comes first, then the data."
        )
    if not path.is_dir():
        raise InputError(f"there is no run folder {path}. Fitting with `run_dir={path}` creates it.")
    if not run.config.exists():
        raise InputError(
            f"{path} is not a run folder: it has no config.json. Name the folder given to `run_dir`; where a command "
            "takes a run and data, the run comes first."
        )
    if _is_half_replaced(run):
        raise InputError(
            f"the run in {path} was stopped while it was replacing an older one, and is still empty. Start it again "
            f"with `run_dir={path}`."
        )
    if finished and not run.model.exists():
        raise InputError(
            f"the run in {path} is not finished: it has no model.safetensors yet. Continue it with `resume` and "
            f"`run_dir={path}`."
        )


def check_free(run: RunPaths, *, overwrite: bool) -> None:
    """Refuses to make a run where there is one, unless it is to be replaced, or among foreign files.

    Raises:
        InputError: Something is there; the message says what.
    """
    if run.config.exists():
        if not overwrite and not _is_half_replaced(run):
            raise InputError(
                f"{run.path} already contains a run. Add `resume` to continue it, `overwrite` to replace it, or give "
                "another `run_dir`."
            )
    elif foreign_files(run.path):
        raise InputError(f"{run.path} is not empty, and its contents are not a subo run. Give another `run_dir`.")
    elif not overwrite and not all(map(is_left_by_a_crash, own_files(run.path))):
        raise InputError(
            f"{run.path} contains files of a run but no config.json. Add `overwrite` to replace them, or give another "
            "`run_dir`."
        )


def make_folder(path: Path) -> None:
    """Makes a run's folder if there is none.

    Raises:
        InputError: The location is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def make_run(run: RunPaths, config: dict[str, Any] | None, *, overwrite: bool) -> None:
    """Makes a run, with its config or none and nothing else, in its existing folder.

    Args:
        run: Paths of the run; the caller must be their only writer.
        config: The requested config.
        overwrite: Whether to remove an existing run; only files of a run are ever removed.

    Raises:
        InputError: Something is there, or the location is not writable.
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
    """Whether a crash interrupted this run while it was replacing another one."""
    try:
        config = read_json(run.config)
    except InputError:
        return False
    return isinstance(config, dict) and bool(config.get(_REPLACING))


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {path}: {error.strerror}. Give another `run_dir`.")
