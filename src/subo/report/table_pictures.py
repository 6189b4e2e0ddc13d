"""A run's figures of a table of mixed columns."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from subo import figures
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.data.tables.coding import decode, raw_numbers, unscaled
from subo.data.tables.dates import puts_day_first
from subo.data.tables.kinds import kind_of_column
from subo.data.tables.schema import LEVELED, Column, Schema
from subo.errors import InputError
from subo.evaluation.cells import cell_p_values, cell_scores
from subo.evaluation.own_units import log_slopes
from subo.evaluation.scores import score
from subo.models.folding import draw_data
from subo.runs.run import Run
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = [
    "are_numbers",
    "column_values",
    "draw_columns",
    "draw_pairs",
    "draw_table_figures",
    "repeated_context",
    "sampled_beside",
]

_DRAWN = 2000
_BARS = 12  # levels in order that are drawn one by one
_ODDEST, _SCORED, _SAMPLES = 10, 500, 200  # rows shown, rows among which they are found, samples of z for each


def draw_table_figures(run: Run, model: Any, data: Data, schema: Schema) -> None:
    """The pictures that only tables have: columns, pairs of columns, missing cells, the oddest rows.

    Args:
        run: Run to which the pictures are written.
        model: The fitted model.
        data: Its data; the test data are shown.
        schema: What the columns are.
    """
    drawn = sampled_beside(model, data.test)
    figures.save(draw_columns(data.test, drawn, schema), run.picture("columns.png"))
    if len(schema.modeled) > 1:
        figures.save(draw_pairs(data.train, drawn, schema), run.picture("pairs.png"))
    missing = data.train.x.isnan().numpy()
    if missing.any():
        names = [column.name for column in schema.modeled]
        figures.save(figures.missing_cells(missing, names=names), run.picture("missing.png"))
    figures.save(_draw_oddest(model, data, schema), run.picture("oddest.png"))


def _draw_oddest(model: Any, data: Data, schema: Schema) -> Figure:
    """The test rows of the lowest log p(x) in the columns' own units, and how odd each of their cells is."""
    some = data.test.take(torch.arange(min(len(data.test), _SCORED)))
    log_px, slopes = score(model, some, num_samples=_SAMPLES).log_px, log_slopes(model, some)
    rows = (log_px - slopes.sum(1)).argsort()[:_ODDEST]
    cells = cell_scores(model, some, num_samples=_SAMPLES) - slopes
    oddest = cells[rows]
    oddness = -cell_p_values(oddest, cells, own=rows).log10().where(~oddest.isnan(), torch.nan)
    frame = decode(some.x[rows], schema)
    text = frame.astype(object).where(frame.notna(), "").map(_brief)
    return figures.odd_cells(
        text.to_numpy().tolist(),
        oddness.numpy(),
        names=[*frame.columns],
        rows=[f"row {row}" for row in (rows + 1 if some.rows is None else some.rows[rows]).tolist()],
        log_px=log_px[rows].tolist(),
    )


def _brief(cell: Any) -> str:
    """A cell in few letters."""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell.date()) if isinstance(cell, pd.Timestamp) else str(cell)


def column_values(split: Split, schema: Schema | None, name: str, *, frame: pd.DataFrame | None = None) -> np.ndarray:
    """The cells of one column, to color examples by: numbers, NaN where missing, or the names of levels.

    Args:
        split: The examples.
        schema: What the columns are; None for numbers of one kind.
        name: A column that the model describes or is conditioned on, or any of the frame.
        frame: The cells of all rows as they were read, of which the examples are some.

    Raises:
        InputError: There is no such column, or a cell of the frame is not finite.
    """
    parts: dict[str, tuple[Tensor, Schema]] = {}
    if schema is not None:
        parts = {column.name: (split.x, schema) for column in schema.modeled}
        if "given" in split.context:
            parts |= {column.name: (split.context["given"], schema.given) for column in schema.given.modeled}
    if name not in parts:
        if frame is None or name not in frame.columns:
            there = f"the fit has {', '.join(parts)}" if frame is None else f"there are {', '.join(frame.columns)}"
            raise InputError(f"there is no column {name!r} to color by; {there}")
        values = _values_as_read(frame[name])
        return values if split.rows is None else values[split.rows.numpy() - 1]
    coded, own = parts[name]
    column = next(column for column in own.modeled if column.name == name)
    numbers = _cells(coded, own)[name]
    if not column.levels:
        return numbers
    names = np.array([*map(str, column.levels), "another", "missing"], dtype=object)
    return names[np.where(np.isnan(numbers), len(names) - 1, numbers).astype(int)].astype(str)


def _values_as_read(cells: pd.Series) -> np.ndarray:
    """The cells of a column that no schema describes: numbers, days since 1970, or else text."""
    numeric = pd.api.types.is_any_real_numeric_dtype(cells)
    kind = "real" if numeric else kind_of_column(cells).kind
    if kind in ("boolean", "category", "ordinal", "drop"):
        return cells.astype(object).where(cells.notna(), "missing").map(str).to_numpy(dtype=object)
    first = kind == "date" and puts_day_first(pd.Series(cells.dropna().unique()))
    return raw_numbers(cells.to_frame(), Column(str(cells.name), "date" if kind == "date" else "real", day_first=first))


def sampled_beside(model: object, split: Split) -> Tensor:
    """Samples of a model, with the classes and conditions that there are in some data."""
    known = repeated_context(split, _DRAWN)
    with forked(0):
        return draw_data(model, _DRAWN, known or None, elements=split.num_elements)


def repeated_context(split: Split, num: int) -> Context:
    """The context of the first examples, labels and condition, repeated for a number of samples."""
    _, context = split.read(torch.arange(min(len(split), num)))
    repeated = torch.arange(num) % min(len(split), num)
    return {name: tensor[repeated] for name, tensor in context.items() if name != "index"}


def draw_columns(split: Split, drawn: Tensor, schema: Schema) -> Figure:
    """Test rows beside samples, column by column.

    Args:
        split: The test rows.
        drawn: Samples, coded as the data are.
        schema: What the columns are.
    """
    x, _ = split.read(torch.arange(min(len(split), _DRAWN)))
    cells = _cells(x, schema), _cells(drawn, schema)
    levels = {column.name: column.levels for column in schema.modeled if column.levels}
    for column in schema.modeled:
        named = any(isinstance(level, str) for level in column.levels)
        if column.kind == "ordinal" and len(column.levels) > _BARS and not named:  # rather than the most frequent ones
            numbers = np.array([*levels.pop(column.name), np.nan], dtype=float)  # an unseen one has no place
            for part in cells:
                part[column.name] = numbers[np.nan_to_num(part[column.name], nan=-1).astype(int)]
    dates = [column.name for column in schema.modeled if column.kind == "date"]
    return figures.columns(*cells, levels=levels, dates=dates, of="test rows")


def draw_pairs(split: Split, drawn: Tensor, schema: Schema) -> Figure:
    """How strongly each pair of columns goes together in training rows and in samples.

    Levels in order are numbers here: by many groups of few rows any two columns would seem to go together.

    Args:
        split: The training rows.
        drawn: Samples, coded as the data are.
        schema: What the columns are.
    """
    nominal = [column.name for column in schema.modeled if column.levels and column.kind != "ordinal"]
    x, _ = split.read(torch.arange(min(len(split), _DRAWN)))
    return figures.associations(_cells(x, schema), _cells(drawn, schema), levels=nominal)


def are_numbers(x: Tensor, schema: Schema) -> bool:
    """Whether all cells of some rows are observed numbers, which one picture of a row can show side by side."""
    return bool(x.isfinite().all()) and not any(column.kind in (*LEVELED, "count") for column in schema.modeled)


def _cells(x: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """The cells of each column as numbers: positions of levels, days."""
    cells = {}
    for column, coded in zip(schema.modeled, x.double().numpy().T, strict=True):
        numbers = unscaled(np.where(np.isinf(coded), np.nan, coded), column)
        if column.log:
            numbers = np.exp(numbers)
        if column.spike is not None:
            numbers = np.where(np.isinf(coded), column.spike, numbers)
        cells[column.name] = numbers
    return cells
