"""What is said of the columns of a table once it is known what each is."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from subo.data.tables.coding import level_numbers
from subo.data.tables.schema import LEVELED, Column, Schema, plain
from subo.errors import InputError
from subo.runtime.wording import counted

__all__ = ["check_levels", "empty", "narrow_counts", "no_longer_constant", "unseen", "without_cells"]

_LISTED = 5
_BY_CHANCE = 0.01  # the least probability that no cell of a column is observed, for it to need no word
_CLEAR = 3  # standard errors of a Poisson's variance


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


def check_levels(frame: pd.DataFrame, schema: Schema) -> None:
    """Refuses a column of which no cell is one of the levels that a schema gives it."""
    for column in schema.kept:
        if column.kind not in LEVELED or not column.levels or column.name not in frame.columns:
            continue
        numbers = level_numbers(frame[column.name], column)
        known = ~np.isnan(numbers)
        if known.any() and not (numbers[known] < len(column.levels)).any():
            row, cells = int(np.argmax(known)), counted(int(known.sum()), "cell")
            levels = ", ".join(map(repr, column.levels[:_LISTED])) + ", ..." * (len(column.levels) > _LISTED)
            raise InputError(
                f"column {column.name!r}: none of its {cells} is one of the levels that the schema gives it, {levels}: "
                f"row {row + 1} has {plain(frame[column.name].iloc[row])!r}. Correct the levels, or leave them out of "
                "the schema, so that they are those of the cells"
            )


def unseen(frame: pd.DataFrame, x: torch.Tensor, schema: Schema, *, fit: bool = False) -> list[str]:
    """What is said of levels that the schema does not know, which is that of a run or one for a fit to come."""
    what = "is none of the schema's levels" if fit else "the fit has never seen"
    notes = []
    for number, column in enumerate(schema.modeled):
        new = (x[:, number] == len(column.levels)) if column.kind in LEVELED else torch.zeros(0, dtype=torch.bool)
        if bool(new.any()):
            values = map(plain, frame[column.name][new.numpy()].unique()[:_LISTED])
            count = int(new.sum())
            notes.append(
                f"column {column.name!r}: {counted(count, 'cell')} hold{'s' * (count == 1)} what {what} "
                f"({', '.join(map(repr, values))})"
            )
    return notes


def without_cells(x: torch.Tensor, schema: Schema) -> list[str]:
    """What is said of columns without any cell, where the fit's had so many that this is no accident."""
    empty = x.isnan().all(0).tolist()
    names = [
        repr(column.name)
        for column, none in zip(schema.modeled, empty, strict=True)
        if none and (column.missing / max(column.missing + column.observed, 1)) ** len(x) < _BY_CHANCE
    ]
    if not names:
        return []
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    listed = f"{', '.join(names[:_LISTED])}{more}"
    return [f"no cell of column{'s' * (len(names) > 1)} {listed} is observed, of which the fit had cells"]


def empty(x: torch.Tensor) -> list[str]:
    """What is said of rows without any cell."""
    some = x[:, 0].isnan().nonzero()[:, 0]
    empty = (some[x[some].isnan().all(1)] + 1).tolist()
    if not empty:
        return []
    more = f" and {len(empty) - _LISTED:,} more" if len(empty) > _LISTED else ""
    return [f"no cell of row{'s' * (len(empty) > 1)} {', '.join(map(str, empty[:_LISTED]))}{more} is observed"]
