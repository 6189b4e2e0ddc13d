"""Where the loss is: gaps as stacked bars, and surprisal and error over training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy import ndarray

from subo.figures.style import BLUE, GREY, INK, ORANGE, PALE, as_text, legend_below, legend_of, panel_of, set_labels
from subo.runtime.digits import in_digits

__all__ = ["gap_bars", "gap_curves", "gaps_per_datum"]

_NAMES = ("approximation gap: the family", "amortization gap: the encoder")
_COLORS = (BLUE, ORANGE)


def gap_bars(
    labels: Sequence[str],
    log_px: Float[ndarray, " M"],
    approximation: Float[ndarray, "2 M"],
    amortization: Float[ndarray, "2 M"],
    *,
    left_out: int = 0,
) -> Figure:
    """One stacked bar per model, from its -log p(x) up to its -ELBO.

    Args:
        labels: Names of the models, or of data sets.
        log_px: Means of log p(x), in nats per example.
        approximation: Means and standard errors of the approximation gap. One below 0 hangs below the line, and the
            rest is stacked on its lower end: the top is always -ELBO.
        amortization: Means and standard errors of the amortization gap.
        left_out: Number of examples excluded from the means because their numbers are not finite.

    Returns:
        One panel. Models share a baseline, since their -log p(x), which is written under each, may be far apart.
    """
    figure = Figure(figsize=(max(5.4, 1.6 + 2.1 * len(labels)), 4.6), layout="constrained")
    axes, places = figure.subplots(), np.arange(len(labels))
    _stacked(axes, approximation[0], amortization[0], width=0.5)
    ends = np.cumsum([approximation[0], amortization[0]], axis=0)
    for end, (means, errors), lowest in zip(ends, (approximation, amortization), (True, False), strict=True):
        axes.errorbar(places + 0.17, end, errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=3, zorder=5)
        # the lowest bar may be too flat for a number at its middle to clear the axis
        heights = np.minimum(end, 0) if lowest else end - means / 2
        for x, y, mean, error in zip(places + 0.29, heights, means, errors, strict=True):
            text = "\n± ".join(in_digits(mean, error)).replace("-", "−")
            axes.text(x, y, text, va="bottom" if lowest else "center", fontsize=9, color=INK)
    for x, end, error, value in zip(places, ends[1], amortization[1], log_px, strict=True):
        place = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"−ELBO = {_number(end - value)}", (x, max(end, 0) + error), **place, fontsize=9, color=INK)
    axes.set_xticks(
        places,
        [f"{as_text(name, limit=24)}\n−log p(x) = {_number(-v)}" for name, v in zip(labels, log_px, strict=True)],
    )
    axes.set_xlim(-0.45, len(labels) - 0.35)
    axes.margins(y=0.12)
    set_labels(
        axes,
        "Gap between the ELBO and log p(x)" + _without(left_out, "examples"),
        "",
        "above −log p(x) [nats per example]",
    )
    axes.tick_params(axis="x", length=0)
    legend_below(figure)
    return figure


def gaps_per_datum(
    approximation: Float[ndarray, " B"], amortization: Float[ndarray, " B"], *, panel: Axes | None = None
) -> Figure:
    """Both gaps of each example, sorted by their sum.

    Args:
        approximation: Approximation gaps in nats; examples with a gap that is not finite are left out and counted.
        amortization: Amortization gaps in nats.
        panel: Axes to draw on; in a new figure by default.
    """
    figure, axes = panel_of(panel, figsize=(7, 3.8))
    finite = np.isfinite(approximation) & np.isfinite(amortization)
    approximation, amortization = approximation[finite], amortization[finite]
    order = np.argsort(approximation + amortization, kind="stable")
    first, second = approximation[order], amortization[order]
    _stacked(axes, first, second, width=1.0)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_xticks([])
    xlabel = f"{len(order)} examples, sorted by inference gap{_without(int((~finite).sum()), 'examples')}"
    set_labels(axes, "Where the loss is, example by example", xlabel, "gap [nats]")
    legend_of(figure, panel)
    return figure


def gap_curves(step: Shaped[ndarray, " S"], surprisal: Float[ndarray, "2 S"], error: Float[ndarray, "2 S"]) -> Figure:
    """SUBO = surprisal + error over training, and the error by itself.

    Args:
        step: Step numbers, ascending; their axis is logarithmic.
        surprisal: ``-log p(x)`` in nats per example, and its standard error.
        error: ``log p(x) - ELBO``, and its standard error.

    Points that are not finite are left out and counted in the title.

    Returns:
        Two panels: both terms, stacked, on an axis that does not start at 0; and the error, on one that does.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    both, alone = figure.subplots(1, 2)
    finite = np.isfinite(surprisal[0]) & np.isfinite(error[0])
    step, surprisal, error = step[finite], surprisal[:, finite], error[:, finite]
    subo = surprisal[0] + error[0]
    low, high = float(surprisal[0].min()), float(subo.max())
    floor = max(0.0, low - 0.35 * (high - low)) if low > 0 else low - 0.35 * (high - low)
    both.fill_between(step, floor, surprisal[0], color=PALE, lw=0, label="surprisal, −log p(x)")
    both.fill_between(step, surprisal[0], subo, color=ORANGE, alpha=0.55, lw=0, label="error, log p(x) − ELBO")
    both.plot(step, subo, color=INK, lw=1.6, marker="o", ms=3.5, label="SUBO = −ELBO, their sum")
    both.set_ylim(floor, high + 0.06 * (high - low))
    set_labels(
        both,
        "What training reduces" + _without(int((~finite).sum()), "points"),
        "step",
        "nats per example (axis cut below)",
    )
    alone.errorbar(step, error[0], error[1], color=ORANGE, lw=1.6, marker="o", ms=3.5, capsize=3, elinewidth=1)
    set_labels(alone, "The error term alone", "step", "log p(x) − ELBO [nats per example]")
    alone.set_ylim(min(0.0, float((error[0] - error[1]).min())), None)
    for axes in (both, alone):
        _over_steps(axes, step)
    legend_below(figure)
    return figure


def _stacked(axes: Axes, first: ndarray, second: ndarray, *, width: float) -> None:
    """Two bars each, the second from the end of the first; a bar that goes down is drawn over the one it covers."""
    places = np.arange(len(first))
    for values, bottom, color, name in zip((first, second), (0 * first, first), _COLORS, _NAMES, strict=True):
        for bar, value in zip(axes.bar(places, values, width, bottom, color=color, label=name), values, strict=True):
            bar.set_zorder(3 if value < 0 else 2)
    axes.axhline(0, color=GREY, lw=0.9, zorder=4)


def _without(count: int, what: str) -> str:
    return f"\n({count:,} {what} left out: not finite)" if count else ""


def _number(value: float | np.floating) -> str:
    return f"{value:.2f}".replace("-", "−")


def _over_steps(axes: Axes, step: ndarray) -> None:
    """A logarithmic axis with labels at some of the steps themselves."""
    axes.set_xscale("log")
    shown: list[int] = []
    for number in map(int, step[::-1]):  # the last is always labeled; others where there is room
        if not shown or number * 1.9 < shown[-1]:
            shown.append(number)
    axes.set_xticks(shown, [f"{number:,}" for number in shown], fontsize=9)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
