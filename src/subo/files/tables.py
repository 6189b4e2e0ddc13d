"""Tables as text: the only writer of ``.csv`` files, which ensures that no name is run as a formula."""

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from subo.files.whole import replacing
from subo.runtime.limits import is_number

__all__ = ["is_formula", "name_in", "write_table"]

_FORMULA = "=+-@\t\n\r＝＋－＠"  # including the full-width ones


def write_table(
    path: str | Path,
    header: Sequence[str],
    rows: Iterable[Iterable[Any]],
    *,
    separator: str = ",",
    decimal: str = ".",
) -> int:
    r"""Writes a ``.csv``, whole or not at all.

    A spreadsheet runs text that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. Such text gets an apostrophe in
    front, which makes it text again (OWASP, *CSV injection*); :func:`name_in` takes it away. Numbers stay numbers.
    Characters of a file's name that UTF-8 cannot hold are spelled out, such as ``\udcff``.

    Args:
        path: Path of the output file.
        header: Names of the columns.
        rows: Text, numbers, and None for unknown values, which become empty cells. NaN is a number here: `nan`.
        separator: What stands between cells.
        decimal: The decimal mark of text that is a number.

    Returns:
        How many cells got an apostrophe.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     count = write_table(f"{folder}/a.csv", ["name", "log_px"], [["=1+1", -1.5], ["b", None]])
        ...     print(Path(f"{folder}/a.csv").read_text(), end="")
        name,log_px
        '=1+1,-1.5
        b,
    """
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    quoted = 0
    with replacing(path) as unfinished, unfinished.open("w", **options) as file:
        how: dict[str, Any] = {"delimiter": separator, "lineterminator": "\n"}
        plain, in_quotes = csv.writer(file, **how), csv.writer(file, quoting=csv.QUOTE_ALL, **how)
        for row in chain([header], rows):
            cells = [*row]
            texts = ((number, cell) for number, cell in enumerate(cells) if isinstance(cell, str))
            formulas = [number for number, cell in texts if is_formula(cell, decimal)]
            for number in formulas:
                cells[number] = f"'{cells[number]}"
            quoted += len(formulas)
            returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (in_quotes if returns else plain).writerow(cells)  # Python leaves a carriage return out of quotes
    return quoted


def name_in(cell: str) -> str:
    """The text that :func:`write_table` wrote into a cell.

    Example:
        >>> name_in("'=1+1"), name_in("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and is_formula(cell[1:]) else cell


_STARTS = frozenset("'" + _FORMULA)


def is_formula(text: str, decimal: str = ".") -> bool:
    """Whether a spreadsheet would run a text, apostrophes apart: its own are thus distinguished from the added one."""
    if text[:1] not in _STARTS:
        return False
    bare = text.lstrip("'")
    return bare[:1] in _STARTS and not is_number(bare.replace(decimal, "."))
