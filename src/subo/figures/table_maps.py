"""Figures of tables as maps: how columns go together, which cells are missing, which cells are odd."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy import ndarray

from subo.errors import InputError
from subo.figures.style import BLUE, INK, PALE, as_text, set_labels

__all__ = ["association", "associations", "missing_cells", "odd_cells"]

_MOST = 40  # columns
_ROWS = 2_000  # of a map of missing cells
_LETTERS = 18


def association(a: Float[ndarray, " N"], b: Float[ndarray, " N"], *, levels: tuple[bool, bool]) -> float:
    r"""How strongly two columns go together, from 0 to 1, over the rows in which both cells are observed.

    Of two numbers it is the absolute rank correlation (Spearman); of two columns of levels Cramér's
    :math:`V = \sqrt{\chi^2 / (N (\min(R, C) - 1))}`; of a number and levels the correlation ratio of the number's
    ranks, :math:`\eta = \sqrt{SS_{between} / SS_{total}}`.

    Args:
        a: Numbers, or positions of levels; NaN where missing.
        b: The same of the other column.
        levels: Which of the two are levels.

    Returns:
        The association; NaN where one of them does not vary.

    Example:
        >>> round(association(np.arange(5.0), np.arange(5.0) ** 3, levels=(False, False)), 6)
        1.0
    """
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    if not any(levels):
        return float(min(1.0, abs(np.corrcoef(_ranks(a), _ranks(b))[0, 1])))
    if all(levels):
        (_, rows), (_, columns) = (np.unique(cells, return_inverse=True) for cells in (a, b))
        table = np.zeros((rows.max() + 1, columns.max() + 1))
        np.add.at(table, (rows, columns), 1)
        expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
        return float(np.sqrt(((table - expected) ** 2 / expected).sum() / len(a) / (min(table.shape) - 1)))
    number, level = (b, a) if levels[0] else (a, b)
    ranks, (_, group) = _ranks(number), np.unique(level, return_inverse=True)
    means = np.bincount(group, ranks) / np.bincount(group)
    return float(np.sqrt(((means[group] - ranks.mean()) ** 2).sum() / ((ranks - ranks.mean()) ** 2).sum()))


def _ranks(values: ndarray) -> ndarray:
    """Ranks; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def associations(data: Mapping[str, ndarray], samples: Mapping[str, ndarray], *, levels: Sequence[str] = ()) -> Figure:
    """How strongly each pair of columns goes together in the data, in samples, and the difference.

    Args:
        data: The cells of each column by its name, numbers or positions of levels; NaN where missing.
        samples: The same of the samples.
        levels: Names of the columns of levels.

    Returns:
        Three maps of the first 40 columns, see :func:`association`.
    """
    if not data or list(data) != list(samples):
        raise InputError(f"data and samples must have the same columns, got {list(data)} and {list(samples)}")
    names = list(data)[:_MOST]
    maps = [_matrix(part, names, levels) for part in (data, samples)]
    size = float(np.clip(0.24 * len(names) + 1.6, 3.2, 9))
    figure = Figure(figsize=(3 * size, size + 0.6), layout="constrained")
    panels = figure.subplots(1, 3)
    looks = ({"cmap": "Blues", "vmin": 0, "vmax": 1},) * 2 + ({"cmap": "RdBu_r", "vmin": -0.5, "vmax": 0.5},)
    titles = ("Pairs of columns in the data", "in samples", "samples - data")
    away = np.abs((maps[1] - maps[0])[np.triu_indices(len(names), 1)])
    mean = f": {np.nanmean(away):.2f} on average" if np.isfinite(away).any() else ""
    for axes, values, look, title in zip(panels, (*maps, maps[1] - maps[0]), looks, titles, strict=True):
        shown = axes.imshow(values, **look)
        _name_axes(axes, names, title + mean * (title == titles[2]), rows=axes is panels[0])
        bar = figure.colorbar(shown, ax=axes, shrink=0.7, aspect=30)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _matrix(data: Mapping[str, ndarray], names: Sequence[str], levels: Sequence[str]) -> ndarray:
    """The association of each pair; none of a column with itself."""
    matrix = np.full((len(names), len(names)), np.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            kinds = one in levels, other in levels
            matrix[i, j] = matrix[j, i] = association(data[one], data[other], levels=kinds)
    return matrix


def missing_cells(missing: Bool[ndarray, "N D"], *, names: Sequence[str]) -> Figure:
    """Which cells are missing: rows with the same ones lie together, the most frequent pattern on top.

    Args:
        missing: Which cells are missing. Of more than 2,000 rows every n-th is drawn.
        names: Names of the columns.

    Returns:
        A map with the share of missing cells beside each column's name.
    """
    patterns, which, counts = np.unique(missing, axis=0, return_inverse=True, return_counts=True)
    order = np.lexsort((which.ravel(), -counts[which.ravel()]))
    rows = missing[order][:: max(1, -(-len(missing) // _ROWS))]
    width = float(np.clip(0.3 * missing.shape[1] + 2, 4.5, 16))
    figure = Figure(figsize=(width, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(rows, aspect="auto", cmap=ListedColormap([PALE, BLUE]), vmin=0, vmax=1, interpolation="nearest")
    complete = (~missing.any(1)).mean()
    title = (
        f"Missing cells: {missing.mean():.1%} of all, in {len(patterns):,} patterns; {complete:.0%} of rows complete"
    )
    shares = [_with_share(name, share) for name, share in zip(names, missing.mean(0), strict=True)]
    _name_axes(axes, shares, title, rows=False)
    axes.set_ylabel(f"{len(missing):,} rows, by pattern", fontsize=10, color=INK)
    axes.set_yticks([])
    return figure


def _with_share(name: str, share: float) -> str:
    """A column's name and the share of its cells that are missing, if any are."""
    text = as_text(name, limit=_LETTERS)
    return text if share == 0 else f"{text} {f'{share:.0%}' if share >= 0.005 else '<1%'}"


def odd_cells(
    cells: Sequence[Sequence[str]],
    oddness: Float[ndarray, "N D"],
    *,
    names: Sequence[str],
    rows: Sequence[Any],
    log_px: Sequence[float],
) -> Figure:
    """The cells of odd rows, the darker the less probable given the rest of their row.

    Args:
        cells: Text of each cell.
        oddness: ``-log10`` of each cell's p-value; NaN where it is missing.
        names: Names of the columns.
        rows: What each row is called.
        log_px: log p(x) of each row, in nats.

    Returns:
        A table of the first 40 columns.
    """
    shown = range(min(len(names), _MOST))
    width = float(np.clip(0.75 * len(shown) + 2.2, 6, 30))
    figure = Figure(figsize=(width, 0.32 * len(cells) + 2.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(oddness[:, : len(shown)], aspect="auto", cmap="Oranges", vmin=0, vmax=3)
    for i, row in enumerate(cells):
        for j in shown:
            dark = oddness[i, j] > 2
            text = as_text(row[j], limit=10)
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if dark else INK)
    title = "The oddest rows: cells, by how odd each is given the others of its row"
    _name_axes(axes, [names[j] for j in shown], title, rows=False)
    labels = [f"{as_text(name)}: {level:.1f} nats" for name, level in zip(rows, log_px, strict=True)]
    axes.set_yticks(range(len(cells)), labels, fontsize=8)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, aspect=20, ticks=[0, 1, 2, 3])
    bar.ax.set_yticklabels(["p 1", "0.1", "0.01", "0.001"])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _name_axes(axes: Axes, names: Sequence[str], title: str, *, rows: bool) -> None:
    """Names of columns below a map, and with `rows` beside it."""
    set_labels(axes, title, "", "")
    texts = [as_text(name, limit=_LETTERS + 6) for name in names]
    small = 8 if len(names) <= 20 else 6
    axes.set_xticks(range(len(names)), texts, rotation=90, fontsize=small)
    axes.set_yticks(range(len(names)) if rows else [], texts if rows else [], fontsize=small)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
