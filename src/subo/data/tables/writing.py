"""Tables back to files, with the columns, their order and the forms of their cells that the data had."""

import re
from collections.abc import Iterator
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subo.data.tables.dates import in_form, moments
from subo.data.tables.parsing import Written
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.files.tables import write_table
from subo.files.whole import replacing

__all__ = ["INDEX", "WRITTEN", "counts_rows", "dates_as_text", "free_name", "save_frame"]

WRITTEN = (".csv", ".tsv", ".parquet", ".feather")
"""Endings of tables that are written."""

INDEX = "index"
"""The attribute of a frame that names the columns which were its index."""


def save_frame(path: str | Path, frame: pd.DataFrame, schema: Schema, *, written: Written | None = None) -> int:
    """Writes a table, whole or not at all.

    In text, whole numbers have no decimal point where the data had none, dates have the form that they had, missing
    cells are empty, and text that a spreadsheet would run as a formula is quoted. The row index of a frame that was
    read from a `.parquet` is the index there again; elsewhere one without a name is a column, `index`.

    Args:
        path: `.csv`, `.tsv`, `.parquet` or `.feather`.
        frame: The table.
        schema: What its columns are.
        written: Text that cells of the frame have already, which keep it, and what stands between cells; NaN for cells
            without any. It is that of each of several tables that follow each other. Other formats have no use for it.

    Returns:
        How many cells got an apostrophe, so that no spreadsheet runs them.

    Raises:
        InputError: The ending is unknown, or the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        index = [name for name in frame.attrs.get(INDEX, ()) if name in frame.columns]
        frame = frame.set_index(index) if index else frame
    elif not counts_rows(frame):
        names = [free_name("index" if name is None else str(name), frame) for name in frame.index.names]
        frame = frame.reset_index(names=names)
    if ending in (".csv", ".tsv"):
        whole = {column.name for column in schema.columns if column.decimals == 0 or column.kind == "count"}
        forms = {column.name: column.form for column in schema.columns if column.form}
        lines = _lines(frame, whole, forms, written)
        mark, decimal = (",", ".") if written is None else (written.separator, written.decimal)
        mark = "\t" if ending == ".tsv" else mark
        return write_table(path, [*map(str, frame.columns)], lines, separator=mark, decimal=decimal)
    if ending not in WRITTEN:
        raise InputError(
            f"{path}: a table is written as {', '.join(WRITTEN)}, not as {path.suffix or 'a file without ending'!r}"
        )
    frame = frame.copy(deep=False)
    frame.attrs = {}  # pandas would write them into the file
    with replacing(path) as unfinished:
        try:
            (frame.to_parquet if ending == ".parquet" else frame.to_feather)(unfinished)
        except ImportError as error:
            raise InputError(f"{path}: {ending} files are written by pyarrow: pip install 'subo[parquet]'") from error
        except (TypeError, ValueError) as error:  # text and numbers in one column
            raise InputError(f"{path} cannot hold the table ({str(error).splitlines()[0]}): write a .csv") from error
    return 0


def counts_rows(frame: pd.DataFrame) -> bool:
    """Whether the index of a frame says nothing of its rows but which of them is which."""
    return frame.index.equals(pd.RangeIndex(len(frame)))


def free_name(name: str, frame: pd.DataFrame) -> str:
    """A name for another column, with a number behind it if the frame has one of that name."""
    taken = {*map(str, frame.columns)}
    return next(free for free in chain([name], (f"{name}_{number}" for number in count(1))) if free not in taken)


def dates_as_text(days: pd.Series, form: str) -> pd.Series:
    """Dates in a form of :func:`subo.data.tables.dates.in_form`; without one as ISO 8601 has them.

    The time is left out, then, where it is midnight in all. Dates without a zone are in UTC.

    Example:
        >>> dates_as_text(pd.Series(pd.to_datetime(["2020-04-03"])), "%d.%m.%Y").tolist()
        ['03.04.2020']
    """
    if not form:
        form = _iso_form(moments(days.dropna()))
    elif "%z" in form.lower() and days.dt.tz is None:
        days = days.dt.tz_localize("UTC")
    return in_form(days, form)


def _iso_form(days: pd.Series) -> str:
    """The shortest form of ISO 8601 that leaves nothing out."""
    zone = "" if days.dt.tz is None else "%z"
    if not zone and bool((days == days.dt.normalize()).all()):
        return "%Y-%m-%d"
    microseconds = days.dt.microsecond
    fractions = "" if not microseconds.any() else ".%f" if (microseconds % 1000).any() else ".%3f"
    return f"%Y-%m-%dT%H:%M:%S{fractions}{zone}"


def _lines(frame: pd.DataFrame, whole: set[str], forms: dict[str, str], written: Written | None) -> Iterator[list[Any]]:
    """Rows as cells of text."""
    columns = [_texts(frame.iloc[:, number], whole, forms) for number in range(frame.shape[1])]
    if written is not None:
        texts = {name: written.cells[name].tolist() for name in written.cells}
        names = map(str, frame.columns)
        columns = [_beside(texts.get(name), cells, written.decimal) for name, cells in zip(names, columns, strict=True)]
    return map(list, zip(*columns, strict=True))


def _beside(texts: list[Any] | None, cells: list[Any], decimal: str) -> list[Any]:
    """Cells that keep the text that they have; others take that of an equal one, such as TRUE, or its form."""
    texts = texts or [None]
    known = {cell: text for text, cell in zip(texts, cells, strict=False) if isinstance(text, str)}
    places = _places({text for text in texts if isinstance(text, str) and text}, decimal)

    def written(cell: Any) -> Any:
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            return cell
        return (repr(cell) if places is None else f"{cell:.{places}f}").replace(".", decimal)

    return [
        text if isinstance(text, str) else known[cell] if cell in known else written(cell)
        for text, cell in zip(cycle(texts), cells, strict=False)  # tables follow each other
    ]


def _places(texts: set[str], decimal: str) -> int | None:
    """The number of digits after the decimal mark that all numbers have; None where they differ."""
    form, found = re.compile(rf"[+-]?\d+(?:{re.escape(decimal)}(\d*))?"), set[int]()
    for text in texts:
        if (number := form.fullmatch(text)) is None:
            return None
        found.add(len(number[1] or ""))
    return found.pop() if len(found) == 1 else None


def _texts(cells: pd.Series, whole: set[str], forms: dict[str, str]) -> list[Any]:
    """The cells of a column as they are written; None where one is missing."""
    if pd.api.types.is_datetime64_any_dtype(cells):
        texts = dates_as_text(cells, forms.get(str(cells.name), ""))
        return texts.astype(object).where(cells.notna(), None).tolist()
    values = cells.astype(object).where(cells.notna(), None).tolist()
    if cells.name in whole:
        return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return [np.float64(value).item() if isinstance(value, np.floating) else value for value in values]
