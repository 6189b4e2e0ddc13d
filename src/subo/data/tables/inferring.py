"""The schema of a table: of each column the kind that was asked for, or that its cells suggest, and its numbers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri

from subo.data.spread import center_and_units
from subo.data.tables.coding import raw_numbers
from subo.data.tables.dates import as_texts, every_of, form_of, puts_day_first, read_dates
from subo.data.tables.kinds import CONSTANT, counts_of, hold_to, is_in_order, kind_of_column, spike_of
from subo.data.tables.schema import LEVELED, SCALED, Column, Level, Scaling, Schema, plain
from subo.errors import InputError

__all__ = ["completed", "infer_schema"]

_KNOTS, _CELLS_PER_KNOT = 33, 20
_LOOKED_AT = 1000


def infer_schema(
    frame: pd.DataFrame,
    asked: Mapping[str, str] | None = None,
    *,
    scaling: Scaling = "standard",
    min_level_count: int = 1,
) -> Schema:
    """The schema of a table.

    Args:
        frame: The table.
        asked: Kinds by the names of columns.
        scaling: How columns with a density are scaled.
        min_level_count: Cells that a level of a category has at least; rarer levels are one together.

    Raises:
        InputError: A column that was asked for is not there, its cells cannot be of that kind, or no column is left.

    Example:
        >>> schema = infer_schema(pd.DataFrame({"age": [20.5, 31.0, None] * 9, "city": ["Rome", "Oslo", "Rome"] * 9}))
        >>> [(column.name, column.kind, column.missing) for column in schema.columns]
        [('age', 'real', 9), ('city', 'category', 0)]
    """
    asked = asked or {}
    if len(frame) < 3:
        raise InputError(
            f"at least three rows are needed, and there {'is one row' if len(frame) == 1 else f'are {len(frame)} rows'}"
        )
    if unknown := [name for name in asked if name not in frame.columns]:
        raise InputError(f"there is no column {unknown[0]!r}; the columns are {', '.join(map(str, frame.columns))}")
    columns = (_column(frame[name], asked.get(name)) for name in frame.columns)
    schema = Schema(tuple(_with_pool(column, frame[column.name], min_level_count) for column in columns))
    if not schema.modeled:
        left_out = "; ".join(f"{column.name}: {column.why}" for column in schema.columns)
        raise InputError(f"no column is left to be modeled ({left_out})")
    return Schema(tuple(_in_units(replace(column, scaling=scaling), frame) for column in schema.columns))


def completed(schema: Schema, frame: pd.DataFrame) -> Schema:
    """A schema of names and kinds, as a person writes it, with all that cells say about those columns.

    Levels, units and a spike that it has stay, and so do columns that were made of cells.

    Raises:
        InputError: A cell cannot be of its column's kind.
    """
    return replace(schema, columns=tuple(_completed(column, frame) for column in schema.columns))


def _completed(column: Column, frame: pd.DataFrame) -> Column:
    if column.observed or column.kind == "drop" or column.name not in frame.columns:
        return column
    found = _column(frame[column.name], column.kind)
    given = {
        "why": column.why,
        "scaling": column.scaling,
        "levels": column.levels or found.levels,
        "pooled": column.pooled,
        "log": column.log or (column.kind == "spike" and found.log),
        "every": column.every or found.every,
        "form": column.form or found.form,
    }
    found = replace(found, **given, spike=found.spike if column.spike is None else column.spike)
    if (column.center, column.unit) == (0, 1):
        return _in_units(found, frame)
    return replace(found, center=column.center, unit=column.unit)


def _column(cells: pd.Series, kind: str | None) -> Column:
    """A column without its units."""
    reading = kind_of_column(cells) if kind is None else hold_to(cells, kind)
    known = cells.dropna()
    column = Column(
        str(cells.name), reading.kind, reading.why, int(cells.isna().sum()), len(known), dtype=str(cells.dtype)
    )
    numeric = pd.api.types.is_any_real_numeric_dtype(known) and len(known) > 0
    if reading.why.startswith(CONSTANT):
        whole = numeric and bool((known == known.round()).all())
        return replace(column, levels=_levels(known), decimals=0 if whole else None)
    if numeric or reading.kind in ("real", "positive", "spike"):
        single = str(known.dtype).lower() in ("float32", "float16")
        numbers = pd.to_numeric(known).astype("float64")
        column = replace(column, decimals=_decimals(numbers, single=single), log=reading.kind == "positive")
        if reading.kind == "spike":
            spike = spike_of(counts_of(numbers))
            spike = float(numbers.mode().iloc[0]) if spike is None else spike
            return replace(column, spike=spike, log=bool(numbers[numbers != spike].min() > 0))
    if reading.kind in LEVELED:
        return replace(column, levels=_levels(known))
    if reading.kind == "date":
        values = pd.Series(known.unique())
        values = as_texts(values) if pd.api.types.is_any_real_numeric_dtype(values) else values
        first = puts_day_first(values)
        read = read_dates(values, day_first=first)
        form = form_of(values, day_first=first)
        return replace(column, decimals=None, day_first=first, every=every_of(read), form=form)
    return column


def _with_pool(column: Column, cells: pd.Series, least: int) -> Column:
    """A category whose levels with fewer cells than that are one, the last; a single rare level stays its own."""
    if column.kind != "category" or least <= 1:
        return column
    counts = cells.value_counts()
    rare = tuple(level for level in column.levels if counts[level] < least)
    own = tuple(level for level in column.levels if level not in rare)
    if len(rare) < 2:
        return column
    name = next(name for name in ("other", "other levels", "(other levels)") if name not in own)
    why = f"{column.why}; other: {len(rare)} levels with fewer than {least} cells each"
    return replace(column, levels=(*own, name), pooled=rare, why=why, dtype="object")


def _in_units(column: Column, frame: pd.DataFrame) -> Column:
    """A column with center and unit, whatever a few of its cells are."""
    if column.kind not in SCALED:
        return replace(column, scaling="standard")
    raw = raw_numbers(frame, column)
    known = raw[np.isfinite(raw)]
    if len(known) == 0:
        return column
    center, _, unit = center_and_units(torch.from_numpy(known)[:, None], torch.Size([1]))
    column = replace(column, center=center.item(), unit=unit.item())
    if column.scaling == "standard":
        return column
    knots, scores = _normal_scores((known - column.center) / column.unit)
    return replace(column, knots=knots, scores=scores)


def _normal_scores(numbers: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots halfway between neighboring numbers, and the normal quantiles of the shares below: equally spaced in these.

    None of the numbers is a knot, where the density jumps.
    """
    values, counts = np.unique(numbers, return_counts=True)
    below = counts.cumsum()[:-1] / len(numbers)
    if len(below) < 2:
        return (), ()
    wanted = ndtr(np.linspace(ndtri(below[0]), ndtri(below[-1]), min(_KNOTS, 2 + len(numbers) // _CELLS_PER_KNOT)))
    at = np.unique(np.abs(below[:, None] - wanted).argmin(0))
    return tuple(((values[at] + values[at + 1]) / 2).tolist()), tuple(ndtri(below[at]).tolist())


def _levels(known: pd.Series) -> tuple[Level, ...]:
    """The distinct values in order, as plain values; false comes before true, and no before yes."""
    if is_in_order(known):
        return tuple(plain(level) for level in known.cat.remove_unused_categories().cat.categories)
    values = (plain(value) for value in known.unique())
    levels = (value if isinstance(value, Level) else str(value) for value in values)
    return tuple(sorted(levels, key=lambda value: (isinstance(value, str), value)))


def _decimals(known: pd.Series, *, single: bool) -> int | None:
    """The decimal places that suffice for all numbers, up to 10; of numbers in single precision up to 6."""
    values, digits, most = known.to_numpy(), *((6e-8, 6) if single else (1e-13, 10))
    some = values[:_LOOKED_AT]  # mostly, these need as many
    wanted = (places for places in range(most + 1) if _suffice(places, some, digits))
    return next((places for places in wanted if _suffice(places, values, digits)), None)


def _suffice(places: int, values: np.ndarray, digits: float) -> bool:
    with np.errstate(invalid="ignore"):  # of infinity in a column to be dropped
        return bool((np.abs(values.round(places) - values) <= digits * np.abs(values)).all())
