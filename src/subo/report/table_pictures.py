"""A run's figures of a table of mixed columns."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from subo.data.splits import Split
from subo.data.tables.schema import LEVELED, Schema
from subo.figures.tables import columns
from subo.models.folding import draw_data
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["are_numbers", "draw_columns", "repeated_context", "sampled_beside"]

_DRAWN = 2000


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
    """Data beside samples, column by column.

    Args:
        split: The data.
        drawn: Samples, coded as the data are.
        schema: What the columns are.
    """
    x, _ = split.read(torch.arange(min(len(split), _DRAWN)))
    levels = {column.name: column.levels for column in schema.modeled if column.levels}
    dates = [column.name for column in schema.modeled if column.kind == "date"]
    return columns(_cells(x, schema), _cells(drawn, schema), levels=levels, dates=dates)


def are_numbers(x: Tensor, schema: Schema) -> bool:
    """Whether all cells of some rows are observed numbers, which one picture of a row can show side by side."""
    return bool(x.isfinite().all()) and not any(column.kind in (*LEVELED, "count") for column in schema.modeled)


def _cells(x: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """The cells of each column as numbers: positions of levels, days."""
    cells = {}
    for column, coded in zip(schema.modeled, x.double().numpy().T, strict=True):
        numbers = np.where(np.isinf(coded), np.nan, coded) * column.unit + column.center
        if column.log:
            numbers = np.exp(numbers)
        if column.spike is not None:
            numbers = np.where(np.isinf(coded), column.spike, numbers)
        cells[column.name] = numbers
    return cells
