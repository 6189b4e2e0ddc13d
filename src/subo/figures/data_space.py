"""Figures in data space: reconstructions, samples, and the decoded latent plane."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy import ndarray

from subo.errors import InputError
from subo.figures.style import BLUE, GREY, INK, ORANGE, PALE, as_text, legend_below, panel_of, set_labels, set_title

__all__ = ["decoder_grid", "reconstruction_panel", "reconstructions", "samples", "tile"]

MAX_LISTED = 20
"""Vectors of at most this many features are drawn feature by feature, longer ones as curves."""

Units = tuple[Shaped[ndarray, " D"], Shaped[ndarray, " D"]]
"""Mean and standard deviation of each feature; the second is positive."""


def reconstructions(
    originals: Shaped[ndarray, " N *event"],
    means: Shaped[ndarray, " N *event"],
    *,
    feature_names: Sequence[str] | None = None,
    units: Units | None = None,
) -> Figure:
    """Data, and the means of p(x|z) at z from their posterior.

    Args:
        originals: Data, ``(N, *event)``; the first 24 images or 8 vectors are drawn.
        means: Their reconstructions, ``(N, *event)``.
        feature_names: Names of a vector's features, written where there are 20 or fewer.
        units: Mean and standard deviation of each feature of a vector, used as units of the plot; by default
            values are drawn unchanged.

    Returns:
        Images: a row of originals above a row of reconstructions, once or twice. Vectors: one panel per example.
    """
    title = "Data, and the means of their reconstructions"
    if as_pictures(originals) is None:
        return _compare_vectors(
            title, as_rows(originals, units), as_rows(means, units), feature_names, units is not None
        )
    count = min(len(originals), 24)
    bands = 1 if count <= 12 else 2
    columns = math.ceil(count / bands)
    pictures = []
    for start in range(0, count, columns):
        band = slice(start, min(start + columns, count))
        blank = np.ones((columns - (band.stop - start), *originals.shape[1:]))  # completes the last band
        pictures.append(tile(np.concatenate([originals[band], blank, means[band]]), columns=columns))
    height, width = pictures[0].shape[:2]
    band_height = 0.8 * columns * height / width + 0.2  # an image is 0.8 inches wide
    figure = Figure(figsize=(max(1.3 + 0.8 * columns, 5), 0.4 + bands * band_height), layout="constrained")
    for axes, picture in zip(figure.subplots(bands, 1, squeeze=False)[:, 0], pictures, strict=True):
        _show_pair(axes, picture)
    set_title(figure.axes[0], title)
    return figure


def reconstruction_panel(
    axes: Axes,
    originals: Shaped[ndarray, " N *event"],
    means: Shaped[ndarray, " N *event"],
    *,
    feature_names: Sequence[str] | None = None,
    units: Units | None = None,
) -> None:
    """What fits into one panel of :func:`reconstructions`: a row of up to 12 images, or the first vector.

    Args:
        axes: Axes to draw on.
        originals: Data, ``(N, *event)``.
        means: Their reconstructions, ``(N, *event)``.
        feature_names: Names of a vector's features, written where there are 20 or fewer.
        units: Mean and standard deviation of each feature of a vector, as for :func:`reconstructions`.
    """
    if as_pictures(originals) is None:
        _label_features(axes, means[0].size, feature_names, units is not None)
        _draw_pair(axes, as_rows(originals[:1], units)[0], as_rows(means[:1], units)[0])
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        set_title(axes, "The first example and its reconstruction")
        return
    count = min(len(originals), 12)
    _show_pair(axes, tile(np.concatenate([originals[:count], means[:count]]), columns=count))
    set_title(axes, "Data, and the means of their reconstructions")


def _show_pair(axes: Axes, picture: ndarray) -> None:
    """Two rows of images: originals above reconstructions."""
    _show(axes, picture)
    height = picture.shape[0]
    axes.set_yticks([height / 4 - 0.5, 3 * height / 4 - 0.5], labels=["original", "reconstruction"])
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)


def _compare_vectors(
    title: str, originals: ndarray, means: ndarray, names: Sequence[str] | None, standard: bool
) -> Figure:
    figure, panels = _panels(title, min(len(originals), 8), means.shape[1], names, standard)
    for index, (axes, x, mean) in enumerate(zip(panels, originals, means, strict=False)):
        _draw_pair(axes, x, mean)
        set_title(axes, f"example {index}", size=9)
    legend_below(figure)
    return figure


def _draw_pair(axes: Axes, x: ndarray, mean: ndarray) -> None:
    """A vector and its reconstruction."""
    feature = np.arange(len(x))
    if len(feature) <= MAX_LISTED:
        axes.hlines(feature, x, mean, color=PALE, lw=2.5, zorder=1)
        axes.plot(x, feature, "o", ms=4.5, color=INK, label="original")
        axes.plot(mean, feature, "o", ms=6, mfc="none", mew=1.4, color=ORANGE, label="reconstruction")
    else:
        axes.plot(feature, x, color=GREY, lw=1.1, label="original")
        axes.plot(feature, mean, color=ORANGE, lw=1.3, label="reconstruction")


def samples(
    means: Shaped[ndarray, " N *event"],
    *,
    feature_names: Sequence[str] | None = None,
    units: Units | None = None,
    drawn: bool = False,
    classes: Sequence[str] | None = None,
    panel: Axes | None = None,
) -> Figure:
    """What the model thinks data look like: means of p(x|z) at draws of z from the prior, or draws of x there.

    Args:
        means: Decoded draws, ``(N, *event)``; the first 100 are drawn.
        feature_names: Names of a vector's features, written where there are 20 or fewer.
        units: Mean and standard deviation of each feature of a vector, as for :func:`reconstructions`.
        drawn: Whether these are draws of x and not means of p(x|z); the title says which.
        classes: Names of classes with equally many samples each, one class after the other.
        panel: Axes to draw on; in a new figure by default.

    Returns:
        Images: a square of them, or one row per class. Vectors of 20 features or fewer: one line per sample, in one
        panel. Longer ones: one panel for each of the first 12, before the others in grey; all in a panel that is given.
        Vectors of two: points in the plane.
    """
    title = "Draws of x from the model" if drawn else "Samples from the prior, as means of p(x|z)"
    means = means[:100]
    if as_pictures(means) is not None:
        columns = math.ceil(math.sqrt(len(means))) if classes is None else max(1, len(means) // len(classes))
        picture = tile(means, columns=columns)
        width = min(columns, 6)  # inches
        height = 0.4 + width * picture.shape[0] / picture.shape[1]
        figure, axes = panel_of(panel, figsize=(max(width, 4), height))
        _show(axes, picture)
        if classes is not None:
            middles = (np.arange(len(classes)) + 0.5) * (picture.shape[0] + 1) / len(classes) - 1
            axes.set_yticks(middles, labels=[as_text(name, limit=20) for name in classes])
            axes.tick_params(length=0, labelsize=9, labelcolor=INK)
        set_title(axes, title)
        return figure
    means, standard = as_rows(means, units), units is not None
    size = means.shape[1]
    if size == 2:
        return _points(title, means, feature_names, standard, panel)
    if panel is None and size > MAX_LISTED:
        return _one_before_all(title, means, feature_names, standard)
    if panel is None:
        figure, (axes,) = _panels(title, 1, size, feature_names, standard)
    else:
        figure, axes = panel_of(panel)
        _label_features(axes, size, feature_names, standard)
        set_title(axes, title)
    feature = np.arange(size)
    marker, alpha = "o" if size == 1 else None, max(0.25, len(means) ** -0.3)
    for sample in means:
        places = (sample, feature) if size <= MAX_LISTED else (feature, sample)
        axes.plot(*places, marker=marker, ms=4, lw=0.8, color=BLUE, alpha=alpha)
    return figure


def _points(title: str, points: ndarray, names: Sequence[str] | None, standard: bool, panel: Axes | None) -> Figure:
    """Samples of two numbers, each a point."""
    figure, axes = panel_of(panel, figsize=(5, 4.6))
    axes.scatter(*points.T, s=14, color=BLUE, alpha=max(0.35, len(points) ** -0.3), lw=0)
    unit = ", standard deviations" if standard else ""
    set_labels(axes, title, *(f"{as_text(name)}{unit}" for name in names or ("feature 1", "feature 2")))
    return figure


def _one_before_all(title: str, curves: ndarray, names: Sequence[str] | None, standard: bool) -> Figure:
    """One panel for each of the first 12 curves, before all the others in grey."""
    feature = np.arange(curves.shape[1])
    figure, panels = _panels(title, min(len(curves), 12), len(feature), names, standard)
    everything = [np.column_stack([feature, curve]) for curve in curves]
    for axes, curve in zip(panels, curves, strict=False):
        axes.add_collection(LineCollection(everything, colors=PALE, linewidths=0.4, zorder=0))
        axes.plot(feature, curve, color=BLUE, lw=1.3)
    return figure


def decoder_grid(
    means: Shaped[ndarray, "..."],
    *,
    limit: float = 3.0,
    units: Units | None = None,
    name: str = "",
    panel: Axes | None = None,
) -> Figure:
    """What the decoder makes of every point in a plane of z.

    Args:
        means: Means of p(x|z) over an equally spaced grid, ``(G, G, *event)`` or ``(G * G, *event)``:
            ``means[i, j]`` belongs to ``z2 = grid[i]`` and ``z1 = grid[j]``, where ``grid`` is
            ``linspace(-limit, limit, G)``. Two equal leading axes are taken to be the grid's.
        limit: The grid's last value, in units of z.
        units: Mean and standard deviation of each feature of a vector, as for :func:`reconstructions`.
        name: Subject for the title, such as a class.
        panel: Axes to draw on; in a new figure by default.

    Returns:
        Images: side by side, z2 upwards. Vectors: a small curve over the features at every point, all on one
        scale.
    """
    if means.ndim < 3 or means.shape[0] != means.shape[1]:
        side = math.isqrt(len(means))
        if side * side != len(means):
            raise InputError(f"{len(means)} means do not fill a square: expected G * G, one per grid point.")
        means = means.reshape(side, side, *means.shape[1:])
    side = len(means)
    cells = means.reshape(side * side, *means.shape[2:])
    step = 2 * limit / max(side - 1, 1)
    edge = limit + step / 2
    title = "Means of p(x|z) over the latent plane" + (name and f": {as_text(name)}")
    figure, axes = panel_of(panel, figsize=(7, 7))
    pictures = as_pictures(cells)
    if pictures is not None:
        height, width = pictures.shape[1:3]
        upward = cells.reshape(means.shape)[::-1].reshape(cells.shape)  # the first row of tiles is the last z2
        _show(axes, tile(upward, columns=side))
        # Each image is centered on its z; the gap to the next one is a pixel, which the last one lacks.
        right, top = (limit + step / 2 * size / (size + 1) for size in (width, height))
        axes.images[0].set_extent((-right, right, -top, top))
        axes.set_aspect((height + 1) / (width + 1))
    else:
        curves = as_rows(cells, units)
        low, high = curves.min(), curves.max()
        scale = f"{low:.3g} to {high:.3g}".replace("-", "−") + (" standard deviations" if units is not None else "")
        title += f"\nEach curve runs over {curves.shape[1]} features; all to one scale, {scale}"
        z2, z1 = (np.indices((side, side)).reshape(2, -1, 1) - (side - 1) / 2) * step
        x = z1 + 0.8 * step * (np.linspace(0, 1, curves.shape[1]) - 0.5)
        y = z2 + 0.8 * step * ((curves - low) / ((high - low) or 1.0) - 0.5)
        axes.add_collection(LineCollection(list(np.stack([x, y], axis=-1)), colors=BLUE, linewidths=1.0))
        borders = np.linspace(-edge, edge, side + 1)
        axes.hlines(borders, -edge, edge, color=PALE, lw=0.5, zorder=0)
        axes.vlines(borders, -edge, edge, color=PALE, lw=0.5, zorder=0)
        axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    whole = math.floor(limit)
    ticks = np.arange(-whole, whole + 1) if whole else np.array([-limit, 0, limit])
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    set_labels(axes, title, "z1", "z2")
    axes.spines[:].set_visible(False)
    return figure


def tile(images: Shaped[ndarray, " N *event"], *, columns: int) -> ndarray:
    """Lays images out in rows, left to right and downwards, one white pixel apart.

    Args:
        images: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``, clipped to [0, 1].
        columns: Images per row. Unused cells of the last row are white.

    Returns:
        One picture, ``(rows * (H + 1) - 1, columns * (W + 1) - 1)``, and a last axis of 3 if there is color.
    """
    pictures = as_pictures(images)
    if pictures is None:
        raise InputError(
            f"images have the shape (N, H, W), (N, 1, H, W) or (N, 3, H, W); these have {images.shape}. "
            "Reshape them, with the channels before height and width."
        )
    count, height, width, *color = pictures.shape
    canvas = np.ones((math.ceil(count / columns) * (height + 1) - 1, columns * (width + 1) - 1, *color))
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def as_pictures(events: ndarray) -> ndarray | None:
    """Images for matplotlib, ``(N, H, W)`` or ``(N, H, W, 3)`` in [0, 1]; None for vectors."""
    match events.shape[1:]:
        case (_, _):
            pictures = events
        case (1, _, _):
            pictures = events[:, 0]
        case (3, _, _):
            pictures = np.moveaxis(events, 1, -1)
        case _:
            return None
    return np.clip(pictures, 0, 1)


def as_rows(events: ndarray, units: Units | None) -> ndarray:
    """Vectors, ``(N, D)``: unchanged, or in standard deviations from the mean."""
    rows = events.reshape(len(events), -1)
    return rows if units is None else (rows - units[0]) / units[1]


def _panels(
    title: str, count: int, size: int, names: Sequence[str] | None, standard: bool
) -> tuple[Figure, list[Axes]]:
    """At most `count` panels for vectors of `size` features, in full rows and with shared axes.

    A few features run down the y-axis, where their names are readable; many run along the x-axis.
    """
    rows = 1 if count < 5 else 2 if count < 9 else 3
    columns = count // rows
    listed = size <= MAX_LISTED
    figsize = (max(2.6 * columns + 0.6, 6), 0.9 + rows * (0.4 + 0.2 * max(size, 4) if listed else 2.0))
    figure = Figure(figsize=figsize, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        _label_features(axes, size, names, standard)
        axes.set(xlabel=axes.get_xlabel() if row == rows - 1 else "", ylabel=axes.get_ylabel() if column == 0 else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure, list(grid.ravel())


def _label_features(axes: Axes, size: int, names: Sequence[str] | None, standard: bool) -> None:
    """Sets up the axes of a panel for vectors, with the names of their features if there are few."""
    listed = size <= MAX_LISTED
    feature = "" if listed and names is not None else "feature"
    value = "standard deviations\nfrom the mean" if standard else "value"
    set_labels(axes, "", *((value, feature) if listed else (feature, value)))
    if listed:
        axes.set_yticks(range(size), labels=[as_text(name) for name in (range(size) if names is None else names)])
        axes.set_ylim(size - 0.5, -0.5)
    else:
        axes.set_xlim(0, size - 1)


def _show(axes: Axes, picture: ndarray) -> None:
    axes.imshow(picture.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axes.set_anchor("W")
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
