"""Tables back to files, with the columns, their order and the forms of their cells that the data had."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subo.data.tables.dates import in_form
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.files.tables import write_table
from subo.files.whole import replacing

__all__ = ["INDEX", "WRITTEN", "counts_rows", "dates_as_text", "save_frame"]

WRITTEN = (".csv", ".tsv", ".parquet", ".feather")
"""Endings of tables that are written."""

INDEX = "index"
"""The attribute of a frame that names the columns which were its index."""


def save_frame(path: str | Path, frame: pd.DataFrame, schema: Schema) -> None:
    """Writes a table, whole or not at all.

    In text, whole numbers have no decimal point where the data had none, dates have the form that they had, missing
    cells are empty, and text that a spreadsheet would run as a formula is quoted. The row index of a frame that was
    read from a `.parquet` is the index there again; elsewhere one without a name is a column, `index`.

    Args:
        path: `.csv`, `.tsv`, `.parquet` or `.feather`.
        frame: The table.
        schema: What its columns are.

    Raises:
        InputError: The ending is unknown, or the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        index = [name for name in frame.attrs.get(INDEX, ()) if name in frame.columns]
        frame = frame.set_index(index) if index else frame
    elif not counts_rows(frame):
        frame = frame.reset_index()
    if ending in (".csv", ".tsv"):
        whole = {column.name for column in schema.columns if column.decimals == 0 or column.kind == "count"}
        forms = {column.name: column.form for column in schema.columns if column.form}
        write_table(path, [str(name) for name in frame.columns], _lines(frame, whole, forms), tabs=ending == ".tsv")
        return
    if ending not in WRITTEN:
        raise InputError(
            f"{path}: a table is written as {', '.join(WRITTEN)}, not as {path.suffix or 'a file without ending'!r}"
        )
    with replacing(path) as unfinished:
        frame.attrs = {}  # pandas would write them into the file
        try:
            (frame.to_parquet if ending == ".parquet" else frame.to_feather)(unfinished)
        except ImportError as error:
            raise InputError(f"{path}: {ending} files are written by pyarrow: pip install 'subo[parquet]'") from error
        except (TypeError, ValueError) as error:  # text and numbers in one column
            raise InputError(f"{path} cannot hold the table ({str(error).splitlines()[0]}): write a .csv") from error


def counts_rows(frame: pd.DataFrame) -> bool:
    """Whether the index of a frame says nothing of its rows but which of them is which."""
    return frame.index.equals(pd.RangeIndex(len(frame)))


def dates_as_text(days: pd.Series, form: str) -> pd.Series:
    """Dates in a form of :func:`subo.data.tables.dates.in_form`; without one as ISO 8601 has them.

    The time is left out, then, where it is midnight in all. Dates without a zone are in UTC.

    Example:
        >>> dates_as_text(pd.Series(pd.to_datetime(["2020-04-03"])), "%d.%m.%Y").tolist()
        ['03.04.2020']
    """
    if not form:
        known = days.dropna()
        form = "%Y-%m-%d" if bool((known == known.dt.normalize()).all()) else "%Y-%m-%dT%H:%M:%S"
    elif "%z" in form.lower() and days.dt.tz is None:
        days = days.dt.tz_localize("UTC")
    return in_form(days, form)


def _lines(frame: pd.DataFrame, whole: set[str], forms: dict[str, str]) -> Iterator[list[Any]]:
    """Rows as cells of text."""
    columns = [_texts(frame.iloc[:, number], whole, forms) for number in range(frame.shape[1])]
    return map(list, zip(*columns, strict=True))


def _texts(cells: pd.Series, whole: set[str], forms: dict[str, str]) -> list[Any]:
    """The cells of a column as they are written; None where one is missing."""
    if pd.api.types.is_datetime64_any_dtype(cells):
        texts = dates_as_text(cells, forms.get(str(cells.name), ""))
        return texts.astype(object).where(cells.notna(), None).tolist()
    values = cells.astype(object).where(cells.notna(), None).tolist()
    if cells.name in whole:
        return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return [np.float64(value).item() if isinstance(value, np.floating) else value for value in values]
