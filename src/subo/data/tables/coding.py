"""Cells as the numbers that a model sees, and numbers as cells: one column of float32 per column, NaN where missing.

============== ================================================ ==================================
kind           number                                           log |d number / d cell|
============== ================================================ ==================================
real           ``(cell - center) / unit``                       ``-log unit``
positive       ``(log cell - center) / unit``                   ``-log unit - log cell``
date           days since 1970, as real                         ``-log unit``, per day
spike          infinity at the spike, else as real or positive  as real or positive; 0 at the spike
count          itself                                           0
boolean ...    the number of the level, from 0; unseen: last    0
============== ================================================ ==================================

Columns of quantile scaling bring this number t to normal scores, w(t), linear between and beyond the column's knots,
which adds ``log w'(t)`` to the right column. That is what turns a density of the numbers into one of the cells:
``log p(cell) = log p(number) + log |d number / d cell|``.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pandas.api import types
from torch import Tensor

from subo.data.tables.dates import read_dates
from subo.data.tables.kinds import check_finite, distinct
from subo.data.tables.schema import LEVELED, Column, Level, Schema, as_word, plain
from subo.errors import InputError
from subo.runtime.memory import return_freed

__all__ = ["decode", "encode", "level_numbers", "raw_numbers", "scaled", "unscaled", "whole_range", "with_constants"]

_DAY = 86_400e6  # microseconds
_DAYS = (-719_161, 2_932_895)  # of the years 1 to 9999, which text can have
_DAYS_OF_NS = (-106_749, 106_749)  # that nanoseconds in 64 bits reach, in any zone and rounded
_LARGE = 1 << 24  # bytes of a table from which freed memory is returned before the next pass
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
_MOST = float(np.finfo(np.float32).max)


def encode(frame: pd.DataFrame, schema: Schema, *, keep: bool = True) -> Float[Tensor, "N D"]:
    """The numbers of a table with the schema's columns, in any order; others are not looked at.

    Args:
        frame: The table.
        schema: What the columns are.
        keep: Whether the frame keeps its columns; otherwise each is dropped as soon as it is coded.

    Raises:
        InputError: A column is not there, or a cell cannot be of its kind; names the row.

    Example:
        >>> age = Column("age", "real", center=40.0, unit=10.0)
        >>> schema = Schema((age, Column("city", "category", levels=("a", "b"))))
        >>> encode(pd.DataFrame({"city": ["b", "c", None], "age": [30, None, 45]}), schema)
        tensor([[-1.0000,  1.0000],
                [    nan,  2.0000],
                [ 0.5000,     nan]])
    """
    if missing := [column.name for column in schema.modeled if column.name not in frame.columns]:
        raise InputError(
            f"the table has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(str, frame.columns))}"
        )
    columns = np.empty((len(schema.modeled), len(frame)), dtype=np.float32)  # written whole, then turned in one pass
    for numbers, column in zip(columns, schema.modeled, strict=True):
        numbers[:] = _held(scaled(raw_numbers(frame, column), column))
        if not keep:
            del frame[column.name]
    if columns.nbytes > _LARGE:
        return_freed()
    return torch.from_numpy(columns).t().contiguous()


def _held(cells: np.ndarray) -> np.ndarray:
    """Numbers in the range of float32; what is infinite stays it."""
    beyond = np.abs(cells) > _MOST
    return np.where(beyond & np.isfinite(cells), np.sign(cells) * _MOST, cells) if beyond.any() else cells


def scaled(raw: np.ndarray, column: Column) -> np.ndarray:
    """A column's numbers, before center and unit, as the model sees them.

    Example:
        >>> column = Column("age", "real", center=40.0, unit=10.0, knots=(-1.0, 0.0, 3.0), scores=(-1.0, 0.0, 1.0))
        >>> scaled(np.array([30.0, 55.0, 100.0]), column)
        array([-1. ,  0.5,  2. ])
    """
    return _through((raw - column.center) / column.unit, column.knots, column.scores)


def unscaled(x: np.ndarray, column: Column) -> np.ndarray:
    """The inverse of :func:`scaled`."""
    return _through(x, column.scores, column.knots) * column.unit + column.center


def _through(values: np.ndarray, start: Sequence[float], end: Sequence[float]) -> np.ndarray:
    """The piecewise linear function through some points, linear beyond them; the identity without any."""
    if not start:
        return values
    known, x, y = np.isfinite(values), np.array(start), np.array(end)
    at = values[known]
    above = np.searchsorted(x, at).clip(1, len(x) - 1)
    rise = (y[above] - y[above - 1]) / (x[above] - x[above - 1])
    result = values.copy()
    result[known] = y[above] + (at - x[above]) * rise
    return result


def raw_numbers(frame: pd.DataFrame, column: Column) -> np.ndarray:
    """A column's cells as numbers in float64, before center and unit; NaN where missing, infinity at a spike.

    Raises:
        InputError: A cell is not finite or cannot be of the column's kind; names the column and the row.
    """
    cells = frame[column.name]
    check_finite(cells)
    if column.kind in LEVELED:
        return level_numbers(cells, column)
    if column.kind == "date":
        return _days(cells, column)
    cells = cells.astype("float64") if str(cells.dtype).startswith("decimal") else cells  # of Arrow
    values = pd.to_numeric(cells, errors="coerce").astype("float64").to_numpy()
    if not types.is_numeric_dtype(cells):
        if len(bad := np.flatnonzero(np.isnan(values) & cells.notna().to_numpy())):
            cell = plain(cells.iloc[bad[0]])
            remedy = f"if it stands for a missing cell, clear it, or name it: `missing={as_word(cell)}`"
            remedy = "its decimal mark is another: `decimal=,`" if _WITH_COMMA.fullmatch(str(cell)) else remedy
            raise InputError(f"column {column.name!r}, row {bad[0] + 1}: {cell!r} is not a number; {remedy}")
        check_finite(pd.Series(values, name=column.name))
    numbers = _logarithms(values) if column.log else values
    return np.where(values == column.spike, np.inf, numbers) if column.kind == "spike" else numbers


def _logarithms(values: np.ndarray) -> np.ndarray:
    """What is not above 0 has no density: -infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(values), np.where(np.isnan(values), np.nan, -np.inf))


def _days(cells: pd.Series, column: Column) -> np.ndarray:
    """Dates as days since 1970; of text, each date is read once."""
    if types.is_datetime64_any_dtype(cells):
        return _days_since(read_dates(cells, day_first=column.day_first))
    codes, values = distinct(cells)
    days = _days_since(read_dates(pd.Series(values), day_first=column.day_first))
    if len(bad := np.flatnonzero((codes >= 0) & np.isnan([*days, 0])[codes])):
        cell = plain(cells.iloc[bad[0]])
        raise InputError(
            f"column {column.name!r}, row {bad[0] + 1}: {cell!r} is not a date; if it stands for a missing cell, clear "
            f"it, or name it: `missing={as_word(cell)}`"
        )
    return np.append(days, np.nan)[codes]


def _days_since(read: pd.Series) -> np.ndarray:
    if read.dt.tz is not None:
        read = read.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.where(read.isna(), np.nan, read.astype("datetime64[us]").astype("int64").to_numpy() / _DAY)


def level_numbers(cells: pd.Series, column: Column) -> np.ndarray:
    """The position of each cell among the levels; one more than the last for a level that was not seen.

    What pandas reads as a number in one file may be text in another that has other cells beside: both are the level.
    """
    codes, values = distinct(cells)
    values = values.astype(object)
    numbers = pd.Index(column.levels, dtype=object).get_indexer(values)
    if (other := numbers < 0).any():
        texts = {_text(level): number for number, level in enumerate(column.levels)}
        texts |= {_text(level): len(column.levels) - 1 for level in column.pooled}
        same = _equal_numbers(column.levels)
        numbers[other] = [
            texts.get(_text(plain(value)), same.get(_number(value), len(column.levels))) for value in values[other]
        ]
    return np.append(numbers.astype("float64"), np.nan)[codes]


def _equal_numbers(levels: Sequence[Level]) -> dict[float | None, int]:
    """The levels that are numbers, such as the text 1.0 of a file, by these, where no other is the same number."""
    known = [(_number(level), position) for position, level in enumerate(levels)]
    counts = Counter(number for number, _ in known)
    return {number: position for number, position in known if number is not None and counts[number] == 1}


def _number(cell: object) -> float | None:
    """A cell as a number, with whatever decimal mark; None where it is none, as truth values and 007 are."""
    text = str(plain(cell)).replace(",", ".")
    return float(text) if not isinstance(cell, bool | np.bool_) and _PLAIN_NUMBER.fullmatch(text) else None


def _text(level: object) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def decode(x: Float[Tensor, "N D"], schema: Schema, given: Float[Tensor, "N C"] | None = None) -> pd.DataFrame:
    """A table of the modeled columns, with their names, types and levels; the inverse of :func:`encode`.

    Counts are rounded to whole numbers, and real numbers to the decimals that the data had. With the coded cells of the
    condition, `given`, its columns are there, too, in the table's order.
    """
    if given is not None:
        frame = pd.concat([decode(x, schema), decode(given, schema.given)], axis=1)
        return frame[[column.name for column in schema.kept]]
    columns = zip(schema.modeled, x.double().cpu().numpy().T, strict=True)
    return pd.DataFrame({column.name: _cells(column, unscaled(values, column)) for column, values in columns})


def with_constants(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Drawn rows with the columns that have one value in the data, too, in the table's order."""
    zeros = np.zeros(len(frame))
    constants = {column.name: _cells(column, zeros).set_axis(frame.index) for column in schema.constants}
    names = [column.name for column in schema.columns if column.name in {*constants, *frame.columns}]
    return frame.assign(**constants)[names]


def _cells(column: Column, values: np.ndarray) -> pd.Series:
    """Numbers as cells of the column's type."""
    known = ~np.isnan(values)
    if column.levels:
        levels = np.array([*column.levels, None], dtype=object)
        index = np.where(known, values, len(column.levels)).round().astype(int).clip(0, len(column.levels))
        return _as_type(pd.Series(levels[index], dtype=object), column)
    if column.kind == "date":
        most = _DAYS_OF_NS if "[ns" in column.dtype else _DAYS
        microseconds = (np.where(known, values, 0).clip(*most) * _DAY).round().astype("int64")
        return _as_dates(pd.Series(microseconds.astype("datetime64[us]")).where(known), column)
    decimals = 0 if column.kind == "count" else column.decimals
    cells = np.exp(values) if column.log else values
    if decimals is not None:
        cells = cells.round(decimals) + 0.0  # -0 is 0
    if column.log and decimals is not None:
        cells = cells.clip(min=10.0**-decimals)  # 0 is not in its range
    if column.kind == "spike" and column.spike is not None:
        cells = np.where(np.isinf(values), column.spike, cells)
    return _as_type(pd.Series(cells), column)


def _as_dates(cells: pd.Series, column: Column) -> pd.Series:
    """Dates in UTC as the dates that the column had, whole periods by its clock; text is given as dates, too."""
    dtype = _known_type(column.dtype)
    typed = types.is_datetime64_any_dtype(dtype)
    if typed and (zone := _zone_of(dtype)) is not None:
        cells = cells.dt.tz_localize("UTC").dt.tz_convert(zone)
    if column.every:
        first = np.ones(len(cells), dtype=bool)  # of an hour that a clock shows twice
        cells = cells.dt.round(column.every, ambiguous=first, nonexistent="shift_forward")
    return cells.astype(dtype) if typed else cells


def _zone_of(dtype: Any) -> Any:
    """The zone of a type of dates, pandas' or Arrow's; None where it has none."""
    own = getattr(dtype, "pyarrow_dtype", dtype)
    return getattr(own, "tz", None)


def _known_type(name: str) -> Any:
    """The type with a name; None where pandas cannot make it, as Arrow's decimals, or any of Arrow without pyarrow."""
    try:
        return types.pandas_dtype(name)
    except (TypeError, ImportError, NotImplementedError):
        return None


def _as_type(cells: pd.Series, column: Column) -> pd.Series:
    """Cells of pandas' type that the column had, where it can hold the missing ones."""
    if cells.isna().any() and column.dtype.startswith(("int", "uint", "bool")) and column.dtype != "boolean":
        return cells
    if column.kind == "ordinal" and column.dtype == "category":
        return cells.astype(pd.CategoricalDtype([*column.levels], ordered=True))
    dtype = _known_type(column.dtype)
    if dtype is None:
        return cells
    if types.is_integer_dtype(dtype) and types.is_float_dtype(cells):
        cells = cells.clip(*whole_range(dtype))
    return cells.astype(dtype)


def whole_range(dtype: Any) -> tuple[float, float]:
    """The smallest and the largest float that a type of whole numbers holds."""
    limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
    low, high = float(limits.min), float(limits.max)
    return low, high if int(high) <= limits.max else math.nextafter(high, 0)
