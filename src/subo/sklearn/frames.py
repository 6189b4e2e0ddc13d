"""Frames of any library as frames of pandas, and back: pandas itself, polars, and whatever else narwhals knows.

Cells of other libraries pass through NumPy, so that pyarrow is not needed.
"""

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from pandas.api import types

from subo.data.tables.coding import whole_range
from subo.errors import InputError

__all__ = ["as_pandas", "empty", "is_frame", "like", "with_cells"]


def is_frame(X: object) -> bool:
    """Whether X is a frame in memory.

    Raises:
        InputError: It is a query whose rows are not in memory, or two columns have one name.
    """
    if isinstance(X, pd.DataFrame):
        names = X.columns.astype(str)
        if (twice := names.duplicated()).any():
            raise InputError(f"X: two columns have the name {names[twice][0]!r}: rename one")
        return True
    try:
        known = nw.from_native(X, pass_through=True)
    except nw.exceptions.DuplicateError as error:
        raise InputError(f"X: each column needs a name of its own ({error}): rename one") from error
    if isinstance(known, nw.LazyFrame):
        raise InputError(f"X is a lazy frame ({type(X).__name__}), but its rows are needed: pass X.collect()")
    return isinstance(known, nw.DataFrame)


def as_pandas(X: Any) -> pd.DataFrame:
    """The cells of a frame as pandas has them, missing ones included; names are text, and rows are numbered."""
    if not isinstance(X, pd.DataFrame):
        known = nw.from_native(X, eager_only=True)
        X = pd.DataFrame({name: _cells(known[name]) for name in known.columns})
    return X.set_axis([str(name) for name in X.columns], axis=1).reset_index(drop=True)


def _cells(column: nw.Series) -> Any:
    """The cells of a column; NumPy has no time zones, and gives moments in UTC."""
    cells, dtype = column.to_numpy(), column.dtype
    if not isinstance(dtype, nw.Datetime) or dtype.time_zone is None:
        return cells
    return pd.Series(pd.DatetimeIndex(cells, tz="UTC").tz_convert(dtype.time_zone))


def empty(X: Any) -> Any:
    """The frame without its rows: it still has the names and types."""
    return X.iloc[:0] if isinstance(X, pd.DataFrame) else nw.from_native(X, eager_only=True).head(0).to_native()


def like(frame: pd.DataFrame, template: Any) -> Any:
    """A frame of the template's library, whose columns have the types of the template's columns of the same name.

    Args:
        frame: Cells, under names of text.
        template: A frame that has all of these columns, and perhaps more.

    Example:
        >>> like(pd.DataFrame({"age": [31.0]}), pd.DataFrame({"age": [0, 1], "name": ["a", "b"]}))
           age
        0   31
    """
    if isinstance(template, pd.DataFrame):
        names = {str(name): name for name in template.columns}
        typed = {name: _of_type(frame[name], template[names[name]].dtype) for name in frame.columns}
        return pd.DataFrame(typed).rename(columns=names)
    known = nw.from_native(template, eager_only=True)
    columns: dict[str, Any] = {name: _series(frame[name], known[name]) for name in frame.columns}
    return nw.from_dict(columns).to_native()


def with_cells(X: Any, filled: pd.DataFrame, names: Sequence[str]) -> Any:
    """A copy of a frame with other cells in some columns; the types stay where they can hold the new cells.

    Args:
        X: The frame.
        filled: The new cells, under names of text.
        names: The columns to replace.
    """
    if isinstance(X, pd.DataFrame):
        whole = X.copy()
        for number, name in enumerate(map(str, X.columns)):
            if name in names:
                cells: Any = filled[name].set_axis(X.index)
                whole.isetitem(number, cells)
        return whole
    known = nw.from_native(X, eager_only=True)
    return known.with_columns(*(_series(filled[name], known[name]) for name in names)).to_native()


def _of_type(cells: pd.Series, dtype: Any) -> pd.Series:
    """Cells of a type of pandas, if it can hold them: dates become text, but fractions no whole numbers."""
    whole = types.is_integer_dtype(dtype) or types.is_bool_dtype(dtype)
    if whole and types.is_float_dtype(cells) and not bool((cells == cells.round()).all()):
        return cells
    if types.is_datetime64_any_dtype(cells) and types.is_object_dtype(dtype):
        return cells
    try:
        return cells.astype(dtype)
    except (TypeError, ValueError):
        return cells


def _series(cells: pd.Series, like: nw.Series) -> nw.Series:
    """Cells as a column of another library, with the name of the old one, and with its type if it can hold them."""
    dtype: Any = like.dtype
    known = cells.notna()
    if dtype.is_numeric() and bool((pd.to_numeric(cells, errors="coerce").isna() & known).any()):
        dtype = nw.Unknown()  # text in a column without a cell
    if dtype.is_integer():
        dtype, cells = _whole(cells, dtype)
    elif dtype.is_float():
        cells = cells.astype("float64")
    elif dtype.is_decimal():
        cells = cells.astype("float64")
        return nw.new_series(like.name, _plain(cells, known), backend=like.implementation).cast(dtype)
    elif dtype == nw.Date:
        cells = pd.to_datetime(cells).dt.date
    elif dtype == nw.Datetime:
        moments = pd.to_datetime(cells).dt.as_unit("us")
        moments = moments if moments.dt.tz is None else moments.dt.tz_convert("UTC").dt.tz_localize(None)
        naive = nw.new_series(like.name, moments.to_numpy(), backend=like.implementation)
        zone = dtype.time_zone
        return (naive if zone is None else naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)).cast(dtype)
    elif dtype == nw.String and types.is_datetime64_any_dtype(cells):
        cells = cells.astype("str")
    elif dtype == nw.Unknown:
        dtype = None
    return nw.new_series(like.name, _plain(cells, known), dtype, backend=like.implementation)


def _whole(cells: pd.Series, dtype: Any) -> tuple[Any, pd.Series]:
    """Numbers as whole numbers of a type, in its range, unless there are fractions among them."""
    numbers = cells.astype("float64")
    if not bool((numbers.dropna() == numbers.dropna().round()).all()):
        return nw.Float64, numbers
    if (plain := getattr(np, str(dtype).lower(), None)) is not None:
        low, high = whole_range(np.dtype(plain))
        cells = numbers.clip(low, high) if bool(((numbers < low) | (numbers > high)).any()) else cells
    return dtype, cells.astype("Int64")


def _plain(cells: pd.Series, known: pd.Series) -> list[Any]:
    """Cells as Python's own values; None where one is missing."""
    values = cells.astype(object).to_numpy()
    return [value.item() if isinstance(value, np.generic) else value for value in np.where(known, values, None)]
