"""Cells as the numbers that a model sees, and numbers as cells: one column of float32 per column, NaN where missing.

============== ================================================ ==================================
kind           number                                           log |d number / d cell|
============== ================================================ ==================================
real           ``(x - center) / unit``                          ``-log unit``
positive       ``(log x - center) / unit``                      ``-log unit - log x``
date           days since 1970, as real                         ``-log unit``, per day
spike          infinity at the spike, else as real              ``-log unit``; 0 at the spike
count          itself
boolean ...    the number of the level, from 0; ``unseen`` last
============== ================================================ ==================================

The right column is what turns a density of the numbers into one of the cells: ``log p(cell) = log p(number) +
log |d number / d cell|``. Center and unit are those of the training rows, whatever a few of their values are.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.spread import center_and_units
from subo.data.tables.kinds import dates
from subo.data.tables.schema import Column, Schema
from subo.errors import InputError

__all__ = ["Coding", "fit_coding"]

_DAY = 86_400e9  # nanoseconds
_SCALED = ("real", "positive", "date", "spike")


@dataclass(frozen=True, eq=False)
class Coding:
    """How the modeled columns of a schema become numbers.

    Attributes:
        schema: The columns.
        center: ``(D,)``, in float64; 0 of columns that are not scaled.
        unit: ``(D,)``, in float64; 1 of columns that are not scaled.
    """

    schema: Schema
    center: np.ndarray
    unit: np.ndarray

    def encode(self, frame: pd.DataFrame) -> Float[Tensor, "N D"]:
        """The numbers of a table with the schema's columns, in any order; others are not looked at.

        Raises:
            InputError: A column is not there, or a cell cannot be of its kind; names the row.
        """
        raw = raw_numbers(frame, self.schema)
        return torch.from_numpy(((raw - self.center) / self.unit).astype(np.float32))

    def decode(self, x: Float[Tensor, "N D"]) -> pd.DataFrame:
        """A table of the modeled columns, with their names, types and levels; the inverse of :meth:`encode`."""
        raw = x.double().cpu().numpy() * self.unit + self.center
        columns = zip(self.schema.modeled, raw.T, strict=True)
        return pd.DataFrame({column.name: _cells(column, values) for column, values in columns})

    def log_jacobian(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """``log |d number / d cell|`` of each number; 0 where the cell is missing or has a probability."""
        center, unit = (torch.as_tensor(values).to(x) for values in (self.center, self.unit))
        scaled = torch.tensor([column.kind in _SCALED for column in self.schema.modeled], device=x.device)
        positive = torch.tensor([column.kind == "positive" for column in self.schema.modeled], device=x.device)
        logs = torch.where(positive, center + unit * x, 0)
        return torch.where(scaled & x.isfinite(), -unit.log() - logs, 0)


def fit_coding(schema: Schema, frame: pd.DataFrame) -> Coding:
    """The coding by center and unit of some rows, those of training.

    Args:
        schema: The columns.
        frame: The rows.
    """
    raw = raw_numbers(frame, schema)
    center, unit = np.zeros(raw.shape[1]), np.ones(raw.shape[1])
    for number, column in enumerate(schema.modeled):
        known = raw[np.isfinite(raw[:, number]), number]
        if column.kind in _SCALED and len(known):
            middle, spread, _ = center_and_units(torch.from_numpy(known)[:, None], torch.Size([1]))
            center[number], unit[number] = middle.item(), spread.item()
    return Coding(schema, center, unit)


def raw_numbers(frame: pd.DataFrame, schema: Schema) -> np.ndarray:
    """``(N, D)`` in float64, before center and unit; NaN where a cell is missing, infinity at a spike."""
    missing = [column.name for column in schema.modeled if column.name not in frame.columns]
    if missing:
        raise InputError(
            f"the table has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(str, frame.columns))}"
        )
    return np.stack([_numbers(frame[column.name], column) for column in schema.modeled], axis=1)


def _numbers(cells: pd.Series, column: Column) -> np.ndarray:
    """A column's cells as numbers."""
    if column.kind in ("boolean", "category", "ordinal"):
        return _level_numbers(cells, column)
    if column.kind == "date":
        read = cells if pd.api.types.is_datetime64_any_dtype(cells) else dates(cells.astype("str").where(cells.notna()))
        if read.dt.tz is not None:
            read = read.dt.tz_convert("UTC").dt.tz_localize(None)
        days = read.astype("datetime64[ns]").astype("int64").to_numpy() / _DAY
        return np.where(read.isna(), np.nan, days)
    values = pd.to_numeric(cells, errors="coerce").astype("float64").to_numpy()
    if len(bad := np.flatnonzero(np.isnan(values) & cells.notna().to_numpy())):
        raise InputError(f"column {column.name!r}, row {bad[0] + 1}: {cells.iloc[bad[0]]!r} is not a number")
    if column.kind == "positive":
        with np.errstate(divide="ignore", invalid="ignore"):  # what is not above 0 has no density: -infinity, or NaN
            return np.where(values > 0, np.log(values), np.where(np.isnan(values), np.nan, -np.inf))
    return np.where(values == column.spike, np.inf, values) if column.kind == "spike" else values


def _level_numbers(cells: pd.Series, column: Column) -> np.ndarray:
    """The position of each cell among the levels; one more than the last for a level that was not seen."""
    numbers = pd.Index(column.levels, dtype=object).get_indexer(cells.astype(object))
    numbers = np.where(numbers < 0, len(column.levels), numbers).astype("float64")
    return np.where(cells.isna(), np.nan, numbers)


def _cells(column: Column, values: np.ndarray) -> pd.Series:
    """Numbers as cells of the column's type."""
    known = ~np.isnan(values)
    if column.levels:
        levels = np.array([*column.levels, None], dtype=object)
        index = np.where(known, values, len(column.levels)).astype(int).clip(0, len(column.levels))
        return _as_type(pd.Series(levels[index], dtype=object), column)
    if column.kind == "date":
        nanoseconds = np.where(known, values * _DAY, 0).round().astype("int64")
        return pd.Series(pd.to_datetime(nanoseconds)).where(known)
    if column.kind == "positive":
        values = np.exp(values)
    if column.kind == "spike" and column.spike is not None:
        values = np.where(np.isinf(values), column.spike, values)
    rounded = values if column.decimals is None else values.round(column.decimals)
    return _as_type(pd.Series(rounded), column)


def _as_type(cells: pd.Series, column: Column) -> pd.Series:
    """Cells of pandas' type that the column had, where it can hold the missing ones."""
    if cells.isna().any() and column.dtype.startswith(("int", "uint", "bool")):
        return cells
    return cells.astype(column.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
