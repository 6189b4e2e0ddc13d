"""What several commands take, and the checks of it that come before any work."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from subo.data.loading import Part
from subo.errors import InputError
from subo.files.whole import is_same, lies_in

__all__ = ["DataDir", "DataPart", "DataSource", "RunPath", "check_apart", "check_ending"]

_READ_IN_FOLDERS = (".npy", ".png")

DataSource = Annotated[
    str,
    Parameter(
        help="digits, mnist, fashion-mnist, binarized-mnist, jsb-chorales, or a .npy, .npz, .csv or folder of images "
        "or of sequences. It is read as the run's data were: their levels, columns, channels and classes are kept."
    ),
]
DataPart = Annotated[
    Part,
    Parameter(help="Which part of a data set; of a file all rows, in their order, or a part of the run's own split."),
]
DataDir = Annotated[
    Path | None,
    Parameter(
        help="Where named data sets are looked for first, each in a folder of its name; then in the folder that the "
        "environment variable SUBO_DATA names. mnist and fashion-mnist are otherwise downloaded from OpenML."
    ),
]
RunPath = Annotated[Path, Parameter(help="Run folder, as given to fit --out.")]


def check_ending(out: Path, *endings: str) -> str:
    """Refuses a file that could not be written when the work is done.

    Returns:
        The ending, in lower case: ``.NPY`` is ``.npy``.

    Raises:
        InputError: Its ending is none of these, it is a folder, or its own folder does not exist.
    """
    ending = out.suffix.lower()
    if ending not in endings:
        raise InputError(f"cannot write {out}: its ending must be one of {', '.join(endings)}.")
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder. Give another --out.")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}.")
    return ending


def check_apart(out: Path, *inputs: str | Path) -> None:
    """Refuses a file whose writing would destroy an input, what a run was fitted to, or a part of a run.

    Links and other spellings of a place are seen through.

    Args:
        out: The file that is to be written.
        inputs: Runs and data that the command reads.

    Raises:
        InputError: It would.
    """
    from subo.data.named_sets import NAMES
    from subo.runs.run import Run, run_of

    if (run := run_of(out)) is not None:
        raise InputError(
            f"cannot write {out}: it belongs to the run {run.path}, which would be lost. Give another --out."
        )
    known = [given for given in inputs if isinstance(given, Path) or given not in NAMES]
    fitted_to = (Run(Path(given)).source() for given in known)
    for given in [*map(Path, known), *(source for source in fitted_to if source is not None)]:
        if is_same(out, given):
            raise InputError(f"cannot write {out}: these are the data that are read ({given}). Give another --out.")
        inside = given.is_dir() and not Run(given).config.exists() and lies_in(out, given)
        if inside and (out.exists() or out.suffix.lower() in _READ_IN_FOLDERS):
            raise InputError(
                f"cannot write {out}: {given} is a folder of data, and the file would be one of them. Give another "
                "--out."
            )
