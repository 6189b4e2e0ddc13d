"""Tables as text: the only writer of ``.csv`` files, which ensures that no name is run as a formula."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from subo.files.whole import replacing
from subo.runtime.limits import is_number

__all__ = ["name_in", "write_table"]

_FORMULA = "=+-@\t\n＝＋－＠"  # including the full-width ones


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Iterable[Any]], *, tabs: bool = False) -> None:
    r"""Writes a ``.csv``, whole or not at all.

    A spreadsheet runs text that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. Such text gets an apostrophe in
    front, which makes it text again (OWASP, *CSV injection*); :func:`name_in` takes it away. Numbers stay numbers.
    Characters of a file's name that UTF-8 cannot hold are spelled out, such as ``\udcff``; a carriage return is ``\r``.

    Args:
        path: Path of the output file.
        header: Names of the columns.
        rows: Text, numbers, and None for unknown values, which become empty cells. NaN is a number here: `nan`.
        tabs: Whether tabs separate the cells, in place of commas.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_table(f"{folder}/a.csv", ["name", "log_px"], [["=1+1", -1.5], ["b", None]])
        ...     print(Path(f"{folder}/a.csv").read_text(), end="")
        name,log_px
        '=1+1,-1.5
        b,
    """
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with replacing(path) as unfinished, unfinished.open("w", **options) as file:
        writer = csv.writer(file, delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writerow(map(_cell, header))
        writer.writerows(map(_cell, row) for row in rows)


def name_in(cell: str) -> str:
    """The text that :func:`write_table` wrote into a cell.

    Example:
        >>> name_in("'=1+1"), name_in("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        value = value.replace("\r", "\\r")  # Python's writer leaves it unquoted, and it would end the line
        return f"'{value}" if value[:1] in _STARTS and _is_formula(value) else value
    return "" if value is None else value


_STARTS = frozenset("'" + _FORMULA)


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a text, apostrophes apart: its own are thus distinguished from the added one."""
    bare = text.lstrip("'")
    return bare[:1] in _STARTS and not (bare == text and is_number(text))
