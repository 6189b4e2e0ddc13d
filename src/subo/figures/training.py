"""The curves of a training run."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from subo.figures.style import BLUE, GREY, ORANGE, legend_below, set_labels

__all__ = ["Quantity", "training_curves", "training_panel"]

Quantity = Literal["bound", "elbo", "rate", "distortion"]

_MEANINGS = {
    "bound": ("bound", "what training increases"),
    "elbo": ("ELBO", "−(rate + distortion)"),
    "rate": ("rate", "the cost of coding z"),
    "distortion": ("distortion", "the cost of x, given z"),
}


def training_curves(
    epoch: Shaped[ndarray, " E"],
    train: Mapping[str, ndarray],
    validation: Mapping[str, ndarray] | None = None,
    *,
    best_epoch: int | None = None,
) -> Figure:
    """Bound, rate and distortion over the epochs of a run.

    A y-axis spans the values of the last 90% of the epochs, so that huge values at the start don't hide the rest;
    it spans everything if that takes less than twice the space. An axis that cuts something off says so. The axis
    of the rate starts at 0, where the latents carry no information.

    Args:
        epoch: Epoch numbers, ``(E,)``.
        train: ``bound``, ``elbo``, ``rate``, ``distortion``, each ``(E,)`` in nats per example.
        validation: The same for held-out data, NaN where not measured.
        best_epoch: The epoch whose weights were kept.

    Returns:
        Three panels. The first is named ELBO if the bound is the ELBO throughout.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 3), ("bound", "rate", "distortion"), strict=True):
        training_panel(axes, quantity, epoch, train, validation, best_epoch=best_epoch)
    legend_below(figure)
    return figure


def training_panel(
    axes: Axes,
    quantity: Quantity,
    epoch: Shaped[ndarray, " E"],
    train: Mapping[str, ndarray],
    validation: Mapping[str, ndarray] | None = None,
    *,
    best_epoch: int | None = None,
) -> None:
    """One panel of :func:`training_curves`, without a legend.

    Args:
        axes: Axes to draw on.
        quantity: Quantity to draw.
        epoch: As for :func:`training_curves`, like the following arguments.
        train: Curves of the training data.
        validation: Curves of held-out data.
        best_epoch: The epoch whose weights were kept.
    """
    runs = {"train": train} if validation is None else {"train": train, "validation": validation}
    is_elbo = all(np.allclose(run["bound"], run["elbo"], equal_nan=True) for run in runs.values())
    name, meaning = _MEANINGS["elbo" if quantity == "bound" and is_elbo else quantity]
    values = np.stack([run[quantity] for run in runs.values()]).astype(float)
    values[~np.isfinite(values)] = np.nan
    for label, color, curve in zip(runs, (BLUE, ORANGE), values, strict=False):
        measured = ~np.isnan(curve)
        if measured.any():
            x, y, marker = epoch[measured], curve[measured], "o" if measured.sum() <= 10 else None
            axes.plot(x, y, marker=marker, ms=4, lw=1.6, color=color, label=label)
    if best_epoch is not None:
        label = f"best, epoch {best_epoch}"
        axes.axvline(best_epoch, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0, label=label)
    low, high, cut = _late_range(values, zero=quantity == "rate")
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    xlabel = "epoch (the first run off the axis)" if cut else "epoch"
    set_labels(axes, f"{name}: {meaning}", xlabel, f"{name} [nats per example]")


def _late_range(values: ndarray, *, zero: bool) -> tuple[float, float, bool]:
    """Limits of a y-axis for curves ``(R, E)``, and whether they cut something off: see `training_curves`."""
    late = values[:, values.shape[1] // 10 :]
    if np.isnan(late).all():
        return 0.0, 1.0, False
    if zero:  # as if it were among the last epochs' values
        values, late = (np.pad(part, ((0, 1), (0, 0))) for part in (values, late))
    cut = bool(np.nanmax(values) - np.nanmin(values) > 2 * (np.nanmax(late) - np.nanmin(late)))
    cut &= late.shape != values.shape
    low, high = (np.nanmin(late), np.nanmax(late)) if cut else (np.nanmin(values), np.nanmax(values))
    margin = 0.06 * (high - low) or 0.5
    return 0.0 if zero and low == 0 else float(low - margin), float(high + margin), cut
