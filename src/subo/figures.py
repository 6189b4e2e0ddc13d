"""Arrays in, figures out: training, reconstructions, samples and the latent space.

Every function returns a :class:`matplotlib.figure.Figure` of its own: no pyplot state, no changed defaults,
no window. Images are events of shape ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)`` with values in [0, 1]; every
other event is drawn as a vector over its features.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from PIL import Image

from subo.errors import InputError

__all__ = [
    "activity_per_dimension",
    "animate_means",
    "decoder_grid",
    "kl_per_dimension",
    "latent_plane",
    "reconstructions",
    "samples",
    "save",
    "tile",
    "training_curves",
]

INK, GREY, PALE = "#333333", "#a6a6a6", "#dddddd"
BLUE, ORANGE = "#0072b2", "#d55e00"
CLASS_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9"),
    *("#cc79a7", "#882255", "#b3a800", "#333333", "#a6a6a6"),
)

MAX_POINTS = 5_000
MAX_LISTED = 20
"""Vectors of at most so many features are drawn feature by feature, longer ones as curves."""
ACTIVE_VARIANCE = 0.01
PRIOR_MASSES = np.array([0.99, 0.9, 0.5])


def training_curves(
    epoch: Shaped[ndarray, " E"],
    train: Mapping[str, ndarray],
    validation: Mapping[str, ndarray] | None = None,
    *,
    best_epoch: int | None = None,
) -> Figure:
    """Bound, rate and distortion over the epochs of a run.

    A y-axis spans what the last 90% of the epochs show, so that a start's huge values don't hide the rest; it
    spans everything where that takes less than twice the room. Where an axis cuts something off it says so.

    Args:
        epoch: Numbers of the epochs, ``(E,)``.
        train: ``bound``, ``elbo``, ``rate``, ``distortion``, each ``(E,)`` in nats per datum.
        validation: The same of held-out data, NaN where it wasn't measured.
        best_epoch: The epoch whose weights were kept.

    Returns:
        Three panels. The first is named ELBO where the bound is the ELBO throughout.
    """
    runs = {"train": train} if validation is None else {"train": train, "validation": validation}
    is_elbo = all(np.allclose(run["bound"], run["elbo"], equal_nan=True) for run in runs.values())
    panels = {
        "bound": ("ELBO", "−(rate + distortion)") if is_elbo else ("bound", "what training raises"),
        "rate": ("rate", "the cost of coding z"),
        "distortion": ("distortion", "the cost of x, given z"),
    }
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (quantity, (name, meaning)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        values = np.stack([run[quantity] for run in runs.values()]).astype(float)
        values[~np.isfinite(values)] = np.nan
        for label, colour, curve in zip(runs, (BLUE, ORANGE), values, strict=False):
            measured = ~np.isnan(curve)
            if measured.any():
                x, y, marker = epoch[measured], curve[measured], "o" if measured.sum() <= 10 else None
                axes.plot(x, y, marker=marker, ms=4, lw=1.6, color=colour, label=label)
        if best_epoch is not None:
            label = f"best, epoch {best_epoch}"
            axes.axvline(best_epoch, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0, label=label)
        low, high, cut = _late_range(values)
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        xlabel = "epoch (the first run off the axis)" if cut else "epoch"
        _label(axes, f"{name}: {meaning}", xlabel, f"{name} [nats per datum]")
    _legend_below(figure)
    return figure


def _late_range(values: ndarray) -> tuple[float, float, bool]:
    """Limits of a y-axis for curves ``(R, E)``, and whether they cut something off: see `training_curves`."""
    late = values[:, values.shape[1] // 10 :]
    if np.isnan(late).all():
        return 0.0, 1.0, False
    cut = bool(np.nanmax(values) - np.nanmin(values) > 2 * (np.nanmax(late) - np.nanmin(late)))
    cut &= late.shape != values.shape
    low, high = (np.nanmin(late), np.nanmax(late)) if cut else (np.nanmin(values), np.nanmax(values))
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin), cut


def reconstructions(
    originals: Shaped[ndarray, " N *event"],
    means: Shaped[ndarray, " N *event"],
    *,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Data, and the means of p(x|z) where their posterior puts z.

    Args:
        originals: Data, ``(N, *event)``; the first 24 images or 8 vectors are drawn.
        means: Their reconstructions, ``(N, *event)``.
        feature_names: Names of a vector's features, written where there are 20 or fewer.

    Returns:
        Images: a row of originals above a row of reconstructions, once or twice. Vectors: a panel a datum.
    """
    title = "Data, and the means of their reconstructions"
    if _pictures(originals) is None:
        return _compare_vectors(title, _rows(originals), _rows(means), feature_names)
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
        _show(axes, picture)
        axes.set_yticks([height / 4 - 0.5, 3 * height / 4 - 0.5], labels=["original", "reconstruction"])
        axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    _title(figure.axes[0], title)
    return figure


def _compare_vectors(title: str, originals: ndarray, means: ndarray, names: Sequence[str] | None) -> Figure:
    figure, panels = _panels(title, min(len(originals), 8), means.shape[1], names)
    feature = np.arange(means.shape[1])
    for index, (axes, x, mean) in enumerate(zip(panels, originals, means, strict=False)):
        if len(feature) <= MAX_LISTED:
            axes.hlines(feature, x, mean, color=PALE, lw=2.5, zorder=1)
            axes.plot(x, feature, "o", ms=4.5, color=INK, label="original")
            axes.plot(mean, feature, "o", ms=6, mfc="none", mew=1.4, color=ORANGE, label="reconstruction")
        else:
            axes.plot(feature, x, color=GREY, lw=1.1, label="original")
            axes.plot(feature, mean, color=ORANGE, lw=1.3, label="reconstruction")
        _title(axes, f"datum {index}", size=9)
    _legend_below(figure)
    return figure


def samples(means: Shaped[ndarray, " N *event"], *, feature_names: Sequence[str] | None = None) -> Figure:
    """Means of p(x|z) at draws of z from the prior: what the model believes data look like.

    Args:
        means: Decoded draws, ``(N, *event)``; the first 100 are drawn.
        feature_names: Names of a vector's features, written where there are 20 or fewer.

    Returns:
        Images: a square of them. Vectors of 20 features or fewer: a line a sample, all in one panel. Longer
        ones: a panel for each of the first 12, before all the others in grey.
    """
    title = "Samples from the prior, as means of p(x|z)"
    means = means[:100]
    if _pictures(means) is not None:
        columns = math.ceil(math.sqrt(len(means)))
        picture = tile(means, columns=columns)
        width = min(columns, 6)  # inches
        height = 0.4 + width * picture.shape[0] / picture.shape[1]
        figure = Figure(figsize=(max(width, 4), height), layout="constrained")
        _show(figure.subplots(), picture)
        _title(figure.axes[0], title)
        return figure
    means = _rows(means)
    feature = np.arange(means.shape[1])
    if len(feature) <= MAX_LISTED:
        figure, (axes,) = _panels(title, 1, len(feature), feature_names)
        marker, alpha = "o" if len(feature) == 1 else None, max(0.25, len(means) ** -0.3)
        for sample in means:
            axes.plot(sample, feature, marker=marker, ms=4, lw=0.8, color=BLUE, alpha=alpha)
        return figure
    figure, panels = _panels(title, min(len(means), 12), len(feature), feature_names)
    everything = [np.column_stack([feature, sample]) for sample in means]
    for axes, sample in zip(panels, means, strict=False):
        axes.add_collection(LineCollection(everything, colors=PALE, linewidths=0.4, zorder=0))
        axes.plot(feature, sample, color=BLUE, lw=1.3)
    return figure


def tile(images: Shaped[ndarray, " N *event"], *, columns: int) -> ndarray:
    """Lays images out in rows, left to right and downwards, one white pixel apart.

    Args:
        images: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``, clipped to [0, 1].
        columns: Images in a row. Cells that the last row leaves over are white.

    Returns:
        One picture, ``(rows * (H + 1) - 1, columns * (W + 1) - 1)``, and a last axis of 3 if there is colour.
    """
    pictures = _pictures(images)
    if pictures is None:
        raise InputError(
            f"images have the shape (N, H, W), (N, 1, H, W) or (N, 3, H, W); these have {images.shape}. "
            "Reshape them, with the channels before height and width."
        )
    count, height, width, *colour = pictures.shape
    canvas = np.ones((math.ceil(count / columns) * (height + 1) - 1, columns * (width + 1) - 1, *colour))
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def _pictures(events: ndarray) -> ndarray | None:
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


def _rows(events: ndarray) -> ndarray:
    return events.reshape(len(events), -1)


def kl_per_dimension(kl: Shaped[ndarray, " D"], *, active: Bool[ndarray, " D"] | None = None) -> Figure:
    """How much each latent dimension says of a datum, the most talkative first.

    Args:
        kl: KL(q(z_d|x) || p(z_d)), averaged over data, ``(D,)`` in nats per datum.
        active: Which dimensions are active, as Burda et al. (2016) have it: their posterior means vary over
            the data by more than 0.01, ``(D,)``. The others are grey.

    Returns:
        A bar a dimension; below it its index in z, counted from 0, where there are 64 or fewer.
    """
    title = f"KL of each latent dimension: {kl.sum():.1f} nats per datum in all"
    return _bars(kl, active, title, "KL [nats per datum]", floor=0.0)


def activity_per_dimension(variance: Shaped[ndarray, " D"], *, active: Bool[ndarray, " D"]) -> Figure:
    """How far the posterior means vary over the data: the picture where the KL doesn't separate by dimension.

    Args:
        variance: Variance over the data of the means of q(z|x), ``(D,)`` in squared units of z.
        active: Which dimensions are active: a variance above 0.01, which is drawn as a line, ``(D,)``.

    Returns:
        A bar a dimension on a logarithmic axis, sorted and labelled as in :func:`kl_per_dimension`.
    """
    floor = 10.0 ** math.floor(math.log10(np.clip(variance.min() / 1.5, 1e-6, 1e-3)))
    title, ylabel = "Activity of each latent dimension", "variance of the posterior means"
    figure = _bars(np.maximum(variance, floor), active, title, ylabel, floor=floor)
    axes = figure.axes[0]
    axes.set_yscale("log")
    axes.set_ylim(floor, 2 * max(float(variance.max()), ACTIVE_VARIANCE))
    axes.axhline(ACTIVE_VARIANCE, color=INK, lw=0.9, ls=(0, (4, 3)))
    return figure


def _bars(values: ndarray, active: ndarray | None, title: str, ylabel: str, *, floor: float) -> Figure:
    """Sorted bars that stand on `floor`, the inactive ones grey."""
    count, order = len(values), np.argsort(-values, kind="stable")
    listed = count <= 64
    figure = Figure(figsize=(float(np.clip(0.16 * count + 1.5, 6, 11)), 3.6), layout="constrained")
    axes = figure.subplots()
    colours = [BLUE if active is None or active[index] else GREY for index in order]
    axes.bar(np.arange(count), values[order] - floor, bottom=floor, width=0.8, color=colours)
    room = 0.5 + max(0, 6 - count) / 2  # a lone bar stays a bar
    axes.set_xlim(-room, count - 1 + room)
    axes.set_xticks(*([np.arange(count), [str(index) for index in order]] if listed else [[]]))
    xlabel = "index of the latent dimension, sorted" if listed else f"{count} latent dimensions, sorted"
    _label(axes, title, xlabel, ylabel)
    axes.tick_params(axis="x", length=0, labelsize=9 if count <= 32 else 7)
    if active is not None:
        name = f"{active.sum()} of {count} active: variance of the posterior means > {ACTIVE_VARIANCE}"
        handles = [Patch(color=BLUE, label=name), Patch(color=GREY, label="inactive")]
        _legend_below(figure, handles[: 1 if active.all() else 2])
    return figure


def latent_plane(
    means: Shaped[ndarray, " N D"],
    labels: Shaped[ndarray, " N"] | None = None,
    *,
    prior: tuple[Shaped[ndarray, " Gx"], Shaped[ndarray, " Gy"], Shaped[ndarray, " Gy Gx"]] | None = None,
    axes: tuple[str, str] = ("z1", "z2"),
    explained: Shaped[ndarray, " 2"] | None = None,
) -> Figure:
    """The data where their posteriors put them, as points of a plane.

    Args:
        means: Means of q(z|x), ``(N, 2)``, or ``(N, 1)``: then spread over a strip to be told apart. Of more
            than 5,000 only every n-th is drawn.
        labels: ``(N,)``. Up to ten classes have colours of their own; other numbers run through a colour map.
        prior: Grids of z1 ``(Gx,)`` and z2 ``(Gy,)``, and log p(z) on them, ``(Gy, Gx)``, in nats up to a
            constant; drawn as the contours that enclose 50, 90 and 99% of the grid's mass.
        axes: Names of the two axes.
        explained: The part of the variance on each axis, ``(2,)``, if they are principal components.

    Returns:
        A scatter plot with equal units on both axes.
    """
    step = math.ceil(len(means) / MAX_POINTS)
    points = means[::step]
    figure = Figure(figsize=(6.6, 5.6), layout="compressed")
    plane = figure.subplots()
    _scatter(figure, plane, _in_plane(points), None if labels is None else labels[::step])
    shown = f", {len(points):,} of them shown" if step > 1 else ""
    title = f"Posterior means of {len(means):,} data{shown}"
    if prior is not None and _draw_prior(plane, *prior):
        title += "\nContours enclose 50, 90 and 99% of the prior"
    shares = ["", ""] if explained is None else [f" ({share:.0%} of the variance)" for share in explained]
    _label(plane, title, axes[0] + shares[0], axes[1] + shares[1])
    if means.shape[1] == 1:
        plane.set_yticks([])
        plane.set_ylabel("")
    return figure


def _draw_prior(axes: Axes, x: ndarray, y: ndarray, log_density: ndarray) -> bool:
    """Draws the contours of a prior, if there are any: a flat one has none."""
    density = np.exp(log_density - log_density.max())
    levels = _mass_levels(density, np.outer(np.gradient(y), np.gradient(x)))
    if len(levels) < len(PRIOR_MASSES) or levels[0] <= density.min():
        return False
    seen = density >= levels[0]
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    # The grid beyond the outer contour would only take room.
    box = tuple(slice(max(hit[0] - 1, 0), hit[-1] + 2) for hit in (rows, columns))
    axes.contour(x[box[1]], y[box[0]], density[box], levels=levels, colors=GREY, linewidths=0.9, zorder=0)
    axes.use_sticky_edges = False
    axes.margins(0.03)
    return True


def _mass_levels(density: ndarray, area: ndarray) -> ndarray:
    """The densities, rising, above which the cells of a grid hold 99, 90 and 50% of its mass."""
    order = np.argsort(-density, axis=None)
    mass = np.cumsum((density * area).ravel()[order])
    return np.unique(density.ravel()[order][np.searchsorted(mass, PRIOR_MASSES * mass[-1])])


def _in_plane(points: ndarray) -> ndarray:
    """Points of a line get a second coordinate in [-1/2, 1/2], evenly spread and the same each time."""
    if points.shape[1] == 2:
        return points
    golden = (math.sqrt(5) - 1) / 2
    return np.column_stack([points[:, 0], np.arange(len(points)) * golden % 1 - 0.5])


def _scatter(figure: Figure, axes: Axes, points: ndarray, labels: ndarray | None) -> PathCollection:
    """Points ``(N, 2)`` coloured by label, in the order of the data, which hides no class; and a legend."""
    size = float(np.clip(16_000 / len(points), 7, 26))
    dots = axes.scatter(*points.T, s=size, color=BLUE, linewidths=0)
    axes.set_aspect("equal")
    if labels is None:
        dots.set_alpha(0.6)
        return dots
    classes, codes = np.unique(labels, return_inverse=True)
    is_number = classes.dtype.kind in "iuf"
    names = [f"{name:g}" if is_number else str(name) for name in classes]
    if len(classes) <= len(CLASS_COLOURS) and not (is_number and np.any(classes % 1)):
        dots.set_color([CLASS_COLOURS[code] for code in codes])
        handles = [Line2D([], [], ls="", marker="o", color=colour) for colour in CLASS_COLOURS[: len(names)]]
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "handletextpad": 0.2}
        axes.legend(handles, names, frameon=False, fontsize=9, labelcolor=INK, **place)
    else:
        dots.set_cmap("viridis")
        dots.set_array(labels if is_number else codes)
        bar = figure.colorbar(dots, ax=axes, shrink=0.8, aspect=30)
        if not is_number:
            bar.set_ticks(list(range(len(names))), labels=names)
        _label(bar.ax, "", "", "label")
        bar.ax.spines[:].set_visible(False)
    dots.set_alpha(0.8)  # after the colour bar, which would take it over
    return dots


def decoder_grid(means: Shaped[ndarray, "..."], *, limit: float = 3.0) -> Figure:
    """What the decoder makes of every place in a plane of z.

    Args:
        means: Means of p(x|z) over an equally spaced grid, ``(G, G, *event)`` or ``(G * G, *event)``:
            ``means[i, j]`` belongs to ``z2 = grid[i]`` and ``z1 = grid[j]``, where ``grid`` is
            ``linspace(-limit, limit, G)``. Two equal leading axes are taken for the grid's.
        limit: The grid's last value, in units of z.

    Returns:
        Images: one seamless picture, z2 upwards. Vectors: a small curve over the features in every place, all
        to one scale.
    """
    if means.ndim < 3 or means.shape[0] != means.shape[1]:
        side = math.isqrt(len(means))
        if side * side != len(means):
            raise InputError(f"{len(means)} means fill no square: expected G * G, one a place.")
        means = means.reshape(side, side, *means.shape[1:])
    side = len(means)
    cells = means.reshape(side * side, *means.shape[2:])
    step = 2 * limit / max(side - 1, 1)
    edge = limit + step / 2
    title = "Means of p(x|z) over the latent plane"
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    pictures = _pictures(cells)
    if pictures is not None:
        height, width, *colour = pictures.shape[1:]
        # A picture's first row is its top, and belongs to the last z2.
        upward = pictures.reshape(side, side, height, width, *colour)[::-1]
        _show(axes, np.swapaxes(upward, 1, 2).reshape(side * height, side * width, *colour))
        axes.images[0].set_extent((-edge, edge, -edge, edge))
        axes.set_aspect(height / width)
    else:
        curves = _rows(cells)
        low, high = curves.min(), curves.max()
        scale = f"{low:.3g} to {high:.3g}".replace("-", "−")
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
    _label(axes, title, "z1", "z2")
    axes.spines[:].set_visible(False)
    return figure


def animate_means(
    frames: Shaped[ndarray, " F N 2"],
    labels: Shaped[ndarray, " N"] | None,
    captions: Sequence[str],
    path: str | Path,
    *,
    duration: float = 0.12,
) -> None:
    """Writes a looping .gif of the posterior means as training moves them.

    The axes never move, and each holds 99.5% of all frames' points; what lies outside leaves the picture.

    Args:
        frames: Means of q(z|x) of the same data at F times, ``(F, N, 2)``, thinned as for `latent_plane`.
        labels: ``(N,)``, as for :func:`latent_plane`.
        captions: What stands above each frame, F strings.
        path: The .gif to be written; a file of that name is replaced.
        duration: Seconds that a frame is shown. The last one stays for 2 s.
    """
    path = _named(path, ".gif")
    step = math.ceil(frames.shape[1] / MAX_POINTS)
    frames = frames[:, ::step]
    low, high = np.quantile(frames.reshape(-1, 2), [0.0025, 0.9975], axis=0)
    middle, reach = (low + high) / 2, 0.54 * (np.max(high - low) or 1.0)
    figure = Figure(figsize=(4.8, 4.8 if labels is None else 4.4), dpi=100, layout="compressed")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    dots = _scatter(figure, axes, frames[-1], None if labels is None else labels[::step])
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    _label(axes, captions[0], "z1", "z2")
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once, so that nothing moves but the points
    pictures = []
    for points, caption in zip(frames, captions, strict=True):
        dots.set_offsets(points)
        _title(axes, caption)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    palette = _palette(pictures[-1])
    pictures = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    shown = [round(1000 * duration)] * (len(pictures) - 1) + [2000]
    with _replacing(path) as partial:
        pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=shown, loop=0)


def _palette(picture: ndarray) -> Image.Image:
    """The colours that a picture ``(H, W, 3)`` shows most, just as they are: averages would dim the paper."""
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    codes = codes[np.argsort(-counts, kind="stable")]
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    darkest = colours.min(axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours[(darkest == 255) | (darkest < 248)][:256].ravel().tolist())  # one white alone
    return palette


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: What to write.
        path: Where, a .png (150 dots an inch), .pdf or .svg; a file of that name is replaced.
    """
    with _replacing(_named(path, ".png", ".pdf", ".svg")) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")


def _named(path: str | Path, *endings: str) -> Path:
    if Path(path).suffix not in endings:
        raise InputError(f"'{path}' can't be written: expected a name that ends in {' or '.join(endings)}.")
    return Path(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` once all is written."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _panels(title: str, count: int, size: int, names: Sequence[str] | None) -> tuple[Figure, list[Axes]]:
    """At most `count` panels for vectors of `size` features, in full rows and with shared axes.

    Few features run down the y-axis, where their names can be read; many run along the x-axis.
    """
    rows = 1 if count < 5 else 2 if count < 9 else 3
    columns = count // rows
    listed = size <= MAX_LISTED
    figsize = (max(2.6 * columns + 0.6, 6), 0.9 + rows * (0.4 + 0.2 * max(size, 4) if listed else 2.0))
    figure = Figure(figsize=figsize, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    feature = "" if listed and names is not None else "feature"
    for (row, column), axes in np.ndenumerate(grid):
        xlabel, ylabel = ("value", feature) if listed else (feature, "value")
        _label(axes, "", xlabel if row == rows - 1 else "", ylabel if column == 0 else "")
    if listed:
        grid[0, 0].set_yticks(range(size), labels=[str(i) for i in range(size)] if names is None else names)
        grid[0, 0].set_ylim(size - 0.5, -0.5)
    else:
        grid[0, 0].set_xlim(0, size - 1)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure, list(grid.ravel())


def _show(axes: Axes, picture: ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axes.set_anchor("W")
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])


def _title(axes: Axes, text: str, *, size: int = 11) -> None:
    axes.set_title(text, loc="left", fontsize=size, color=INK)


def _label(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """The look of all figures: a title on the left, two grey spines, words in ink."""
    _title(axes, title)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=9, labelcolor=INK, color=GREY)


def _legend_below(figure: Figure, handles: Sequence[Artist] | None = None) -> None:
    """A legend under all panels, where it hides nothing; of the first panel's artists unless told."""
    handles = handles or figure.axes[0].get_legend_handles_labels()[0]
    place = {"loc": "outside lower right", "ncols": 3}
    figure.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK, **place)
