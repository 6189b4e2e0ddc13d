"""Arguments shared by several commands, and their checks before any work."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from subo.data.loading import Part
from subo.errors import InputError
from subo.files.whole import is_same, lies_in

__all__ = ["DataSource", "ReadOptions", "RunPath", "check_apart", "check_ending", "separated", "words"]

_READ_IN_FOLDERS = (".npy", ".png")

DataSource = Annotated[
    str,
    Parameter(
        help="digits, mnist, fashion-mnist, binarized-mnist, jsb-chorales, a table (.csv, .tsv, .parquet, .feather), a "
        ".npy or .npz, or a folder of images or of sequences. It is read like the run's data, with the same levels, "
        "columns, channels and classes."
    ),
]
RunPath = Annotated[Path, Parameter(help="Run folder, as given to fit --out.")]


def separated(text: str) -> list[str]:
    """Words between commas; one that holds a comma is in double quotes.

    Example:
        >>> separated('sex, "city, where born",age')
        ['sex', 'city, where born', 'age']
    """
    return [word.strip() for word in next(csv.reader([text], skipinitialspace=True), [])]


def words(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Converts ``?,-999`` to words; one that holds a comma is in double quotes."""
    return tuple(word for token in tokens for word in separated(token.value))


@Parameter(name="*")
@dataclass(frozen=True)
class ReadOptions:
    """How a command reads data for a run: they are taken for what the run's data were, their file may differ.

    Args:
        part: Which part of a data set; for a file, all rows in order, or a part of the run's own split.
        data_dir: Where to look first for named data sets, each in a folder of its name; next comes the folder in the
            environment variable SUBO_DATA. Otherwise, mnist and fashion-mnist are downloaded from OpenML.
        missing: Words that stand for a missing cell in this table, such as ?,-999, beside those of the run's.
        separator: What stands between the cells of this table; by default as given to fit, or what gives all rows the
            same number of cells.
        decimal: Decimal mark of this table; by default as given to fit, or as its numbers show.
    """

    part: Part = "all"
    data_dir: Path | None = None
    missing: Annotated[tuple[str, ...], Parameter(converter=words, n_tokens=1, negative=(), show_default=False)] = ()
    separator: str | None = None
    decimal: str | None = None


def check_ending(out: Path, *endings: str) -> str:
    """Refuses an output file that could not be written once the work is done.

    Returns:
        The ending, in lower case: ``.NPY`` is ``.npy``.

    Raises:
        InputError: It has none of these endings, is a folder, or lies in a folder that does not exist.
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
    """Refuses an output file that would overwrite an input, the data of a run, or a part of a run.

    Links and other spellings of a path are resolved.

    Args:
        out: Path of the output file.
        inputs: Runs and data read by the command.

    Raises:
        InputError: It would overwrite one of these.
    """
    from subo.data.named_sets import NAMES
    from subo.runs.run import Run, run_of

    if (run := run_of(out)) is not None:
        raise InputError(
            f"cannot write {out}: it belongs to the run {run.path}, which would be destroyed. Give another --out."
        )
    known = [given for given in inputs if isinstance(given, Path) or given not in NAMES]
    fitted_to = (Run(Path(given)).source() for given in known)
    for given in [*map(Path, known), *(source for source in fitted_to if source is not None)]:
        if is_same(out, given):
            raise InputError(f"cannot write {out}: it is the input ({given}). Give another --out.")
        inside = given.is_dir() and not Run(given).config.exists() and lies_in(out, given)
        if inside and (out.exists() or out.suffix.lower() in _READ_IN_FOLDERS):
            raise InputError(
                f"cannot write {out}: {given} is a folder of data, and the file would become part of them. Give "
                "another --out."
            )
