"""Figures of tables: data beside samples, column by column."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from subo.errors import InputError
from subo.figures.style import BLUE, GREY, as_text, legend_below, set_labels

__all__ = ["columns"]

_PANELS, _ACROSS, _BARS, _BINS = 36, 4, 12, 30


def columns(
    data: Mapping[str, ndarray],
    samples: Mapping[str, ndarray],
    *,
    levels: Mapping[str, Sequence[Any]] | None = None,
    dates: Sequence[str] = (),
    of: str = "data",
) -> Figure:
    """Each column of a table in the data and in samples: histograms of numbers, bars of levels.

    Args:
        data: The cells of each column by its name, numbers or positions of levels; NaN where missing.
        samples: The same of the samples.
        levels: The levels of the columns that have some, in order.
        dates: Names of columns whose numbers are days since 1970.
        of: What the data are, for the legend.

    Returns:
        A panel per column, for the first 36.
    """
    if not data or list(data) != list(samples):
        raise InputError(f"data and samples must have the same columns, got {list(data)} and {list(samples)}")
    names, levels = list(data)[:_PANELS], levels or {}
    across = min(_ACROSS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(3.2 * across, 2.2 * down + 0.4), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for name, axes in zip(names, panels, strict=False):
        known = [cells[~np.isnan(cells)] for cells in (data[name], samples[name])]
        missing = np.isnan(data[name]).mean()
        set_labels(axes, as_text(name, limit=28) + (f" ({missing:.0%} missing)" if missing >= 0.005 else ""), "", "")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        if name in levels:
            _bars(axes, known[0], known[1], [as_text(level, limit=16) for level in levels[name]], of)
        elif len(known[0]):
            _histograms(axes, known[0], known[1], of, is_date=name in dates)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    legend_below(figure)
    return figure


def _histograms(axes: Axes, data: ndarray, samples: ndarray, of: str, *, is_date: bool) -> None:
    """Two histograms with the same bins, which cover all but the farthest percent of the data at either end."""
    low, high = np.quantile(data, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    whole = bool((data == data.round()).all()) and high - low < _BINS
    edges = np.arange(math.floor(low) - 0.5, math.ceil(high) + 1) if whole else np.linspace(low, high, _BINS + 1)
    for cells, look in ((data, {"color": GREY, "fill": True}), (samples, {"color": BLUE, "linewidth": 1.5})):
        heights = np.histogram(cells, edges)[0] / max(1, len(cells))
        label = of if cells is data else "samples"
        axes.stairs(heights, edges, label=label, **look)
    axes.locator_params(axis="x", nbins=5)  # long numbers would run into each other
    if is_date:
        days = np.linspace(low, high, 3).round()
        axes.set_xticks(days, [str(day) for day in days.astype("datetime64[D]")])


def _bars(axes: Axes, data: ndarray, samples: ndarray, levels: Sequence[str], of: str) -> None:
    """The share of each level in the data and in the samples; of many, the most frequent in the data."""
    shares = [np.array([(cells == level).mean() if len(cells) else 0.0 for level in range(len(levels))])
              for cells in (data, samples)]  # fmt: skip
    shown = np.arange(len(levels)) if len(levels) <= _BARS else np.sort(np.argsort(-shares[0])[:_BARS])
    places = np.arange(len(shown))
    axes.bar(places, shares[0][shown], width=0.8, color=GREY, label=of)
    axes.bar(places, shares[1][shown], width=0.8, fill=False, edgecolor=BLUE, linewidth=1.5, label="samples")
    long = max(len(levels[level]) for level in shown.tolist()) * len(shown) > 24
    axes.set_xticks(places, [levels[level] for level in shown.tolist()], rotation=90 if long else 0, fontsize=7)
