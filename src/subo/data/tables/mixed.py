"""Tables of mixed columns as data: a file or a frame, its schema, and its rows as numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from subo.data.classes import numbered
from subo.data.contents import Contents
from subo.data.splits import Split
from subo.data.tables.coding import encode
from subo.data.tables.given import unlearned
from subo.data.tables.inferring import completed, infer_schema
from subo.data.tables.misreadings import misreadings
from subo.data.tables.options import TableOptions
from subo.data.tables.parsing import AS_TEXT
from subo.data.tables.reading import read_frame
from subo.data.tables.remarks import check_levels, empty, narrow_counts, no_longer_constant, unseen, without_cells
from subo.data.tables.schema import Column, Scaling, Schema
from subo.errors import InputError
from subo.runtime.wording import counted

__all__ = ["contents_of", "read_mixed"]

_LABEL = "label"
_SIZE = "the size of a row"
_LISTED = 5
_LOOKED_AT = 100  # cells
_NONE_LEFT = "no column is left to be modeled"
_MARKS = (" ", ":", "~", "^", ";", ",", "\t", "|")
_MODELS = "`columns=label=category` models it"


def read_mixed(
    path: Path,
    *,
    options: TableOptions,
    schema: Schema | None = None,
    size: str | None = None,
    on_frame: Callable[[pd.DataFrame], object] | None = None,
) -> Contents:
    """Reads a file that holds a table.

    Args:
        path: The file.
        options: How it is read, and kinds of columns that were asked for.
        schema: What the columns are, if a run has decided it; otherwise that is inferred from the cells.
        size: The column of the sizes of rows.
        on_frame: Receives the cells as they came, which otherwise are not kept.

    Raises:
        InputError: The file cannot be read, or does not fit the schema; says where.
    """
    asked = options.schema() if schema is None else schema
    missing, separator, decimal = options.missing, options.separator, options.decimal
    if asked is not None:
        missing = tuple(dict.fromkeys((*asked.missing, *missing)))
        separator, decimal = separator or asked.separator, decimal or asked.decimal
    read = read_frame(path, separator=separator, decimal=decimal, missing=missing)
    try:
        given = options.given if schema is None else None
        how: dict[str, Any] = {"condition": given, "scaling": options.column_scaling, "size": size}
        how |= {"min_level_count": options.min_level_count, "keep": on_frame is not None}
        how |= {"decimal": read.decimal, "fit": schema is None}
        contents = contents_of(read.frame, kinds=options.kinds(), schema=asked, **how)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    assert contents.table is not None
    marks: dict[str, Any] = {"missing": missing, "separator": separator, "decimal": decimal}
    columns = tuple(_as_text(column) if read.of_text else column for column in contents.table.columns)
    table = replace(contents.table, columns=columns, **marks)
    texts = (f"{name} stays text, since {why}" for name, why in read.no_numbers.items())
    gone = () if schema is None else without_cells(contents.parts[0].x, contents.table)
    notes = (*read.notes, *texts, *contents.notes, *gone)
    if on_frame is not None:
        on_frame(read.frame)
    return replace(contents, notes=notes, table=table)


def _as_text(column: Column) -> Column:
    return replace(column, dtype=AS_TEXT) if column.dtype == "category" else column


def contents_of(
    frame: pd.DataFrame,
    *,
    kinds: dict[str, str] | None = None,
    schema: Schema | None = None,
    condition: Sequence[str] | None = None,
    scaling: Scaling = "standard",
    min_level_count: int = 1,
    labeled: bool = True,
    size: str | None = None,
    keep: bool = True,
    decimal: str | None = None,
    fit: bool = False,
) -> Contents:
    """A frame as data.

    Args:
        frame: The table.
        kinds: Kinds of columns that were asked for.
        schema: What the columns are, if it is decided; what it does not say of them is inferred.
        condition: The columns that the model is conditioned on, whose cells are the context ``given``; by default those
            of the schema.
        scaling: How columns with a density are scaled, if no schema decides.
        min_level_count: Cells that a level of a category has at least, if no schema decides.
        labeled: Whether a column whose name is exactly ``label`` holds labels, unless its kind is asked for.
        size: The column of the sizes of rows, which is not modeled; its numbers are the context ``size``.
        keep: Whether the frame keeps its columns; without a schema, one that is coded is dropped from it otherwise, so
            that memory does not hold both.
        decimal: The decimal mark of the text that the frame was read from.
        fit: Whether a schema was written for a fit to come, and is not that of a run. Without a schema it is so.

    Raises:
        InputError: The cells do not fit what was asked for or the schema; names the column and the row.
    """
    if (twice := frame.columns.duplicated()).any():
        raise InputError(f"two columns have the name {frame.columns[twice][0]!r}: rename one")
    known = {*(kinds or {}), *(column.name for column in (() if schema is None else schema.columns))}
    labels = frame[_LABEL] if labeled and _LABEL in frame.columns and _LABEL not in known else None
    cells = frame if labels is None else frame.drop(columns=_LABEL)
    keep = keep or schema is not None or labels is not None  # levels that a schema does not know are named by cells
    if cells.shape[1] == 0:
        raise InputError("there is no column of data beside 'label'")
    fit = fit or schema is None
    decided = {*()} if schema is None else {column.name for column in schema.columns if column.observed}
    if schema is None:
        how: dict[str, Any] = {"scaling": scaling, "min_level_count": min_level_count}
        schema, notes = _inferred(cells, kinds or {}, how, decimal)
    else:
        notes = [*_others(cells, schema, "schema" if fit else "fit"), *no_longer_constant(cells, schema)]
        if fit:
            check_levels(cells, schema)
        schema = completed(schema, cells)
    if size is not None:
        schema = _without(schema, size)
    notes += narrow_counts(cells, [column for column in schema.kept if column.name not in decided])
    if condition is not None:
        if labels is not None and _LABEL in condition:
            raise InputError("the column 'label' holds classes, not cells: give `condition=labels`")
        schema = schema.conditioned_on(condition)
    x = encode(cells, schema, keep=keep)
    notes += [*unseen(cells, x, schema, fit=fit), *empty(x)]
    context = {} if size is None else {"size": _numbers(frame[size])}
    if schema.given.modeled:
        context["given"] = encode(cells, schema.given)
        notes += [*unseen(cells, context["given"], schema.given), *unlearned(context["given"], schema)]
    rows = Split(x, context=context)
    names = tuple(column.name for column in schema.modeled)
    if labels is not None and not fit and (gone := int(labels.isna().sum())):
        notes.append(f"column 'label': {counted(gone, 'cell')} without a class, so that all of them are left out")
        labels = None
    if labels is None:
        return Contents((rows,), names, notes=tuple(notes), table=schema)
    classes, numbers = _labels(labels)
    notes += [f"column 'label' holds classes ({len(classes):,} different) and is not modeled; {_MODELS}"] * fit
    return Contents((replace(rows, labels=numbers),), names, classes, notes=tuple(notes), table=schema)


def _inferred(
    cells: pd.DataFrame, kinds: Mapping[str, str], how: Mapping[str, Any], decimal: str | None
) -> tuple[Schema, list[str]]:
    """The schema that cells suggest, and what is said of those that may mean something else.

    Raises:
        InputError: No column is left, or not of the kind that was asked for; says what cells may mean, too.
    """
    others = cells.drop(columns=[*kinds], errors="ignore")
    try:
        schema = infer_schema(cells, kinds, **how)
    except InputError as error:
        if _NONE_LEFT not in str(error):
            raise
        dropped = Schema(tuple(Column(str(name), "drop") for name in cells.columns))
        why = [*_unseparated(cells), *misreadings(others, dropped, decimal=decimal)]
        raise InputError("; ".join([str(error), *why])) from error
    return schema, misreadings(others, schema, decimal=decimal)


def _unseparated(cells: pd.DataFrame) -> list[str]:
    """What is said of a single column with as many words, or other marks, in each cell as in its name."""
    name = str(cells.columns[0])
    if cells.shape[1] > 1:
        return []
    some = [str(cell) for cell in cells.iloc[:, 0].dropna().head(_LOOKED_AT)]
    words = len(name.split())
    if words > 1 and any("  " in text for text in (name, *some)) and all(len(cell.split()) == words for cell in some):
        return [f"each cell has {words} words, as the name has: if blanks separate cells, write a comma in their place"]
    marks = (mark for mark in _MARKS if name.count(mark) and all(cell.count(mark) == name.count(mark) for cell in some))
    if (mark := next(marks, None)) is None:
        return []
    what = {" ": "blanks", "\t": "tabs"}.get(mark, f"of {mark!r}")
    return [f"each cell has as many {what} as the name: if they separate cells, give `separator={mark}`"]


def _labels(labels: pd.Series) -> tuple[tuple[int | str, ...], torch.Tensor]:
    """The classes of a column of labels, and which each row has."""
    if labels.isna().any():
        row, remedy = int(np.argmax(labels.isna())) + 1, f"or give the column another kind: {_MODELS}"
        raise InputError(f"row {row}, column 'label': the label is missing: drop the row, {remedy}")
    return numbered(_classes(labels))


def _without(schema: Schema, size: str) -> Schema:
    """The schema with a column that is the size of a row, and not modeled."""
    names = [column.name for column in schema.columns]
    if size not in names:
        more = ": name a column, since a total of columns of several kinds means nothing" if size == "observed" else ""
        raise InputError(f"`size_factor`: there is no column {size!r}{more}; the columns are {', '.join(names)}")
    columns = (replace(column, kind="drop", why=_SIZE) if column.name == size else column for column in schema.columns)
    return replace(schema, columns=tuple(columns))


def _numbers(cells: pd.Series) -> torch.Tensor:
    return torch.tensor(pd.to_numeric(cells, errors="coerce").to_numpy("float64", na_value=np.nan))


def _classes(labels: pd.Series) -> list[int | str]:
    """Labels as whole numbers or names."""
    if pd.api.types.is_numeric_dtype(labels) and bool((np.isfinite(labels) & (labels == labels.round())).all()):
        return [int(label) for label in labels]
    return [str(label) for label in labels]


def _others(frame: pd.DataFrame, schema: Schema, of: str) -> list[str]:
    """What is said of columns that the schema does not know, which is that of a fit or a schema for one.

    Raises:
        InputError: Columns of the schema are not there.
    """
    names = [column.name for column in schema.columns]
    others = [str(name) for name in frame.columns if name not in names]
    kept = [*schema.kept, *(column for column in schema.dropped if column.why == _SIZE)]
    missing = [column.name for column in kept if column.name not in frame.columns]
    if missing:
        renamed = f"; {_listed(others)} {_is(others)} not in the {of}, perhaps renamed" if others else ""
        remedy = "Correct the name in the schema, or leave the column out of it"
        if of == "fit":
            remedy = f"Give it the fit's {len(schema.kept)} columns, in any order; one whose cells are all empty is "
            remedy += "integrated out"
        raise InputError(f"{_listed(missing)} of the {of} {_is(missing)} missing{renamed}. {remedy}")
    return [f"{_listed(others)} {_is(others)} left out: not in the {of}"] if others else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:_LISTED]))}{more}"


def _is(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"
