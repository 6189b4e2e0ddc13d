"""Is q the posterior? Rank histograms, which would then be flat."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, Shaped
from matplotlib.figure import Figure
from numpy import ndarray

from subo.figures.style import BLUE, INK, ORANGE, PALE, as_text, set_labels, set_title

__all__ = ["rank_histograms"]

MAX_PANELS = 16
MAX_HEIGHT = 3.0  # of the axes, relative to a bin of uniform ranks: nearly flat histograms must stay visible
BAND = 0.99


def rank_histograms(
    counts: Integer[ndarray, "Q bins"],
    names: Sequence[str],
    readings: Sequence[str],
    p_values: Shaped[ndarray, " Q"],
    *,
    num_ranks: int,
) -> Figure:
    """Rank histograms of simulation-based calibration: uncalibrated ones in orange, the worst first.

    Args:
        counts: Number of ranks in each bin, one row per quantity.
        names: Names of the quantities.
        readings: Meaning of each histogram: ``calibrated`` or what is wrong.
        p_values: p-values of uniformity; above 16 quantities, those with the smallest are shown.
        num_ranks: L, where ranks are 0 .. L.

    Returns:
        One panel per quantity, with the band that holds 99% of a bin's counts under uniform ranks. The count of
        the tallest bar is written beside it where it leaves the panel.
    """
    wrong = np.array([reading != "calibrated" for reading in readings])
    order = np.lexsort((p_values, ~wrong))[:MAX_PANELS]
    num_bins, num_data = counts.shape[1], int(counts[0].sum())
    columns = min(4, len(order))
    rows = math.ceil(len(order) / columns)
    figure = Figure(figsize=(1.2 + 2.7 * columns, 1.6 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    low, high = _band(num_data, 1 / num_bins)
    expected = num_data / num_bins
    top = min(1.08 * max(high, counts[order].max()), MAX_HEIGHT * expected)
    edges = np.linspace(-0.5, num_ranks + 0.5, num_bins + 1)
    for axes, index in zip(panels, order, strict=False):
        color = ORANGE if wrong[index] else BLUE
        axes.axhspan(low, high, color=PALE, lw=0, zorder=0)
        axes.bar(edges[:-1], counts[index], np.diff(edges), align="edge", color=color, alpha=0.55, lw=0)
        axes.stairs(counts[index], edges, color=color, lw=1.2)
        axes.axhline(expected, color=INK, lw=0.9, ls=(0, (4, 3)))
        set_labels(axes, "", "", "")
        set_title(axes, f"{as_text(names[index])}: {readings[index]}", size=9)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, top), xticks=[0, num_ranks // 2, num_ranks])
        tallest = int(counts[index].argmax())
        if counts[index, tallest] > top:
            inward, side = (tallest + 1, "left") if 2 * tallest < num_bins else (tallest, "right")
            text = f" {counts[index, tallest]:,} "
            axes.text(edges[inward], 0.98 * top, text, ha=side, va="top", fontsize=8, color=INK)
    for axes in panels[len(order) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(order) - columns) : len(order)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    shown = f", the {len(order)} worst of {len(names)}" if len(names) > len(order) else ""
    title = f"Ranks of the latents that generated {num_data:,} examples among {num_ranks} samples of q{shown}"
    title += f"\nGrey: {BAND:.0%} range of a bin's count under uniform ranks"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    figure.supxlabel("rank (right: the latent lies above q's samples)", fontsize=10, color=INK)
    figure.supylabel("examples per bin", fontsize=10, color=INK)
    return figure


def _band(num_data: int, share: float) -> tuple[int, int]:
    """The quantiles of a binomial count that enclose 99% of its mass."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num_data + 1)))])
    k = np.arange(num_data + 1)
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    cumulative = np.cumsum(np.exp(log_choose + k * math.log(share) + (num_data - k) * math.log1p(-share)))
    low, high = np.searchsorted(cumulative, [(1 - BAND) / 2, (1 + BAND) / 2])
    return int(low), int(high)
