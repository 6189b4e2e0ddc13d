"""Values of the columns that a model is conditioned on, as a person gives them: read like the cells of a file."""

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd

from subo.data.tables.coding import raw_numbers
from subo.data.tables.reading import MISSING
from subo.data.tables.schema import LEVELED, Column, Schema, plain
from subo.errors import InputError

__all__ = ["given_cells"]

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
    check_names([*values], schema)
    cells = {name: _cell(values[name], column, schema) for name, column in columns.items()}
    return pd.concat([cell.rename(name) for name, cell in cells.items()], axis=1)


def check_names(names: list[str], schema: Schema) -> None:
    """Refuses names other than those of the condition's columns."""
    columns = [column.name for column in schema.given.modeled]
    condition = ", ".join(columns)
    if not columns:
        raise InputError("this model is not conditioned on columns of a table: leave `given` out")
    for name in names:
        if name in (column.name for column in schema.columns) and name not in columns:
            raise InputError(f"`given`: the model describes column {name!r}; it is conditioned on {condition} alone")
        if name not in columns:
            raise InputError(f"`given`: there is no column {name!r}; the model is conditioned on {condition}")
    if left := [name for name in columns if name not in names]:
        raise InputError(
            f"the model is conditioned on {condition}, and `given` leaves out {', '.join(left)}: give every one a "
            f"value, such as {left[0]}={_example(schema, left[0])}, or {left[0]}= where it is missing"
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
    if number == -float("inf"):
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
        decimal=schema.decimal or ".",
        keep_default_na=False,
        dtype=str if as_text else None,
    )[0]


_KINDS = {"date": "a date"}


def _example(schema: Schema, name: str) -> str:
    """A value that the column may have."""
    column = next(column for column in schema.given.modeled if column.name == name)
    if column.levels:
        return str(column.levels[0])
    return "2024-01-31" if column.kind == "date" else "1"
