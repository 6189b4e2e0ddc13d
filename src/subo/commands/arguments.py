"""What several commands take, and the checks of it that come before any work."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from subo.errors import InputError
from subo.sources import Part

__all__ = ["DataDir", "DataPart", "DataSource", "RunPath", "check_ending"]

DataSource = Annotated[
    str,
    Parameter(
        help="digits, mnist, fashion-mnist, binarized-mnist, jsb-chorales, or a .npy, .npz, .csv or folder of images "
        "or of sequences."
    ),
]
DataPart = Annotated[
    Part,
    Parameter(help="Which part of a data set; of a file all rows, in their order, or a part of the run's own split."),
]
DataDir = Annotated[Path | None, Parameter(help="Where named data sets are looked for.")]
RunPath = Annotated[Path, Parameter(help="Run folder, as given to fit --out.")]


def check_ending(out: Path, *endings: str) -> None:
    """Refuses a file that could not be written when the work is done.

    Raises:
        InputError: Its ending is none of these, it is a folder, or its own folder does not exist.
    """
    if out.suffix.lower() not in endings:
        raise InputError(f"cannot write {out}: its ending must be one of {', '.join(endings)}.")
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder. Give another --out.")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}.")
