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

The right column is what turns a density of the numbers into one of the cells: ``log p(cell) = log p(number) +
log |d number / d cell|``.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.tables.kinds import dates
from subo.data.tables.schema import LEVELED, Column, Schema
from subo.errors import InputError

__all__ = ["decode", "encode", "raw_numbers"]

_DAY = 86_400e9  # nanoseconds


def encode(frame: pd.DataFrame, schema: Schema) -> Float[Tensor, "N D"]:
    """The numbers of a table with the schema's columns, in any order; others are not looked at.

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
    numbers = [(raw_numbers(frame, column) - column.center) / column.unit for column in schema.modeled]
    return torch.from_numpy(np.stack(numbers, axis=1).astype(np.float32))


def raw_numbers(frame: pd.DataFrame, column: Column) -> np.ndarray:
    """A column's cells as numbers in float64, before center and unit; NaN where missing, infinity at a spike."""
    cells = frame[column.name]
    if column.kind in LEVELED:
        return _level_numbers(cells, column)
    if column.kind == "date":
        return _days(cells, column)
    values = pd.to_numeric(cells, errors="coerce").astype("float64").to_numpy()
    if len(bad := np.flatnonzero(np.isnan(values) & cells.notna().to_numpy())):
        raise InputError(f"column {column.name!r}, row {bad[0] + 1}: {cells.iloc[bad[0]]!r} is not a number")
    if len(bad := np.flatnonzero(np.isinf(values))):
        raise InputError(f"column {column.name!r}, row {bad[0] + 1}: {cells.iloc[bad[0]]!r} is not a finite number")
    at_spike = values == column.spike if column.kind == "spike" else np.zeros(len(values), dtype=bool)
    if column.log:
        with np.errstate(divide="ignore", invalid="ignore"):  # what is not above 0 has no density: -infinity
            values = np.where(values > 0, np.log(values), np.where(np.isnan(values), np.nan, -np.inf))
    return np.where(at_spike, np.inf, values)


def _days(cells: pd.Series, column: Column) -> np.ndarray:
    """Dates as days since 1970."""
    read = cells if pd.api.types.is_datetime64_any_dtype(cells) else dates(cells.astype("str").where(cells.notna()))
    if len(bad := np.flatnonzero(read.isna() & cells.notna())):
        raise InputError(f"column {column.name!r}, row {bad[0] + 1}: {cells.iloc[bad[0]]!r} is not a date")
    if read.dt.tz is not None:
        read = read.dt.tz_convert("UTC").dt.tz_localize(None)
    days = read.astype("datetime64[ns]").astype("int64").to_numpy() / _DAY
    return np.where(read.isna(), np.nan, days)


def _level_numbers(cells: pd.Series, column: Column) -> np.ndarray:
    """The position of each cell among the levels; one more than the last for a level that was not seen."""
    numbers = pd.Index(column.levels, dtype=object).get_indexer(cells.astype(object))
    numbers = np.where(numbers < 0, len(column.levels), numbers).astype("float64")
    return np.where(cells.isna(), np.nan, numbers)


def decode(x: Float[Tensor, "N D"], schema: Schema) -> pd.DataFrame:
    """A table of the modeled columns, with their names, types and levels; the inverse of :func:`encode`.

    Counts are rounded to whole numbers, and real numbers to the decimals that the data had.
    """
    units = np.array([[column.center, column.unit] for column in schema.modeled])
    raw = x.double().cpu().numpy() * units[:, 1] + units[:, 0]
    columns = zip(schema.modeled, raw.T, strict=True)
    return pd.DataFrame({column.name: _cells(column, values) for column, values in columns})


def _cells(column: Column, values: np.ndarray) -> pd.Series:
    """Numbers as cells of the column's type."""
    known = ~np.isnan(values)
    if column.levels:
        levels = np.array([*column.levels, None], dtype=object)
        index = np.where(known, values, len(column.levels)).round().astype(int).clip(0, len(column.levels))
        return _as_type(pd.Series(levels[index], dtype=object), column)
    if column.kind == "date":
        days = values if column.decimals is None else values.round(column.decimals)
        nanoseconds = np.where(known, days * _DAY, 0).round().astype("int64")
        return pd.Series(pd.to_datetime(nanoseconds)).where(known)
    if column.log:
        values = np.exp(values)
    if column.kind == "spike" and column.spike is not None:
        values = np.where(np.isinf(values), column.spike, values)
    decimals = 0 if column.kind == "count" else column.decimals
    return _as_type(pd.Series(values if decimals is None else values.round(decimals)), column)


def _as_type(cells: pd.Series, column: Column) -> pd.Series:
    """Cells of pandas' type that the column had, where it can hold the missing ones."""
    if cells.isna().any() and column.dtype.startswith(("int", "uint", "bool")):
        return cells
    return cells.astype(column.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
