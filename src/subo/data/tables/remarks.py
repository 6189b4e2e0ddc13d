"""What is said of the columns of a table: cells that may mean something else than what they were read as."""

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from subo.data.tables.coding import level_numbers
from subo.data.tables.dates import looks_like_a_date
from subo.data.tables.kinds import STRANGE, distinct
from subo.data.tables.schema import LEVELED, Column, Schema, plain
from subo.runtime.wording import counted

__all__ = ["empty", "misreadings", "narrow_counts", "no_longer_constant", "unseen"]

_LISTED = 5
_LOOKED_AT = 1000  # distinct texts, of which none is a number or a date where nothing is to be said
_CLEAR = 3  # standard errors of a Poisson's variance
_MOST = 0.5  # of the cells, of which the others may be missing ones
_STOOD_IN = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999)
"""Numbers that often stand for a missing cell, where they lie far from all others."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_SIGNED = r"[^\d\w+<>=~-]{0,3}\s?-?(?:[1-9]\d{0,2}(?:[., \u00a0']\d{3})+|\d+)(?:[.,]\d+)?\s?([^\d\s+<>=~-]{0,4})"
"""A number with a currency, a unit or a percent sign, or with marks between its thousands; the group is the unit."""
_UNITS, _DISTINCT = 2, 10  # units at most, since 1a, 2b, 3c are no numbers, and numbers at least: 2WD and 4WD are names


def misreadings(frame: pd.DataFrame, schema: Schema) -> list[str]:
    """What is said of text that may be numbers or dates, and of numbers that may stand for a missing cell."""
    columns = {column.name: column for column in schema.columns}
    notes: list[str] = []
    for name, cells in frame.items():
        if columns[str(name)].why.startswith(STRANGE):
            continue
        texts = cells.cat.categories if isinstance(cells.dtype, pd.CategoricalDtype) else cells
        if pd.api.types.is_string_dtype(texts) or pd.api.types.infer_dtype(cells).startswith("mixed"):
            if columns[str(name)].kind != "date":
                notes += _mixed_text(str(name), cells)
        elif pd.api.types.is_any_real_numeric_dtype(cells) and columns[str(name)].kind != "drop":
            notes += _stand_ins(str(name), cells)
    return notes


def _mixed_text(name: str, cells: pd.Series) -> Iterator[str]:
    codes, values = distinct(cells)
    texts, known = pd.Series(values).astype("str").str.strip(), codes >= 0

    def of_cells(which: pd.Series) -> np.ndarray:
        return np.append(which.to_numpy(dtype=bool), False)[codes]

    some = texts.head(_LOOKED_AT)
    if not any(_NUMBER.fullmatch(text) or re.fullmatch(_SIGNED, text) or looks_like_a_date(text) for text in some):
        return
    numbers, dates = texts.str.fullmatch(_NUMBER), texts.map(looks_like_a_date)
    signed = texts.str.fullmatch(_SIGNED) & ~numbers
    units = texts[signed].str.extract(f"^{_SIGNED}$")[0].nunique()
    if signed.sum() >= _DISTINCT and units <= _UNITS and of_cells(signed | numbers).sum() > _MOST * known.sum():
        cell = plain(cells.iloc[int(np.argmax(of_cells(signed)))])
        yield (
            f"column {name!r} is read as text: cells such as {cell!r} hold numbers; without signs, units and marks "
            "between thousands they are read as such"
        )
        return
    for what, alike in (("numbers", of_cells(numbers)), ("dates", of_cells(dates))):
        if not alike.any() or not (known & ~alike).any() or (what == "dates" and alike.sum() <= _MOST * known.sum()):
            continue
        row = int(np.argmax(known & ~alike))
        cell = plain(cells.iloc[row])
        yield (
            f"column {name!r} is read as text: {int(alike.sum()):,} of its {int(known.sum()):,} cells are {what}, but "
            f"row {row + 1} has {cell!r}; if that is a missing cell, clear it, or name it: `missing={cell}`"
        )
        return


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


def no_longer_constant(frame: pd.DataFrame, schema: Schema) -> list[str]:
    """What is said of columns that had one value in the fit and have others here."""
    notes = []
    for column in schema.dropped:
        if len(column.levels) != 1 or column.name not in frame.columns:
            continue
        other = level_numbers(frame[column.name], column) == 1  # a level that is not this one
        if count := int(other.sum()):
            values = ", ".join(repr(plain(value)) for value in frame[column.name][other].unique()[:_LISTED])
            notes.append(
                f"column {column.name!r} is left out, since every cell of the fit's was {column.levels[0]!r}, and "
                f"{counted(count, 'cell')} here {'is' if count == 1 else 'are'} not ({values}): no number depends on "
                f"it; a fit with `columns={column.name}=category` gives other values the probability of a new level"
            )
    return notes


def narrow_counts(frame: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """What is said of counts that vary less than those of a Poisson, the narrowest of the negative binomials."""
    notes = []
    for column in columns:
        if column.kind != "count":
            continue
        cells = pd.to_numeric(frame[column.name]).dropna().astype("float64")
        mean, variance = float(cells.mean()), float(cells.var())
        if variance < mean * (1 - _CLEAR * math.sqrt(2 / max(len(cells) - 1, 1))):
            notes.append(
                f"Careful: column {column.name!r} is a count whose variance, {variance:.3g}, is below its mean, "
                f"{mean:.3g}: no negative binomial is that narrow, and its cells will be drawn too far apart. As an "
                f"ordinal or real column it is described: `columns` {column.name}=ordinal or {column.name}=real"
            )
    return notes


def unseen(frame: pd.DataFrame, x: torch.Tensor, schema: Schema) -> list[str]:
    """What is said of levels that the schema does not know."""
    notes = []
    for number, column in enumerate(schema.modeled):
        new = (x[:, number] == len(column.levels)) if column.kind in LEVELED else torch.zeros(0, dtype=torch.bool)
        if bool(new.any()):
            values = map(plain, frame[column.name][new.numpy()].unique()[:_LISTED])
            notes.append(
                f"column {column.name!r}: {int(new.sum()):,} cell{'s' * (int(new.sum()) > 1)} hold"
                f"{'s' * (int(new.sum()) == 1)} what the fit has never seen ({', '.join(map(repr, values))})"
            )
    return notes


def empty(x: torch.Tensor) -> list[str]:
    """What is said of rows without any cell."""
    some = x[:, 0].isnan().nonzero()[:, 0]
    empty = (some[x[some].isnan().all(1)] + 1).tolist()
    if not empty:
        return []
    more = f" and {len(empty) - _LISTED:,} more" if len(empty) > _LISTED else ""
    return [f"no cell of row{'s' * (len(empty) > 1)} {', '.join(map(str, empty[:_LISTED]))}{more} is observed"]
