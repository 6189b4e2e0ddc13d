"""What is said of cells that may mean something else than what they were read as, from the cells alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from pandas.api import types

from subo.data.tables.dates import dates, looks_like_a_date, puts_day_first, read_dates
from subo.data.tables.kinds import STRANGE, distinct
from subo.data.tables.schema import LEVELED, Column, Schema, as_word, plain
from subo.runtime.wording import counted

__all__ = ["misreadings"]

_LISTED = 5
_LOOKED_AT = 1000  # distinct texts, of which none is a number or a date where nothing is to be said
_MOST = 0.5  # of the cells, of which the others may be missing ones
_ENOUGH = 0.25  # of the cells are numbers, where the others are named: codes may look like numbers by chance
_STOOD_IN = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999)
"""Numbers that often stand for a missing cell, where they lie far from all others."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_BOUND = re.compile(rf"[<>≤≥]=?\s?({_NUMBER.pattern})")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_SIGNED = r"[^\d\w+<>=~-]{0,3}\s?-?(?:[1-9]\d{0,2}(?:[., \u00a0']\d{3})+|\d+)(?:[.,]\d+)?\s?([^\d\s+<>=~-]{0,4})"
"""A number with a currency, a unit or a percent sign, or with marks between its thousands; the group is the unit."""
_UNITS, _DISTINCT = 2, 10  # units at most, since 1a, 2b, 3c are no numbers, and numbers at least: 2WD and 4WD are names
_MARKS = {".": "point", ",": "comma"}
_SIGNS = {
    *("null", "(null)", "#null!", "n/a", "#n/a", "n.a.", "n.a", "na", "#na", "nan", "<na>", "nat", "\\n", "?", "??"),
    *("#value!", "#ref!", "#div/0!", "#name?", "#num!"),
}
"""What programs write for a missing cell, in small letters; words that people write for one may be levels."""
_STROKES = {"-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "*", "_", "/"}
"""Signs that stand for a missing cell beside words, and not beside others such as +."""
_DAY, _MONTH = (19000101, 21001231, "%Y%m%d", 3), (190001, 210012, "%Y%m", 6)
"""Between which whole numbers dates without marks lie, their form, and how many different ones are no accident."""


def misreadings(frame: pd.DataFrame, schema: Schema, *, decimal: str | None = None) -> list[str]:
    """What is said of text that may be numbers, dates or no cell, and of numbers and dates that may stand for one.

    Args:
        frame: Columns whose kinds follow from their cells.
        schema: The kinds.
        decimal: The decimal mark of the text that the frame was read from; by default a point.
    """
    columns = {column.name: column for column in schema.columns}
    notes: list[str] = []
    for name, cells in frame.items():
        column = columns[str(name)]
        if column.why.startswith(STRANGE):
            continue
        texts = cells.cat.categories if isinstance(cells.dtype, pd.CategoricalDtype) else cells
        if column.kind == "date":
            notes += _stand_in_dates(column, cells)
        elif types.is_string_dtype(texts) or types.infer_dtype(cells).startswith("mixed"):
            notes += _of_text(column, cells, decimal or ".")
        elif types.is_any_real_numeric_dtype(cells):
            notes += _stand_ins(column.name, cells) if column.kind != "drop" else ()
            notes += _dates_without_marks(column.name, cells)
    return notes


@dataclass(frozen=True, eq=False)
class _Texts:
    """The distinct texts of a column, without blanks around them, and the cells that have them.

    Attributes:
        name: The column's name.
        cells: The column.
        codes: The number of each cell's text, -1 for a missing one.
        texts: The texts.
        counts: How many cells have each.
    """

    name: str
    cells: pd.Series
    codes: np.ndarray
    texts: pd.Series
    counts: np.ndarray

    @classmethod
    def of(cls, name: str, cells: pd.Series) -> "_Texts":
        codes, values = distinct(cells)
        texts = pd.Series(values).astype("str").str.strip()
        return cls(name, cells, codes, texts, np.bincount(codes[codes >= 0], minlength=len(texts)))

    @property
    def known(self) -> int:
        """The number of cells that are not missing."""
        return int(self.counts.sum())

    def count(self, which: pd.Series) -> int:
        """The number of cells whose text is one of some."""
        return int(self.counts[which.to_numpy(dtype=bool)].sum())

    def first(self, which: pd.Series) -> tuple[int, str]:
        """The first row, from 1, whose text is one of some, and its cell."""
        row = int(np.argmax(np.append(which.to_numpy(dtype=bool), False)[self.codes]))
        return row + 1, plain(self.cells.iloc[row])

    def named(self, which: pd.Series) -> list[str]:
        """Those of some texts that cells have."""
        return self.texts[which.to_numpy(dtype=bool) & (self.counts > 0)].unique().tolist()

    def no_such(self, what: str, alike: pd.Series, others: pd.Series) -> str:
        """That most cells are numbers or dates, which others are not, and what to do with these."""
        row, cell = self.first(others)
        words = self.named(others)
        said = f"column {self.name!r} is read as text: {self.count(alike):,} of its {self.known:,} cells are {what}, "
        if 1 < len(words) <= _LISTED and not any("," in word for word in words):
            more = ", ".join(repr(word) for word in words if word != str(cell).strip())
            return (
                f"{said}but row {row} has {cell!r}, and others have {more}; if those are missing cells, clear them, or "
                f"name them: `missing={','.join(map(as_word, words))}`"
            )
        word = as_word(cell)
        return f"{said}but row {row} has {cell!r}; if that is a missing cell, clear it, or name it: `missing={word}`"


def _of_text(column: Column, cells: pd.Series, decimal: str) -> list[str]:
    of = _Texts.of(column.name, cells)
    some = of.texts.head(_LOOKED_AT)
    notes: list[str] = []
    if any(_NUMBER.fullmatch(text) or re.fullmatch(_SIGNED, text) or looks_like_a_date(text) for text in some):
        notes = [*_of_numbers(of, decimal)] or [*_of_dates(of)]
    return notes if notes or column.kind not in LEVELED else [*_signs(of)]


def _of_numbers(of: _Texts, decimal: str) -> Iterator[str]:
    """What is said of text that is mostly numbers: with signs, bounds, the other decimal mark, or words beside them."""
    numbers = of.texts.str.fullmatch(_NUMBER)
    bounds = of.texts.str.fullmatch(_BOUND)
    signed = of.texts.str.fullmatch(_SIGNED) & ~numbers & ~bounds
    units = of.texts[signed].str.extract(f"^{_SIGNED}$")[0].nunique()
    if signed.sum() >= _DISTINCT and units <= _UNITS and of.count(signed | numbers) > _MOST * of.known:
        yield (
            f"column {of.name!r} is read as text: cells such as {of.first(signed)[1]!r} hold numbers; without signs, "
            "units and marks between thousands they are read as such"
        )
        return
    if not of.count(numbers) or of.count(numbers | bounds) < _ENOUGH * of.known:
        return
    if count := of.count(bounds):
        row, cell = of.first(bounds)
        found = _BOUND.fullmatch(str(cell).strip())
        limit = found[1] if found else cell
        half = ", or half of it" if str(cell).strip()[0] in "<≤" else ""
        yield (
            f"column {of.name!r} is read as text: {of.count(numbers):,} of its {of.known:,} cells are numbers, and "
            f"{counted(count, 'bound')}, such as {cell!r} in row {row}. Named as a missing cell, a bound would be "
            f"filled as if any value were possible: write the limit itself in its place, {limit}{half}"
        )
    if of.count(others := ~numbers & ~bounds):
        yield of.no_such("numbers", numbers, others)
    other = "," if decimal == "." else "."
    marked = numbers & of.texts.str.contains(other, regex=False)
    if of.count(marked) and of.count(numbers | bounds) > _MOST * of.known:
        yield _other_mark(of, marked, other, decimal)


def _other_mark(of: _Texts, marked: pd.Series, other: str, decimal: str) -> str:
    """What is said of text that is numbers with the decimal mark that is not that of the table, or of thousands."""
    cell, mark, own = of.first(marked)[1], _MARKS[other], _MARKS.get(decimal, repr(decimal))
    said = f"column {of.name!r} is read as text: {of.count(marked):,} of its {of.known:,} cells are numbers with a "
    if all(map(_THOUSANDS.fullmatch, of.named(marked))):
        return (
            f"{said}{mark}, such as {cell!r}, while the decimal mark is a {own}: remove it where it separates "
            f"thousands, and write a {own} where it is a decimal mark"
        )
    return (
        f"{said}decimal {mark}, such as {cell!r}, while the decimal mark is a {own}: write them with a {own}, or, if "
        f"all numbers of the file have a {mark}, give `decimal={other}`"
    )


def _of_dates(of: _Texts) -> Iterator[str]:
    """What is said of text that is mostly dates, with words beside them, or what looks like a date and is none."""
    alike = of.texts.map(looks_like_a_date).astype(bool)
    if of.count(alike) <= _MOST * of.known:
        return
    texts = of.texts[alike]
    read = alike.copy()
    read[alike] = dates(texts, day_first=puts_day_first(texts)).notna()
    alike = read if of.count(read) > _MOST * of.known else alike
    if of.count(~alike):
        yield of.no_such("dates", alike, ~alike)


def _signs(of: _Texts) -> Iterator[str]:
    """What is said of levels that programs write for a missing cell."""
    small = pd.Series([text.casefold() for text in of.texts])
    words = of.texts.str.contains(r"\w")
    strokes = small.isin(_STROKES)
    found = small.isin(_SIGNS) | (strokes if of.count(words) > of.count(~words & ~strokes) else strokes & False)
    if not (named := of.named(found)) or not of.count(~found):
        return
    cells = [f"{word!r} in {counted(of.count(of.texts == word), 'cell')}" for word in named]
    several = len(named) > 1
    yield (
        f"column {of.name!r} has {' and '.join(cells)} as {'levels of their own' if several else 'a level of its own'}"
        f"; if {'they stand for missing cells, name them' if several else 'it stands for a missing cell, name it'}: "
        f"`missing={','.join(map(as_word, named))}`"
    )


def _stand_ins(name: str, cells: pd.Series) -> Iterator[str]:
    """What is said of numbers of several cells that lie further from the others than these from each other."""
    known = cells.dropna().astype("float64")
    for number in {known.min(), known.max()} & {*_STOOD_IN}:
        others = known[known != number]
        low, high, count = others.min(), others.max(), len(known) - len(others)
        far = max(low - number, number - high) > 2 * (high - low) > 0
        if far and 1 < count < len(others):
            yield (
                f"column {name!r} has {number:g} in {counted(count, 'cell')}, far from all others ({low:g} to "
                f"{high:g}); if that stands for a missing cell, name it: `missing={number:g}`"
            )


def _stand_in_dates(column: Column, cells: pd.Series) -> Iterator[str]:
    """The same of the first or the last day of a year, as 9999-12-31 is, in several cells.

    All dates are read only where one of those is in several cells.
    """
    codes, values = distinct(cells)
    texts = pd.Series(values)

    read = partial(read_dates, day_first=column.day_first)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    if not (counts > 1).any() or not _ends_of_years(read(texts[counts > 1])).any():
        return
    days = read(texts)[counts > 0]
    ends, counts, texts = _ends_of_years(days).to_numpy(), counts[counts > 0], texts[counts > 0].astype("str")
    found = days.isin([days.min(), days.max()]).to_numpy() & ends
    far, others = days[found], days[~found]
    if len(others) < 2 or counts[~found][ends[~found]].sum() > _MOST * counts[~found].sum():  # years, as dates
        return
    low, high = others.min(), others.max()
    for at in far.index:
        count = int(counts[days.index == at].sum())
        if max(low - days[at], days[at] - high) > high - low and 1 < count < counts[~found].sum():
            between = f"{texts[others.idxmin()]} to {texts[others.idxmax()]}"
            yield (
                f"column {column.name!r} has {texts[at]} in {counted(count, 'cell')}, far from all others ({between}); "
                f"if that stands for a missing cell, name it: `missing={as_word(texts[at])}`"
            )


def _ends_of_years(days: pd.Series) -> pd.Series:
    """Which days are the first or the last of a year; spreadsheets count from December 30, 1899."""
    month, day = days.dt.month, days.dt.day
    zero = (days.dt.year == 1899) & (month == 12) & (day == 30)
    return ((month == 1) & (day == 1)) | ((month == 12) & (day == 31)) | zero


def _dates_without_marks(name: str, cells: pd.Series) -> Iterator[str]:
    """What is said of whole numbers that are all days, as 20210301 is, or all months, as 202103 is."""
    low, high = cells.min(), cells.max()
    for first, last, form, least in (_DAY, _MONTH):
        if not first <= low <= high <= last:
            continue
        numbers = pd.Series(cells.dropna().unique()).astype("float64")
        if len(numbers) < least or (numbers != numbers.round()).any():
            continue
        texts = numbers.astype("int64").astype("str")
        days = pd.to_datetime(texts, format=form, errors="coerce")
        if days.isna().any():
            continue
        remedy = f", or give `columns={name}=date`" if form == _DAY[2] else ""
        yield (
            f"column {name!r} is read as numbers, and all of them may be {'days' if form == _DAY[2] else 'months'}, as "
            f"{texts[0]} is: if they are, write them as dates, such as {days[0]:%Y-%m-%d}{remedy}"
        )
