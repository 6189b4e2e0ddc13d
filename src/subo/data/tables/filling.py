"""Filled tables: the cells of several fillings beside the observed ones, which stay as they came; and gaps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.tables.coding import decode, scaled, unscaled
from subo.data.tables.dates import as_texts, form_of, moments
from subo.data.tables.parsing import Written
from subo.data.tables.schema import LEVELED, Column, Schema
from subo.data.tables.writing import counts_rows, dates_as_text, free_name
from subo.files.tables import is_formula
from subo.runtime.randomness import stream

__all__ = ["filled", "most_likely", "observed_texts", "with_gaps_of"]


def filled(
    frame: pd.DataFrame, tables: Sequence[Float[Tensor, "N D"]], schema: Schema, *, numbered: bool = False
) -> pd.DataFrame:
    """A table with its missing cells taken from others, one below the other.

    Args:
        frame: The table as it came, N rows. Columns that the schema leaves out stay as they are.
        tables: Coded rows without missing cells.
        schema: What the columns are.
        numbered: Whether a first column, ``draw``, numbers the tables from 1. An index that only counts rows goes on.
    """
    parts = []
    for number, table in enumerate(tables, 1):
        part, cells = frame.copy(), decode(table, schema)
        for column in schema.modeled:
            missing = frame[column.name].isna().to_numpy()
            if missing.any():
                part[column.name] = _joined(frame[column.name], cells[column.name], missing, column)
        if numbered:
            count = pd.Series(number, part.index, name=free_name("draw", part))
            part = pd.concat([count, part], axis=1)
        part.attrs = frame.attrs
        parts.append(part)
    return pd.concat(parts, ignore_index=counts_rows(frame))


def observed_texts(written: Written, frame: pd.DataFrame, schema: Schema) -> Written:
    """The text of the cells that filling a table leaves as they are; NaN for the others.

    Words for missing cells in columns that stay as they are stay, too, unless a spreadsheet would run them: ``-``.

    Args:
        written: The cells of the table's file.
        frame: The table as it came.
        schema: What the columns are.
    """
    filled_in = {column.name for column in schema.modeled}
    cells = {}
    for name, texts in written.cells.items():
        kept = frame[name].notna().to_numpy()
        cells[name] = texts.where(kept if name in filled_in else kept | ~texts.map(is_formula).to_numpy(dtype=bool))
    return replace(written, cells=pd.DataFrame(cells))


def _joined(cells: pd.Series, others: pd.Series, missing: np.ndarray, column: Column) -> pd.Series:
    """Cells, and where they are missing the others; of the cells' type, if it can hold the others."""
    if missing.all():
        return others.set_axis(cells.index)
    if pd.api.types.is_datetime64_any_dtype(others):
        others = _like(others, cells, column)
    values = cells.astype(object).to_numpy(copy=True)
    values[missing] = others.astype(object).to_numpy()[missing]
    joined = pd.Series(values, index=cells.index, dtype=object)
    if isinstance(cells.dtype, pd.CategoricalDtype):
        new = [value for value in joined.unique() if value not in cells.cat.categories]
        return joined.astype(cells.cat.add_categories(new).dtype)
    try:
        return joined.astype(cells.dtype)
    except (TypeError, ValueError):  # 0.5 among whole numbers
        return joined.infer_objects()


def _like(days: pd.Series, cells: pd.Series, column: Column) -> pd.Series:
    """Dates of the type of others; text in their form, if they have one."""
    if pd.api.types.is_datetime64_any_dtype(cells):
        zoned, zone = pd.to_datetime(days, utc=True), moments(cells).dt.tz
        return zoned.dt.tz_localize(None) if zone is None else zoned.dt.tz_convert(zone)
    if (objects := pd.api.types.infer_dtype(cells)) in ("date", "datetime"):
        return days.dt.date if objects == "date" else days
    form = form_of(as_texts(pd.Series(cells.dropna().unique())), day_first=column.day_first)
    texts = dates_as_text(days, form)
    return pd.to_numeric(texts) if form and pd.api.types.is_any_real_numeric_dtype(cells) else texts


def most_likely(draws: Float[Tensor, "M N D"], schema: Schema) -> Float[Tensor, "N D"]:
    """The best guess of each cell: the mean of a number's draws in its own units, the median or most frequent level.

    Of ordered levels the median has the smallest mean distance, of others the most frequent is the least often wrong.
    A cell with a spike is at the spike where at least half of its draws are, else at the mean of the others.
    """
    guesses = []
    for number, column in enumerate(schema.modeled):
        x = draws[:, :, number].double()
        if column.kind == "ordinal":
            guess = x.median(0).values
        elif column.kind in LEVELED:
            guess = torch.mode(x, 0).values
        else:
            spikes = x.isinf()
            beside = torch.from_numpy(unscaled(x.where(~spikes, 0).cpu().numpy(), column))
            cells = beside.exp() if column.log else beside
            mean = cells.where(~spikes, 0).sum(0) / (~spikes).sum(0).clamp(min=1)
            raw = mean.clamp(min=1e-300).log() if column.log else mean
            coded = torch.from_numpy(scaled(raw.numpy(), column))
            guess = torch.where(spikes.double().mean(0) >= 0.5, torch.inf, coded)
        guesses.append(guess)
    return torch.stack(guesses, 1).float()


def with_gaps_of(x: Float[Tensor, "N D"], rows: Float[Tensor, "M D"], *, seed: int) -> Float[Tensor, "N D"]:
    """Rows without the cells that others lack: each takes its gaps from one of them, at random and whatever it holds.

    Args:
        x: Coded rows.
        rows: Coded rows with missing cells.
        seed: Seed for the choice.
    """
    chosen = torch.randint(len(rows), (len(x),), generator=stream("gaps", seed))
    return x.masked_fill(rows[chosen].isnan(), torch.nan)
