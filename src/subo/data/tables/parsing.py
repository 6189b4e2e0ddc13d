"""Text of a known layout as a frame, block after block, so that memory holds the cells and not their text.

pandas parses; what it does not show is seen in the bytes: rows that are too short, and zeros before a number.
"""

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from pandas.errors import ParserError, ParserWarning

from subo.errors import InputError
from subo.runtime.memory import return_freed
from subo.runtime.wording import counted

__all__ = [
    "AS_TEXT",
    "DAMAGED",
    "LEADING_ZERO",
    "LOSES_ZEROS",
    "Layout",
    "Reasons",
    "Written",
    "opened",
    "parse",
    "parse_texts",
    "repeats",
]

Reasons = dict[str, str]
"""Why columns stay text whose cells are numbers, by their names."""

DAMAGED = (OSError, EOFError, zlib.error)
LEADING_ZERO = re.compile(r"0\d+")
AS_TEXT: Any = str(pd.Series(["text"]).dtype)
"""What pandas calls the type of text."""

_ROWS = 65_536  # of a block
_BYTES = 1 << 17  # at a time: what is computed of them stays in the processor's cache
_LINE_ENDS = b"\n\r"
_BLANKS = 10  # after a word that stands for a missing cell
_LETTERS = 40  # of a name in a message
_EXACT = 1 << 53  # up to which a float holds every whole number
LOSES_ZEROS, _LOSES_DIGITS = "its numbers begin with 0", "its whole numbers have more digits than a float holds"


@dataclass(frozen=True)
class Layout:
    """How a file of text is read.

    Attributes:
        header: The names of the columns.
        separator: What stands between cells.
        decimal: The decimal mark.
        missing: Cells that hold no value.
    """

    header: tuple[str, ...]
    separator: str
    decimal: str
    missing: Sequence[str]


@dataclass(frozen=True, eq=False)
class Written:
    """The cells of a file of text as they are written there.

    Attributes:
        cells: The columns in their order, all of them text.
        separator: What stands between cells.
        decimal: The decimal mark.
    """

    cells: pd.DataFrame
    separator: str
    decimal: str


@dataclass(frozen=True)
class _Bytes:
    """What the bytes of a file show: the most lines that there can be, and how some cell may begin or end."""

    lines: int
    leading_zeros: bool
    spaces: bool
    trailing: bool


def parse(path: Path, layout: Layout, as_text: Sequence[str]) -> tuple[pd.DataFrame, Reasons]:
    """The frame, every row with as many cells as the header, and the columns that turned out to be no numbers.

    Of a file of several blocks, text that repeats is a category, which takes a byte or two of a cell.

    Args:
        path: The file.
        layout: How it is read.
        as_text: Columns that are known to be text.

    Raises:
        InputError: A row has more or fewer cells than the header; says which.
    """
    seen = _bytes_of(path, layout.separator)
    known = {layout.header.index(name) for name in as_text}
    try:
        frame = _frame(path, layout, seen, known)
        if found := _no_numbers(path, layout, frame, seen):
            frame = _frame(path, layout, seen, known | {*found})
    except (ParserError, ParserWarning, ValueError, *DAMAGED) as error:
        _refuse_widths(path, layout)
        raise InputError(f"{path} cannot be read as a table of text ({str(error).strip()}): write it again") from error
    if len(frame) == 0:
        raise InputError(f"{path} is empty: it has a header and no rows")
    if len(frame) > _ROWS:
        return_freed()
    if frame.iloc[:, -1].isna().any() and not _all_there(path, layout, len(frame)):  # a short row ends in missing cells
        _refuse_widths(path, layout)
    return frame.set_axis(list(layout.header), axis=1), {layout.header[number]: why for number, why in found.items()}


def parse_texts(path: Path, layout: Layout) -> pd.DataFrame:
    """The cells as they are written, all of them text, of a file that has been parsed."""
    blocks = _blocks(path, layout, _bytes_of(path, layout.separator), dtype=str, na_filter=False)
    return pd.concat(blocks, ignore_index=True).set_axis(list(layout.header), axis=1)


def opened(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, of a compressed one as they were."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _bytes_of(path: Path, separator: str) -> _Bytes:
    befores = _LINE_ENDS + separator.encode()[-1:]
    ends, before = dict.fromkeys(_LINE_ENDS, 1), b"\n"
    zeros = spaces = trailing = False
    for raw in _pieces(path):
        codes = np.frombuffer(before + raw, dtype=np.uint8)
        ends = {end: lines + np.count_nonzero(codes[len(before) :] == end) for end, lines in ends.items()}
        begins, space = _among(codes, befores), codes == ord(" ")
        spaces = spaces or bool((begins[:-1] & space[1:]).any())
        trailing = trailing or bool((space[:-1] & begins[1:]).any())
        zeros = zeros or _leading_zeros(codes, begins | space | (codes == ord('"')))
        before = raw[-2:]
    return _Bytes(int(max(ends.values())), zeros, spaces, trailing or before.endswith(b" "))


def _among(codes: np.ndarray, wanted: bytes) -> np.ndarray:
    """Which bytes are one of some."""
    found = codes == wanted[0]
    for byte in wanted[1:]:
        found |= codes == byte
    return found


def _leading_zeros(codes: np.ndarray, begins: np.ndarray) -> bool:
    """Whether a cell begins with a 0 and a digit."""
    found = begins[:-2] & (codes[1:-1] == ord("0"))
    found &= codes[2:] - np.uint8(ord("0")) < 10  # what is less than "0" wraps around
    return bool(found.any())


def _all_there(path: Path, layout: Layout, rows: int) -> bool:
    """Whether there are as many separators as the rows need; in quotes they separate nothing."""
    separators = 0
    for raw in _pieces(path):
        separators += raw.count(layout.separator.encode())
        if b'"' in raw or not layout.separator.isascii():
            return False
    return separators == (rows + 1) * (len(layout.header) - 1)


def _pieces(path: Path) -> Iterator[bytes]:
    with opened(path) as file:
        while raw := file.read(_BYTES):
            yield raw


def _blocks(path: Path, layout: Layout, seen: _Bytes, **options: Any) -> Iterator[pd.DataFrame]:
    """The rows by blocks, columns by their number; options as for pandas."""
    common: dict[str, Any] = {"sep": layout.separator, "encoding": "utf-8-sig", "header": 0, "index_col": False}
    common |= {"names": range(len(layout.header)), "keep_default_na": False}
    common |= {"skipinitialspace": seen.spaces}  # a third of the time of parsing
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)  # of rows with more cells than the header
        with pd.read_csv(path, **common, low_memory=False, chunksize=_ROWS, **options) as blocks:
            yield from blocks


def _without_blanks(cells: pd.Series, layout: Layout) -> pd.Series:
    """Text without blanks at its end; what then stands for a missing cell is one."""
    stripped = cells.str.rstrip(" ")
    return stripped.mask(stripped.isin(layout.missing))


def _frame(path: Path, layout: Layout, seen: _Bytes, as_text: set[int]) -> pd.DataFrame:
    """The columns; those that are numbers in one block and text in another are read again, as text."""
    blanks = range(_BLANKS + 1 if seen.trailing else 1)
    missing = [word + " " * number for word in layout.missing for number in blanks]
    options: dict[str, Any] = {"decimal": layout.decimal, "na_values": missing}
    columns = [_Cells(seen.lines) for _ in layout.header]
    for block in _blocks(path, layout, seen, dtype=dict.fromkeys(as_text, str), **options):
        for number, column in enumerate(columns):
            cells = block[number]
            if seen.trailing and isinstance(cells.dtype, pd.StringDtype):
                cells = _without_blanks(cells, layout)
            elif cells.dtype == object:  # of numbers beyond 64 bits pandas keeps the text, words for missing cells too
                cells = cells.mask(cells.isin(missing))
            column.append(cells)
    if mixed := {number for number, column in enumerate(columns) if len(column.sorts) > 1}:
        del columns
        return _frame(path, layout, seen, as_text | mixed)
    return pd.DataFrame({number: column.joined() for number, column in enumerate(columns)}, copy=False)


class _Cells:
    """The cells of a column, block after block; numbers go into one array, which memory holds once.

    Attributes:
        sorts: What the cells of the blocks are, but for those without any.
    """

    def __init__(self, lines: int) -> None:
        self._lines, self._rows = lines, 0
        self._numbers: np.ndarray | None = None
        self._parts: list[pd.Series] = []
        self.sorts: set[str] = set()

    def append(self, cells: pd.Series) -> None:
        sort = _sort_of(cells)
        self.sorts |= {sort} - {"none"}
        if sort in ("numbers", "none") and not self._parts:
            self._add(cells.to_numpy())
            return
        if self._numbers is not None:
            self._parts = [pd.Series(self._numbers[: self._rows])]
            self._numbers = None
        first = not self._parts and len(cells) < _ROWS
        self._parts.append(cells if first or sort != "text" else _compact(cells))

    def _add(self, cells: np.ndarray) -> None:
        end = self._rows + len(cells)
        if self._numbers is None:
            self._numbers = np.empty(self._lines, dtype=cells.dtype)
        elif (kind := np.result_type(self._numbers, cells)) != self._numbers.dtype:
            self._numbers = self._numbers.astype(kind)
        self._numbers[self._rows : end] = cells
        self._rows = end

    def joined(self) -> pd.Series:
        parts = self._parts
        if self._numbers is not None:
            return pd.Series(self._numbers[: self._rows], copy=False)
        if any(map(repeats, parts)) and all(repeats(part) or part.isna().all() for part in parts):
            parts = [part if repeats(part) else part.astype(AS_TEXT).astype("category") for part in parts]
            return pd.Series(types.union_categoricals(parts))
        if len(parts) > 1 and "text" in self.sorts:
            parts = [part.astype(AS_TEXT) for part in parts]
        return pd.concat(parts, ignore_index=True)


def _compact(cells: pd.Series) -> pd.Series:
    """Text as a category, if it repeats."""
    category = cells.astype("category")
    return category if 2 * len(category.cat.categories) < len(cells) else cells


def _sort_of(cells: pd.Series) -> str:
    """What the cells of a block are: numbers, true and false, text, or none."""
    if cells.head(1).isna().all() and cells.isna().all():
        return "none"
    if isinstance(cells.dtype, pd.StringDtype):
        return "text"
    if types.is_bool_dtype(cells):
        return "boolean"
    if types.is_numeric_dtype(cells):
        return "numbers"
    return "boolean" if types.infer_dtype(cells, skipna=True) == "boolean" else "text"


def repeats(cells: pd.Series) -> bool:
    """Whether the cells are kept as a category."""
    return isinstance(cells.dtype, pd.CategoricalDtype)


def _no_numbers(path: Path, layout: Layout, frame: pd.DataFrame, seen: _Bytes) -> dict[int, str]:
    """The columns of whole numbers that would lose zeros before them, as zip codes do, or digits, and why."""
    numbers = range(frame.shape[1])
    long = [number for number in numbers if _may_lose_digits(frame[number])]
    zeros = [number for number in numbers if seen.leading_zeros and _is_whole(frame[number])]
    if not (looked_at := sorted({*long, *zeros})):
        return {}
    found: dict[int, str] = {}
    for block in _blocks(path, layout, seen, usecols=looked_at, dtype=str, na_filter=False):
        found |= {number: _LOSES_DIGITS for number in long if _lose_digits(block[number])}
        found |= {number: LOSES_ZEROS for number in zeros if block[number].str.fullmatch(LEADING_ZERO).any()}
    return found


def _may_lose_digits(cells: pd.Series) -> bool:
    """Whether whole numbers have become floats, since a cell is missing, that are beyond what these hold."""
    return types.is_float_dtype(cells) and bool(cells.abs().max() >= _EXACT) and _is_whole(cells)


def _lose_digits(texts: pd.Series) -> bool:
    digits = texts[texts.str.fullmatch(r"-?\d{16,}")]
    return any(int(float(text)) != int(text) for text in digits)


def _is_whole(cells: pd.Series) -> bool:
    return types.is_any_real_numeric_dtype(cells) and bool((cells.dropna() == cells.dropna().round()).all())


def _refuse_widths(path: Path, layout: Layout) -> None:
    """Refuses the first row that has more or fewer cells than the header."""
    width = len(layout.header)
    try:
        with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:  # pyright: ignore[reportArgumentType]
            lines = csv.reader(file, delimiter=layout.separator)
            rows = -1
            for cells in lines:
                rows += bool(cells)
                if cells and len(cells) != width:
                    first = f"; or the first line, {_short(layout.header[0])}, is no header: remove it" * (rows == 1)
                    raise InputError(
                        f"{path}, row {rows} (line {lines.line_num}): {counted(len(cells), 'cell')} under a header of "
                        f"{width}; usually a separator is missing, or stands in text without quotes or as a decimal "
                        f"mark{first}"
                    )
    except (csv.Error, UnicodeDecodeError, *DAMAGED) as error:
        raise InputError(f"{path} cannot be read as a table of text ({error}): write it again") from error


def _short(text: str) -> str:
    return repr(text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}\u2026")
