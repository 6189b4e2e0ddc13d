"""What a column of a table is: inferred from its cells, with the reason, or held to what was asked for."""

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from subo.data.tables.dates import as_texts, dates, looks_like_a_date, order_of, puts_day_first
from subo.data.tables.schema import Kind, as_word, plain
from subo.distributions.negative_binomial import NegativeBinomial
from subo.errors import InputError

__all__ = [
    "CONSTANT",
    "STRANGE",
    "Reading",
    "check_finite",
    "counts_of",
    "distinct",
    "hold_to",
    "is_in_order",
    "kind_of_column",
    "spike_of",
]

CONSTANT, STRANGE = "constant: every observed cell is", "no kind describes cells of the type"

_FEW, _CELLS_OF_EACH = 20, 10  # distinct numbers, up to which they have probabilities, and cells of each if not whole
_MOST_IN_ORDER, _ROWS_IN_ORDER, _NO_TAIL = 60, 4, 1 / 3  # levels, cells of each, the ends' least share in these
_MOST_LEVELS = 1000
_ROWS_PER_LEVEL = 5  # on average, for text to be levels of a category
_SPIKE = 0.2  # share of rows with one value, beside values that vary
_VARIED = 50  # distinct values beside a spike that are enough in a table of any length
_LONG, _DRAWN = 20_000, 1000  # cells
_SKEWED = 1.0
_CELLS = (str, bool, np.bool_, int, float, np.integer, np.floating, Decimal, datetime.date)
_BOOLEANS = ({"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"})


class Reading(NamedTuple):
    """A kind and why."""

    kind: Kind
    why: str


def kind_of_column(cells: pd.Series) -> Reading:
    """The kind of a column, from its cells alone.

    Args:
        cells: The column; missing cells as pandas has them.

    Example:
        >>> kind_of_column(pd.Series(["red", "blue"] * 20))
        Reading(kind='category', why='2 levels of text')
        >>> kind_of_column(pd.Series(range(40))).why
        'every row has a whole number of its own, in order: an identifier'
    """
    known = cells.dropna()
    if len(known) == 0:
        return Reading("drop", "no cell is observed")
    if (strange := _strange(known)) is not None:
        return Reading("drop", f"{STRANGE} {type(strange).__name__}")
    if is_in_order(known) and 1 < known.nunique() <= _MOST_IN_ORDER:
        return Reading("ordinal", f"{known.nunique()} levels, in the order of their type")
    known = _as_numbers(known)
    if _is_continuous(known):
        check_finite(cells)
        return _of_densities(known.astype("float64"))
    counts = counts_of(known)
    if len(counts) == 1:
        return Reading("drop", f"{CONSTANT} {known.iloc[0]}")
    if types.is_bool_dtype(known) or set(map(type, counts.index)) <= {bool, np.bool_}:
        return Reading("boolean", "true and false")
    if types.is_datetime64_any_dtype(known) or (known.dtype == object and types.infer_dtype(known).startswith("date")):
        return Reading("date", "dates")
    if types.is_numeric_dtype(known):
        check_finite(cells)
        return _of_numbers(known.astype("float64"), counts.set_axis(counts.index.astype("float64")))
    return _of_text(counts.set_axis(counts.index.astype(str)))


def is_in_order(cells: pd.Series) -> bool:
    """Whether the cells are levels in an order that their type declares."""
    return isinstance(cells.dtype, pd.CategoricalDtype) and bool(cells.dtype.ordered)


def distinct(cells: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """The position of each cell among the distinct values, -1 for a missing one, and these."""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return cells.cat.codes.to_numpy(), cells.cat.categories
    codes, values = pd.factorize(cells.astype(object) if types.is_string_dtype(cells) else cells)
    return codes, pd.Index(values)


def counts_of(known: pd.Series) -> pd.Series:
    """The number of cells with each value. Kinds follow from the distinct values, which are few in long tables."""
    codes, values = distinct(known)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    return pd.Series(counts[counts > 0], index=values[counts > 0])


def _is_continuous(known: pd.Series) -> bool:
    """Whether numbers are not whole, and none is so frequent that it were a spike: what long columns mostly are.

    A thousand cells drawn at random decide: they hold a value that a fifth of
    all cells have fewer than 100 times once in 10^17 columns. Otherwise, and in short columns, all values are counted.
    """
    if len(known) < _LONG or not types.is_float_dtype(known):
        return False
    drawn = known.to_numpy("float64")[np.random.default_rng(0).integers(len(known), size=_DRAWN)]
    values, counts = np.unique(drawn, return_counts=True)
    return bool((values != values.round()).any() and counts.max() < _SPIKE / 2 * _DRAWN and len(values) > _FEW)


def _strange(known: pd.Series) -> object | None:
    """The first cell that is neither number, text nor date; None where there is none."""
    all_known = (types.is_numeric_dtype, types.is_datetime64_any_dtype, types.is_string_dtype)
    if known.dtype != object and not types.is_complex_dtype(known) and any(holds(known) for holds in all_known):
        return None
    return next((cell for cell in known if not isinstance(cell, _CELLS)), None)


def _as_numbers(known: pd.Series) -> pd.Series:
    """Objects that are numbers, all of them, as pandas has numbers."""
    if known.dtype != object:
        return known
    return known.astype("float64") if types.infer_dtype(known) == "decimal" else known.infer_objects()


def check_finite(cells: pd.Series) -> None:
    """Refuses numbers that are infinite, naming the first; NaN is a missing cell."""
    if not types.is_numeric_dtype(cells) or types.is_integer_dtype(cells) or types.is_bool_dtype(cells):
        return
    if len(bad := np.flatnonzero(np.isinf(cells.astype("float64").to_numpy()))):
        cell = cells.iloc[bad[0]]
        raise InputError(
            f"column {cells.name!r}, row {bad[0] + 1}: {cell} is not a finite number; usually it is of a division by "
            f"0: if the cell is missing, clear it, or name it: `missing={as_word(cell)}`"
        )


def _of_text(counts: pd.Series) -> Reading:
    levels, distinct, cells = counts.index, len(counts), int(counts.sum())
    if distinct == 2 and {level.lower() for level in levels} in _BOOLEANS:
        return Reading("boolean", f"{levels[0]} and {levels[1]}")
    if _are_dates(pd.Series(levels)):
        return Reading("date", f"text in the form of dates{order_of(pd.Series(levels))}")
    if distinct == cells > 1:
        return Reading("drop", "every row has a text of its own: an identifier or free text")
    if distinct > _MOST_LEVELS or cells < _ROWS_PER_LEVEL * distinct:
        return Reading("drop", f"{distinct:,} different texts in {cells:,} cells: too many for a category")
    return Reading("category", f"{distinct} levels of text")


def _are_dates(levels: pd.Series) -> bool:
    """Whether all texts begin as dates do and are read as such."""
    if not all(map(looks_like_a_date, levels.head(100).astype("str"))):
        return False
    return bool(dates(levels, day_first=puts_day_first(levels)).notna().all())


def _of_numbers(known: pd.Series, counts: pd.Series) -> Reading:
    distinct, values = len(counts), counts.index.to_numpy()
    whole = bool((values == values.round()).all())
    if distinct == 2 and set(values) == {0.0, 1.0}:
        return Reading("boolean", "0 and 1")
    if whole and distinct == len(known) > _FEW:
        if known.diff().dropna().nunique() == 1:
            return Reading("drop", "every row has a whole number of its own, in order: an identifier")
        if values.max() - values.min() + 1 == distinct:
            return Reading("drop", "every row has a whole number of its own, none is left out: an identifier")
    if distinct <= _FEW and (whole or len(known) >= _CELLS_OF_EACH * distinct):
        return Reading("ordinal", f"{distinct} different {'whole ' * whole}numbers")
    if whole and _end_suddenly(counts.sort_index()):
        return Reading("ordinal", f"all whole numbers from {values.min():g} to {values.max():g}, the ends no rarer")
    if (spike := spike_of(counts)) is not None:
        return Reading("spike", f"{spike:g} in {counts[spike] / len(known):.0%} of the cells, and other values beside")
    if whole and values.min() >= 0 and _is_count(torch.tensor(values), torch.tensor(counts.to_numpy("float64"))):
        ratio = known.var() / known.mean()
        return Reading("count", f"whole numbers from 0 upwards, whose variance is {ratio:.3g} times their mean")
    return _of_densities(known)


def _end_suddenly(counts: pd.Series) -> bool:
    """Whether whole numbers fill a range up to its ends, as days of a month do: a density would go on beyond these."""
    levels, cells = counts.index.to_numpy(), counts.to_numpy()
    filled = levels[-1] - levels[0] + 1 == len(levels) <= _MOST_IN_ORDER
    enough = cells.mean() >= _ROWS_IN_ORDER
    return bool(filled and enough and min(cells[0], cells[-1]) >= _NO_TAIL * cells.mean())


def spike_of(counts: pd.Series) -> float | None:
    """The value that a fifth of the cells have, or more, beside values that vary; None where there is none."""
    values, numbers = counts.index.to_numpy(), counts.to_numpy()
    most = numbers.argmax()
    share = numbers[most] / numbers.sum()
    varied = len(values) - 1 > max(_FEW, min(_VARIED, 0.1 * (numbers.sum() - numbers[most])))
    return float(values[most]) if share >= _SPIKE and varied else None


def _is_count(x: Tensor, counts: Tensor) -> bool:
    """Whether a negative binomial describes whole numbers better than a rounded normal and a rounded log-normal.

    Each has the moments of the cells, and all three give probabilities to whole numbers, so that their likelihoods can
    be set side by side. A count is of few events: cells far from 0 as against their mean are none.
    """
    mean, variance = _moments(x, counts)
    if x.min() > 0.5 * mean:
        return False
    dispersion = (variance - mean).clamp(min=1e-3 * mean) / mean**2
    as_counts = (counts * NegativeBinomial(mean.log(), dispersion).log_prob(x)).sum()
    lows, highs = x - 0.5, x + 0.5
    center, log_variance = _moments((x + 0.5).log(), counts)
    as_logs = _within((lows + 0.5).log(), (highs + 0.5).log(), center, log_variance.sqrt())  # from -infinity for 0
    as_numbers = _within(lows, highs, mean, variance.sqrt())
    return bool(as_counts > torch.maximum((counts * as_numbers).sum(), (counts * as_logs).sum()))


def _moments(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of values that occur so many times."""
    mean = (counts * x).sum() / counts.sum()
    return mean, (counts * (x - mean) ** 2).sum() / (counts.sum() - 1)


def _within(low: Tensor, high: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """The logarithms of a normal variable's probabilities to lie between each low and high."""
    mass = torch.special.ndtr((high - center) / scale) - torch.special.ndtr((low - center) / scale)
    return mass.clamp(min=1e-300).log()


def _of_densities(known: pd.Series) -> Reading:
    skew = float(known.skew())  # pyright: ignore[reportArgumentType]
    if known.min() > 0 and skew > _SKEWED and abs(float(known.transform(np.log).skew())) < skew / 2:  # pyright: ignore[reportArgumentType]
        return Reading("positive", f"above 0, with a long tail that the logarithm does not have (skewness {skew:.1f})")
    return Reading("real", "numbers")


def hold_to(cells: pd.Series, kind: str) -> Reading:
    """A column as the kind that was asked for.

    Raises:
        InputError: There is no such kind, or a cell cannot be of it; names the first.
    """
    if kind not in get_args(Kind):
        raise InputError(f"column {cells.name!r}: there is no kind {kind!r}; there are {', '.join(get_args(Kind))}")
    known = cells.dropna()
    if kind == "drop":
        return Reading("drop", "as asked for")
    if len(known) == 0:
        raise InputError(f"column {cells.name!r} cannot be of the kind {kind}: no cell is observed")
    rows = np.flatnonzero(cells.notna()) + 1
    if kind in _NEEDS and not (kind == "ordinal" and is_in_order(known)):
        numbers = pd.to_numeric(known, errors="coerce")
        needed, holds = _NEEDS[kind]
        bad = np.flatnonzero(~(numbers.notna() & holds(numbers)))
        if len(bad):
            raise InputError(
                f"column {cells.name!r} cannot be of the kind {kind}, which has {needed}: row {rows[bad[0]]} has "
                f"{plain(known.iloc[bad[0]])!r}{_TEXT_IN_ORDER * (kind == 'ordinal')}"
            )
    if kind == "date" and not types.is_datetime64_any_dtype(known):
        texts = as_texts(known)
        bad = np.flatnonzero(dates(texts, day_first=puts_day_first(texts)).isna())
        if len(bad):
            raise InputError(
                f"column {cells.name!r} cannot be of the kind date: row {rows[bad[0]]} has "
                f"{plain(known.iloc[bad[0]])!r}"
            )
    if kind in ("boolean", "category") and (strange := _strange(known)) is not None:
        raise InputError(f"column {cells.name!r} cannot be of the kind {kind}: {strange!r} is no text, number or date")
    if kind == "boolean" and known.nunique() > 2:
        raise InputError(
            f"column {cells.name!r} cannot be of the kind boolean: it has {known.nunique()} different values"
        )
    if kind == "ordinal" and known.nunique() == 1:
        raise InputError(f"column {cells.name!r} cannot be of the kind ordinal: it has one value only")
    return Reading(kind, "as asked for")  # pyright: ignore[reportArgumentType]


_TEXT_IN_ORDER = (
    ". Text has no order of its own: a schema file can give one, as "
    '{"columns": [{"name": ..., "kind": "ordinal", "levels": ["low", "middle", "high"]}, ...]}'
)
_NEEDS: dict[str, tuple[str, Callable[[pd.Series], pd.Series]]] = {
    "real": ("numbers", lambda x: x.abs() < math.inf),
    "positive": ("numbers above 0", lambda x: (x > 0) & (x < math.inf)),
    "count": ("whole numbers, 0 or more", lambda x: (x >= 0) & (x < math.inf) & (x == x.round())),
    "spike": ("numbers", lambda x: x.abs() < math.inf),
    "ordinal": ("numbers", lambda x: x.abs() < math.inf),
}
