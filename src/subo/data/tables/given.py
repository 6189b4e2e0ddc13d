"""Values of the columns that a model is conditioned on, as a person gives them: read like the cells of a file."""

import io
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from subo.data.tables.coding import decode, raw_numbers
from subo.data.tables.reading import MISSING
from subo.data.tables.schema import LEVELED, Column, Schema, plain
from subo.errors import InputError

__all__ = ["check_cells", "given_cells", "unlearned", "with_given"]

_LISTED = 10  # levels


def given_cells(values: Mapping[str, Any], schema: Schema) -> pd.DataFrame:
    """One row of the condition's cells, which :func:`subo.data.tables.coding.encode` codes by ``schema.given``.

    Args:
        values: The value of each column of the condition. Text is read like a cell of a file: as a number, a date or a
            level, and empty text is a missing cell; so is None.
        schema: What the columns of the table are.

    Raises:
        InputError: A column is no part of the condition, one is left out, or a value is not of its kind.

    Example:
        >>> levels = Column("city", "category", levels=("Oslo", "Rome"), given=True)
        >>> schema = Schema((levels, Column("age", "real"), Column("floor", "count", given=True)))
        >>> given_cells({"floor": "3", "city": ""}, schema)
           city  floor
        0   NaN      3
    """
    columns = {column.name: column for column in schema.given.modeled}
    _check_names([*values], schema)
    for name, value in values.items():
        if not (value is None or pd.api.types.is_scalar(value)):
            raise InputError(f"`given`: {name} needs one value, not {type(value).__name__}: several come in a frame")
    cells = {name: _cell(values[name], column, schema) for name, column in columns.items()}
    return pd.concat([cell.rename(name) for name, cell in cells.items()], axis=1)


def check_cells(cells: pd.DataFrame, schema: Schema) -> None:
    """Refuses cells of the condition that are not of their column's kind, or a level that the fit has never seen.

    Args:
        cells: A frame with the columns of the condition.
        schema: What the columns of the table are.
    """
    for column in schema.given.modeled:
        for value in cells[column.name].dropna().unique():
            _cell(value, column, schema)


def unlearned(given: Float[Tensor, "N C"], schema: Schema) -> list[str]:
    """What is said of missing cells of the condition in columns that had none in the fit.

    Args:
        given: The coded cells of the condition.
        schema: What the columns of the table were in the fit.
    """
    notes = []
    for column, cells in zip(schema.given.modeled, given.T, strict=True):
        if column.missing == 0 and bool(cells.isnan().any()):
            notes.append(
                f"Careful: column {column.name!r} of the condition had no missing cell in the fit: what the "
                "model makes of a missing one is not learned"
            )
    return notes


def with_given(
    x: Float[Tensor, "N D"], schema: Schema, cells: pd.DataFrame, given: Float[Tensor, "N C"]
) -> pd.DataFrame:
    """Drawn rows with the cells that they were given: numbers as they were given, not rounded as the data were.

    Args:
        x: Coded rows.
        schema: What the columns are.
        cells: The cells that were given, one row for all or one for each.
        given: The same, coded.
    """
    frame = decode(x, schema, given)
    exact = [column.name for column in schema.given.modeled if not column.levels and column.kind != "date"]
    for name in exact:
        frame[name] = cells[name].iloc[0] if len(cells) == 1 else cells[name].to_numpy()
    return frame


def _check_names(names: list[str], schema: Schema) -> None:
    """Refuses names other than those of the condition's columns."""
    columns = [column.name for column in schema.given.modeled]
    condition = ", ".join(columns)
    if not columns:
        raise InputError("this model is not conditioned on columns of a table: leave `given` out")
    others = {column.name: "describes" if column.is_modeled else "describes no" for column in schema.columns}
    for name in names:
        if name not in others:
            raise InputError(f"`given`: there is no column {name!r}; the model is conditioned on {condition}")
        if name not in columns:
            raise InputError(
                f"`given`: the model {others[name]} column {name!r}, and it is conditioned on {condition} alone"
            )
    if left := [name for name in columns if name not in names]:
        example = ",".join(f"{column.name}={_example(column)}" for column in schema.given.modeled)
        raise InputError(
            f"the model is conditioned on {condition}, and `given` leaves out {', '.join(left)}: give each a value, "
            f"such as {example}, or nothing after = where it is missing"
        )


def _cell(value: Any, column: Column, schema: Schema) -> pd.Series:
    """A cell as a file has it, checked."""
    text = isinstance(value, str)
    cell = (
        _read(value.strip(), column, schema)
        if text
        else pd.Series([value], dtype=None if value is not None else object)
    )
    if cell.isna()[0]:
        return cell
    frame, refused = pd.DataFrame({column.name: cell}), f"`given`: {column.name} cannot be {plain(value)!r}"
    try:
        number = raw_numbers(frame, column)[0]
    except InputError as error:
        raise InputError(f"{refused}, which is not {_KINDS.get(column.kind, 'a number')}") from error
    if column.kind in LEVELED and number == len(column.levels):
        more = f" and {len(column.levels) - _LISTED} more" if len(column.levels) > _LISTED else ""
        raise InputError(f"{refused}: its levels are {', '.join(map(str, column.levels[:_LISTED]))}{more}")
    if number == -math.inf:
        raise InputError(f"{refused}: it has only numbers above 0")
    if column.kind == "count" and (number < 0 or number != round(number)):
        raise InputError(f"{refused}: it counts, 0, 1, 2, ...")
    return cell


def _read(text: str, column: Column, schema: Schema) -> pd.Series:
    """The cell that pandas makes of a text in a file; numbers stay text in a column of text."""
    quoted = '"{}"'.format(text.replace('"', '""'))
    as_text = column.kind == "date" or any(isinstance(level, str) for level in column.levels)
    words = [*MISSING, *schema.missing]
    if text in words:
        return pd.Series([None], dtype=object)
    return pd.read_csv(
        io.StringIO(quoted),
        header=None,
        decimal=schema.decimal or ("," if "," in text and "." not in text else "."),
        keep_default_na=False,
        dtype=str if as_text else None,
    )[0]


_KINDS = {"date": "a date"}


def _example(column: Column) -> str:
    """A value that the column may have."""
    if column.levels:
        return str(column.levels[0])
    return "2024-01-31" if column.kind == "date" else f"{math.exp(column.center) if column.log else column.center:.3g}"
