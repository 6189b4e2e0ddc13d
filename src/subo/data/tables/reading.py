"""Files of tables as frames: text with any separator and decimal mark, Parquet and Feather.

pandas reads; what it would guess in silence is looked at before or checked after: the separator, the decimal mark,
numbers with leading zeros, rows that are too short.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pandas.api import types

from subo.data.tables.parsing import (
    DAMAGED,
    LEADING_ZERO,
    LOSES_ZEROS,
    Layout,
    Reasons,
    Written,
    opened,
    parse,
    parse_texts,
    repeats,
)
from subo.data.tables.writing import INDEX
from subo.errors import InputError
from subo.files.tables import name_in

__all__ = ["MISSING", "FrameRead", "read_frame", "read_texts"]

MISSING = ("", "NA", "NaN", "nan", "None", "NaT")
"""Cells that hold no value."""

_SEPARATORS = (",", ";", "\t", "|")
_IN_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE = 1 << 20  # bytes from which the layout is seen
_LOOKED_AT = 1000  # rows of them
_THOUSANDS, _SMALL = re.compile(r"[+-]?[1-9]\d{0,2}([.,]\d{3})+"), re.compile(r"[+-]?\d{1,3}")
_COUNTRY = re.compile("[A-Z]{2}")
_PHONE = re.compile(r"\+\d{7,}")
_CODE, _CODE_OR_DIGITS = re.compile(r"\d+E\d+"), re.compile(r"\d+(E\d+)?")
_MARKED = 20  # cells with marks, of which three digits after each are no accident
_DATA = re.compile(r"(?=.*[+\-.,e])[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WITH_COMMA, _WITH_POINT = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d*\.\d+")


@dataclass(frozen=True, eq=False)
class FrameRead:
    """A table as it was read.

    Attributes:
        frame: The columns in their order, missing cells as pandas has them.
        notes: In words, what was decided that another reader might have decided otherwise.
        of_text: Whether the file is text: what is a category in the frame was text, then.
        no_numbers: Columns that stay text although their cells could be read as numbers, and why.
        decimal: The decimal mark of text.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    of_text: bool = False
    no_numbers: Reasons = field(default_factory=dict)
    decimal: str | None = None


def read_frame(
    path: Path,
    *,
    separator: str | None = None,
    decimal: str | None = None,
    missing: Sequence[str] = (),
    of_text: Sequence[str] = (),
) -> FrameRead:
    """Reads a table.

    Args:
        path: A file with one of the endings :data:`subo.data.tables.options.TABLES`.
        separator: What stands between cells of text; by default whichever of comma, semicolon, tab and bar gives all
            rows the same number of cells.
        decimal: The decimal mark of text; by default a comma where cells are not separated by commas and numbers such
            as 1,5 occur and none such as 1.5, else a point.
        missing: Further words for a missing value, such as ``?`` or ``-999``.
        of_text: Columns of a file of text whose cells are kept as they are written.

    Raises:
        InputError: The file cannot be read, or is not a table with a name for each column; says in which row.
    """
    ending = path.suffix.lower()
    if ending in (".parquet", ".feather"):
        return FrameRead(_without(_named(_of_arrow(path), path), [*MISSING, *missing]))
    layout, rows = _layout_of(path, separator, decimal, missing)
    header, mark, point = layout.header, layout.separator, layout.decimal
    columns = [*zip(header, zip(*rows, strict=False), strict=False)]
    asked = {name: "" for name in of_text if name in header}
    seen = {
        name: why for name, cells in columns if (why := _why_no_numbers(cells, layout.missing)) and name not in asked
    }
    frame, found = parse(path, layout, [*asked, *seen])
    no_numbers = seen | found
    notes = _taken_for_header(header)
    if mark != "," and separator is None and not path.name.lower().endswith((".tsv", ".tsv.gz")):
        notes.append(f"cells are separated by {_IN_WORDS[mark]}")
    if point == "," and decimal is None:
        notes.append("numbers have a decimal comma")
    for name, cells in columns:
        if _may_be_countries({*cells}):
            notes.append(
                f"Careful: column {name!r} has codes of two letters, and NA is read as a missing cell: where it stands "
                "for Namibia or another value, write that otherwise"
            )
        if (grouped := _grouped(cells)) and name not in {*asked, *no_numbers}:
            notes.append(
                f"Careful: column {name!r} has numbers such as {grouped}, three digits after each mark, and others "
                "without a mark: if it separates thousands, remove it, since it is read as a decimal mark or as text"
            )
    frame = frame.assign(**{name: _without_quotes(frame[name]) for name in _quoted(frame)})
    return FrameRead(frame, tuple(notes), of_text=True, no_numbers=no_numbers, decimal=point)


def read_texts(path: Path, *, separator: str | None = None, decimal: str | None = None) -> Written:
    """The cells of a file of text, which :func:`read_frame` has read, without what they are taken for.

    Args:
        path: A file with one of the endings :data:`subo.data.tables.options.TEXTS`.
        separator: As for :func:`read_frame`.
        decimal: As for :func:`read_frame`.
    """
    layout, _ = _layout_of(path, separator, decimal, ())
    cells = parse_texts(path, layout)
    return Written(cells.map(name_in), layout.separator, layout.decimal)


def _layout_of(
    path: Path, separator: str | None, decimal: str | None, missing: Sequence[str]
) -> tuple[Layout, list[list[str]]]:
    """How a file of text is read, as was asked for or as its first rows show it, and these rows."""
    _check_mark("separator", separator)
    _check_mark("decimal mark", decimal)
    sample = _beginning(path)
    mark = separator or _separator_of(sample)
    header, *rows = _cells(sample, mark) or [[]]
    names = _header(header, rows, path)
    return Layout(names, mark, decimal or _decimal_of(rows, mark), [*MISSING, *missing]), rows


def _check_mark(name: str, mark: str | None) -> None:
    if mark is not None and (len(mark) != 1 or mark in '"\r\n'):
        raise InputError(f"the {name} must be one character, such as ; or a tab, and no quote; received {mark!r}")


def _beginning(path: Path) -> str:
    """The first megabyte of a file of text, up to the end of a line."""
    raw = b""
    try:
        with opened(path) as file:
            raw = file.read(_SAMPLE)
            whole = len(raw) < _SAMPLE
        end = len(raw) if whole else raw.rfind(b"\n") + 1
        return raw[:end].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(
                f"{path} begins with the byte-order mark of UTF-16, and text in UTF-8 is expected: save it as UTF-8"
            ) from error
        raise InputError(f"{path} is not text in UTF-8 ({error}): write it again as UTF-8") from error
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read ({error}): usually it is cut off or not what its name says") from error


def _cells(sample: str, separator: str) -> list[list[str]]:
    """The cells of the first rows, without blank lines; the last row of a sample may be half of one."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator, strict=False):
            if row:
                rows.append([cell.strip() for cell in row])
            if len(rows) > _LOOKED_AT:
                break
    except csv.Error:
        return rows
    return rows


def _separator_of(sample: str) -> str:
    """The separator by which most rows have the same number of cells, more than one; else a comma."""
    found: dict[str, tuple[float, int]] = {}
    for separator in _SEPARATORS:
        widths = [len(row) for row in _cells(sample, separator)]
        width, count = Counter(widths).most_common(1)[0] if widths else (1, 0)
        if width > 1 and widths[0] == width:
            found[separator] = count / len(widths), width
    return max(found, key=lambda separator: found[separator], default=",")


def _decimal_of(rows: Iterable[Sequence[str]], separator: str) -> str:
    """The decimal mark."""
    if separator == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    with_comma = any(map(_WITH_COMMA.fullmatch, cells))
    return "," if with_comma and not any(map(_WITH_POINT.fullmatch, cells)) else "."


def _grouped(cells: Sequence[str]) -> str:
    """A number that may have marks between its thousands, as all of a column's larger ones; else nothing.

    Decimals of such numbers would be three, or none, in each: of three random digits the last is 0 in a tenth.
    """
    numbers = [cell for cell in cells if cell and cell not in MISSING]
    marked = [cell for cell in numbers if _THOUSANDS.fullmatch(cell)]
    if len(marked) < _MARKED or len(marked) == len(numbers):
        return ""
    return marked[0] if all(_THOUSANDS.fullmatch(cell) or _SMALL.fullmatch(cell) for cell in numbers) else ""


def _why_no_numbers(cells: Iterable[str], missing: Sequence[str]) -> str:
    """Why cells that could be read as numbers are none: zip codes would lose a 0, phones a +, and 10E2 may be a code.

    A program that writes a number with an E gives the mantissa a point or the exponent a sign; people write 1e5.
    """
    if any(map(LEADING_ZERO.fullmatch, cells)):
        return LOSES_ZEROS
    known = [cell for cell in cells if cell not in missing]
    if known and all(map(_PHONE.fullmatch, known)):
        return f"its cells are numbers with a + in front, as those of phones are ({known[0]})"
    code = next(filter(_CODE.fullmatch, known), None)
    return f"its cells are codes such as {code}" if code and all(map(_CODE_OR_DIGITS.fullmatch, known)) else ""


def _may_be_countries(cells: set[str]) -> bool:
    """Whether cells are codes of countries, of which NA is one."""
    return "NA" in cells and len(cells) > 2 and all(map(_COUNTRY.fullmatch, cells))


def _header(first: Sequence[str], rows: Sequence[Sequence[str]], path: Path) -> tuple[str, ...]:
    """The names of the columns; data in their place would silently be lost."""
    if not first:
        raise InputError(f"{path} is empty: expected a header with a name per column, and rows")
    header = tuple(map(name_in, first))
    if header[-1:] == ("",) and "" not in header[:-1] and all(row[-1] == "" for row in rows if len(row) == len(header)):
        raise InputError(
            f"{path}: each line ends with a separator, after which nothing follows: remove it, or name the last column"
        )
    if "" in header:
        raise InputError(
            f"{path}: column {header.index('') + 1} has no name in the header; pandas writes its index so: "
            "use to_csv(..., index=False), or name the column"
        )
    if all(map(_is_number, header)) and header != tuple(map(str, range(len(header)))):
        raise InputError(f"{path}: the first line holds numbers; a header with a name per column is expected: add one")
    return _distinct(header, path)


def _taken_for_header(header: Sequence[str]) -> list[str]:
    """What is said of a header that may be a row, or a comment; columns may be numbered, from 0 or from elsewhere."""
    if number := next((name for name in header if _DATA.fullmatch(name)), None):
        return [
            f"Careful: the first line is taken for the header, though it holds numbers such as {number}: if it is a "
            "row, put names above it"
        ]
    if header[0].startswith("# "):
        first = f"Careful: the first line is taken for the header, though it begins with {header[0]!r}"
        return [f"{first}: if it is a comment, remove it"]
    return []


def _distinct(header: tuple[str, ...], path: Path) -> tuple[str, ...]:
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if twice is not None:
        row = "; if the first line is a row, put names above it" if _DATA.fullmatch(twice) else ""
        raise InputError(
            f"{path}: two columns have the name {twice!r}: rename one; the header is {', '.join(header)}{row}"
        )
    return header


def _is_number(cell: str) -> bool:
    return cell.isascii() and "_" not in cell and pd.notna(pd.to_numeric(cell, errors="coerce"))


def _quoted(frame: pd.DataFrame) -> list[str]:
    """Columns of text in which a cell begins with the apostrophe that keeps a formula from being one.

    :func:`subo.files.tables.write_table` sets it.
    """
    texts = {name: cells.cat.categories if repeats(cells) else cells for name, cells in frame.items()}
    texts = {name: cells for name, cells in texts.items() if types.is_string_dtype(cells)}
    return [str(name) for name, cells in texts.items() if cells.str.startswith("'", na=False).any()]


def _without_quotes(cells: pd.Series) -> pd.Series:
    return cells.astype(cells.cat.categories.dtype if repeats(cells) else cells.dtype).map(name_in, na_action="ignore")


def _of_arrow(path: Path) -> pd.DataFrame:
    read = pd.read_parquet if path.suffix.lower() == ".parquet" else pd.read_feather
    try:
        return read(path)
    except ImportError as error:
        raise InputError(f"{path}: {path.suffix} files are read by pyarrow: pip install 'subo[parquet]'") from error
    except Exception as error:  # of bytes that are no such file pyarrow raises nearly anything
        raise InputError(f"{path} cannot be read as a {path.suffix} file ({str(error).splitlines()[0]})") from error


def _named(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A frame with names of text, each once, and with rows; an index with a name is a column, as it is in the file.

    :data:`subo.data.tables.writing.INDEX` among its attributes names those. An index without a name stays it.
    """
    if len(frame) == 0:
        raise InputError(f"{path} is empty: it has no rows")
    indices = [str(name) for name in frame.index.names if name is not None]
    _distinct((*indices, *map(str, frame.columns)), path)
    frame = frame.reset_index() if indices else frame
    frame = frame.set_axis(list(map(str, frame.columns)), axis=1)
    frame.attrs = {INDEX: indices} if indices else {}
    return frame


def _without(frame: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """A frame without the cells that stand for a missing one, numbers such as -999 included."""
    numbers = [float(word) for word in words if _is_number(word)]
    found = {
        name: cells.isin(numbers)
        if types.is_any_real_numeric_dtype(cells)
        else cells.astype("str").isin(words) & cells.notna()
        for name, cells in frame.items()
    }
    return frame.assign(**{str(name): frame[name].mask(gone) for name, gone in found.items() if gone.any()})
