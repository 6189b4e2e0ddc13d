"""Sequences: as curves if a step has few numbers, as a heat map over time if it has many."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from subo.figures.style import BLUE, CLASS_COLORS, GREY, INK, as_text, legend_below, set_labels

__all__ = ["forecasts", "sequence_panels"]

_CURVES = 6  # numbers per step that are drawn as curves; more make a map
_ROW_HEIGHT, _WIDTH = 1.9, 8.5  # inches
_MISSING = "#f3c9b0"  # of a map, which is white where there is nothing


def sequence_panels(
    rows: Sequence[Mapping[str, Shaped[ndarray, " _ D"]]],
    *,
    title: str,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Sequences, each with others beside it, such as its reconstruction.

    Args:
        rows: For each row of panels, sequences by name, in the order of drawing; the names of the first row are titles.
        title: Title of the figure.
        feature_names: Names of the numbers in a step.
    """
    columns = list(rows[0])
    figure, panels = _grid(len(rows), len(columns), title)
    low, high = _range([sequence for row in rows for sequence in row.values()])
    for i, row in enumerate(rows):
        for axes, (name, sequence) in zip(panels[i], row.items(), strict=True):
            _draw(axes, sequence, low, high, feature_names)
            set_labels(axes, as_text(name) if i == 0 else "", "", "")
    for axes in panels[-1]:
        axes.set_xlabel("time step", fontsize=10, color=INK)
    if rows[0][columns[0]].shape[1] <= _CURVES and feature_names is not None:
        legend_below(figure)
    return figure


def forecasts(
    pasts: Sequence[Shaped[ndarray, " _ D"]],
    means: Shaped[ndarray, "N S D"],
    lower: Shaped[ndarray, "N S D"],
    upper: Shaped[ndarray, "N S D"],
    *,
    coverage: float,
) -> Figure:
    """Sequences and their forecasts: with an interval for each number if there are few, else the mean alone.

    Args:
        pasts: The observed steps.
        means: Means of the steps that follow.
        lower: Lower ends of the intervals.
        upper: Upper ends of the intervals.
        coverage: Share of the draws inside the intervals.
    """
    few = means.shape[2] <= _CURVES
    title = f"What was seen, and the mean of what follows{f' with {coverage:.0%} of the draws' if few else ''}"
    figure, panels = _grid(len(pasts), 1, title)
    low, high = _range([*pasts, lower if few else means, upper if few else means])
    for axes, past, mean, bottom, top in zip(panels[:, 0], pasts, means, lower, upper, strict=True):
        start = len(past)
        if few:
            future = np.arange(start + 1, start + len(mean) + 1)
            for d, color in zip(range(mean.shape[1]), CLASS_COLORS, strict=False):
                axes.plot(np.arange(1, start + 1), past[:, d], color=color, lw=1.2, marker=_marker(past[:, d]), ms=3)
                axes.plot(future, mean[:, d], color=color, lw=1.2, ls="--")
                axes.fill_between(future, bottom[:, d], top[:, d], color=color, alpha=0.2, lw=0)
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            _draw(axes, np.concatenate([past, mean]), low, high, None)
        axes.axvline(start + 0.5, color=INK, lw=1)
        set_labels(axes, "", "", "")
    panels[-1, 0].set_xlabel("time step; the forecast begins at the line", fontsize=10, color=INK)
    return figure


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, ndarray]:
    figure = Figure(figsize=(_WIDTH, 0.5 + _ROW_HEIGHT * rows), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=True)


def _range(sequences: Sequence[ndarray]) -> tuple[float, float]:
    seen = np.concatenate([sequence[~np.isnan(sequence)] for sequence in sequences])  # NaN is a missing value
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    return low, high if high > low else low + 1


def _draw(axes: Axes, sequence: ndarray, low: float, high: float, names: Sequence[str] | None) -> None:
    """Draws curves, or a map that is white where there is nothing; NaN is a missing value."""
    if sequence.shape[1] > _CURVES:
        extent = (0.5, len(sequence) + 0.5, -0.5, sequence.shape[1] - 0.5)
        shades = colormaps["Greys"].with_extremes(bad=_MISSING)
        options: dict[str, Any] = {"aspect": "auto", "origin": "lower", "cmap": shades, "interpolation": "none"}
        axes.imshow(sequence.T, vmin=low, vmax=high, extent=extent, **options)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    colors = [BLUE] if sequence.shape[1] == 1 else CLASS_COLORS
    for d, color in zip(range(sequence.shape[1]), colors, strict=False):
        label = None if names is None else as_text(names[d])
        steps, curve = np.arange(1, len(sequence) + 1), sequence[:, d]
        axes.plot(steps, curve, color=color, lw=1.2, label=label, marker=_marker(curve), ms=3)
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GREY, lw=0.3)


def _marker(curve: ndarray) -> str | None:
    """A dot for each value, if some would be no line: one alone, or between missing ones."""
    return "o" if len(curve) == 1 or bool(np.isnan(curve).any()) else None
