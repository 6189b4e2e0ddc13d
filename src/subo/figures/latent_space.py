"""The latent space: which of its dimensions are used, where the data lie in it, and how they got there."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy import ndarray
from PIL import Image

from subo.figures.style import (
    BLUE,
    CLASS_COLORS,
    GREY,
    INK,
    as_text,
    legend_below,
    panel_of,
    set_labels,
    set_title,
    with_ending,
)
from subo.files.whole import replacing

__all__ = ["activity_per_dimension", "animate_means", "kl_per_dimension", "latent_plane", "mass_levels"]

MAX_POINTS = 5_000
MAX_NAMES = 30
ACTIVE_VARIANCE = 0.01
PRIOR_MASSES = np.array([0.99, 0.9, 0.5])
CONTOURS = "Contours enclose 50, 90 and 99% of the prior"

Prior = tuple[Shaped[ndarray, " Gx"], Shaped[ndarray, " Gy"], Shaped[ndarray, " Gy Gx"]]
"""Grids of z1 and z2, and log p(z) on them in nats up to a constant."""


def kl_per_dimension(
    kl: Shaped[ndarray, " D"],
    *,
    active: Bool[ndarray, " D"] | None = None,
    names: Sequence[str] | None = None,
    panel: Axes | None = None,
) -> Figure:
    """KL of each latent dimension, the largest first.

    Args:
        kl: KL(q(z_d|x) || p(z_d)), averaged over data, ``(D,)`` in nats per example.
        active: Which dimensions are active, as Burda et al. (2016) have it: their posterior means vary over
            the data by more than 0.01, ``(D,)``. The others are grey.
        names: Names of the dimensions; z1, z2, ... by default.
        panel: Axes to draw on; in a new figure by default.

    Returns:
        One bar per dimension, with its name below it if there are 64 or fewer.
    """
    title = f"KL of each latent dimension: {kl.sum():.1f} nats per example in total"
    return _bars(kl, active, title, "KL [nats per example]", floor=0.0, names=names, panel=panel)


def activity_per_dimension(
    variance: Shaped[ndarray, " D"],
    *,
    active: Bool[ndarray, " D"],
    names: Sequence[str] | None = None,
    panel: Axes | None = None,
) -> Figure:
    """How much the posterior means vary over the data: the figure for a KL that does not separate by dimension.

    Args:
        variance: Variance over the data of the means of q(z|x), ``(D,)`` in squared units of z.
        active: Which dimensions are active: a variance above 0.01, which is drawn as a line, ``(D,)``.
        names: Names of the dimensions; z1, z2, ... by default.
        panel: Axes to draw on; in a new figure by default.

    Returns:
        One bar per dimension on a logarithmic axis, sorted and labeled as in :func:`kl_per_dimension`.
    """
    floor = 10.0 ** math.floor(math.log10(np.clip(variance.min() / 1.5, 1e-6, 1e-3)))
    title, ylabel = "Activity of each latent dimension", "variance of the posterior means"
    figure = _bars(np.maximum(variance, floor), active, title, ylabel, floor=floor, names=names, panel=panel)
    axes = panel or figure.axes[0]
    axes.set_yscale("log")
    axes.set_ylim(floor, 2 * max(float(variance.max()), ACTIVE_VARIANCE))
    axes.axhline(ACTIVE_VARIANCE, color=INK, lw=0.9, ls=(0, (4, 3)))
    return figure


def _bars(
    values: ndarray,
    active: ndarray | None,
    title: str,
    ylabel: str,
    *,
    floor: float,
    names: Sequence[str] | None,
    panel: Axes | None,
) -> Figure:
    """Sorted bars that stand on `floor`, the inactive ones grey."""
    count, order = len(values), np.argsort(-values, kind="stable")
    listed = count <= 64
    figure, axes = panel_of(panel, figsize=(float(np.clip(0.16 * count + 1.5, 6, 11)), 3.6))
    colors = [BLUE if active is None or active[index] else GREY for index in order]
    axes.bar(np.arange(count), values[order] - floor, bottom=floor, width=0.8, color=colors)
    room = 0.5 + max(0, 6 - count) / 2  # keeps a single bar from filling the panel
    axes.set_xlim(-room, count - 1 + room)
    axes.set_xticks(
        *(
            [np.arange(count), [f"z{index + 1}" if names is None else as_text(names[index]) for index in order]]
            if listed
            else [[]]
        )
    )
    xlabel = "latent dimension, sorted" if listed else f"{count} latent dimensions, sorted"
    set_labels(axes, title, xlabel, ylabel)
    axes.tick_params(axis="x", length=0, labelsize=9 if count <= 32 else 7, rotation=0 if count <= 20 else 90)
    if active is not None:
        name = f"{active.sum()} of {count} active: variance of the posterior means > {ACTIVE_VARIANCE}"
        handles = [Patch(color=BLUE, label=name), Patch(color=GREY, label="inactive")]
        if panel is None:
            legend_below(figure, handles[: 1 if active.all() else 2])
        else:  # a legend would cover the bars
            set_title(panel, f"{title}\n{name}" + ("" if active.all() else " (grey: inactive)"))
    return figure


def latent_plane(
    means: Shaped[ndarray, " N D"],
    labels: Shaped[ndarray, " N"] | None = None,
    *,
    meaning: str = "label",
    prior: Prior | None = None,
    axes: tuple[str, str] = ("z1", "z2"),
    explained: Shaped[ndarray, " 2"] | None = None,
    name: str = "examples",
    panel: Axes | None = None,
) -> Figure:
    """The data at their posterior means, as points in a plane.

    Args:
        means: Means of q(z|x), ``(N, 2)``, or ``(N, 1)``: then spread over a strip to separate them. Above
            5,000 points only every n-th is drawn.
        labels: ``(N,)``. Up to ten classes have colors of their own; other numbers run through a color map, and
            examples without one, NaN, are grey. Of more than 30 names, every n-th is beside the color bar.
        meaning: What the labels are, such as the name of a column.
        prior: Grids of z1 ``(Gx,)`` and z2 ``(Gy,)``, and log p(z) on them, ``(Gy, Gx)``, in nats up to a
            constant; drawn as the contours that enclose 50, 90 and 99% of the grid's mass.
        axes: Names of the two axes.
        explained: Share of the variance on each axis, ``(2,)``, if they are principal components.
        name: Name of the data in the title, such as ``test data``.
        panel: Axes to draw on; in a new figure by default.

    Returns:
        A scatter plot with equal units on both axes.
    """
    step = math.ceil(len(means) / MAX_POINTS)
    points = means[::step]
    figure, plane = panel_of(panel, figsize=(6.6, 5.6), layout="compressed")
    _scatter(figure, plane, _in_plane(points), None if labels is None else labels[::step], meaning=meaning)
    plane.set_aspect("equal", adjustable="datalim")  # points near a line get a plane around them, not a thin strip
    shown = f", {len(points):,} of them shown" if step > 1 else ""
    title = f"Posterior means of {len(means):,} {as_text(name)}{shown}"
    if prior is not None and _draw_prior(plane, *prior):
        title += f"\n{CONTOURS}"
    shares = ["", ""] if explained is None else [f" ({share:.0%} of the variance)" for share in explained]
    set_labels(plane, title, *(as_text(axis) + share for axis, share in zip(axes, shares, strict=True)))
    if means.shape[1] == 1:
        plane.set_yticks([])
        plane.set_ylabel("")
    return figure


def _draw_prior(axes: Axes, x: ndarray, y: ndarray, log_density: ndarray) -> bool:
    """Draws the contours of a prior, if there are any: a flat one has none."""
    density = np.exp(log_density - log_density.max())
    levels = mass_levels(density, np.outer(np.gradient(y), np.gradient(x)))
    if len(levels) < len(PRIOR_MASSES) or levels[0] <= density.min():
        return False
    seen = density >= levels[0]
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    # The grid beyond the outer contour would only take up space.
    box = tuple(slice(max(hit[0] - 1, 0), hit[-1] + 2) for hit in (rows, columns))
    axes.contour(x[box[1]], y[box[0]], density[box], levels=levels, colors=GREY, linewidths=0.9, zorder=0)
    axes.use_sticky_edges = False
    axes.margins(0.03)
    return True


def mass_levels(density: ndarray, area: ndarray) -> ndarray:
    """The densities, rising, above which the cells of a grid hold 99, 90 and 50% of its mass."""
    order = np.argsort(-density, axis=None)
    mass = np.cumsum((density * area).ravel()[order])
    return np.unique(density.ravel()[order][np.searchsorted(mass, PRIOR_MASSES * mass[-1])])


def _in_plane(points: ndarray) -> ndarray:
    """Gives points on a line a second coordinate in [-1/2, 1/2], evenly spread and the same each time."""
    if points.shape[1] == 2:
        return points
    golden = (math.sqrt(5) - 1) / 2
    return np.column_stack([points[:, 0], np.arange(len(points)) * golden % 1 - 0.5])


def _scatter(
    figure: Figure, axes: Axes, points: ndarray, labels: ndarray | None, *, meaning: str = "label"
) -> PathCollection:
    """Draws points ``(N, 2)`` colored by label, in the data's order, so that no class is hidden, and a legend."""
    if labels is not None and labels.dtype.kind == "f" and (unknown := np.isnan(labels)).any():
        axes.scatter(*points[unknown].T, s=8, color=GREY, linewidths=0, alpha=0.6)
        points, labels = points[~unknown], labels[~unknown]
        if len(labels) == 0:
            labels = None
    size = float(np.clip(16_000 / max(1, len(points)), 7, 26))
    dots = axes.scatter(*points.T, s=size, color=BLUE, linewidths=0)
    if labels is None:
        dots.set_alpha(0.6)
        return dots
    classes, codes = np.unique(labels, return_inverse=True)
    is_number = classes.dtype.kind in "iuf"
    if len(classes) <= len(CLASS_COLORS) and not (is_number and np.any(classes % 1)):
        dots.set_color([CLASS_COLORS[code] for code in codes])
        names = [f"{name:g}" if is_number else as_text(name) for name in classes]
        handles = [Line2D([], [], ls="", marker="o", color=color) for color in CLASS_COLORS[: len(names)]]
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "handletextpad": 0.2}
        if meaning != "label":
            place |= {"title": as_text(meaning), "title_fontsize": 9, "alignment": "left"}
        axes.legend(handles, names, frameon=False, fontsize=9, labelcolor=INK, **place)
    else:
        dots.set_cmap("viridis")
        dots.set_array(labels if is_number else codes)
        bar = figure.colorbar(dots, ax=axes, shrink=0.8, aspect=30)
        meaning = as_text(meaning)
        if not is_number:
            named = range(0, len(classes), math.ceil(len(classes) / MAX_NAMES))
            bar.set_ticks([*named], labels=[as_text(classes[code]) for code in named])
            meaning += f", {len(named)} of {len(classes):,} named" * (len(named) < len(classes))
        set_labels(bar.ax, "", "", meaning)
        bar.ax.spines[:].set_visible(False)
    dots.set_alpha(0.8)  # after the color bar, which would adopt it
    return dots


def animate_means(
    frames: Shaped[ndarray, " F N 2"],
    labels: Shaped[ndarray, " N"] | None,
    captions: Sequence[str],
    path: str | Path,
    *,
    prior: Prior | None = None,
    axes: tuple[str, str] = ("z1", "z2"),
    name: str = "examples",
    duration: float = 0.12,
) -> None:
    """Writes a looping .gif of the posterior means as training moves them.

    The axes never move; they hold 99.5% of all frames' points and the prior's contours. Points outside are not
    visible.

    Args:
        frames: Means of q(z|x) of the same data at F times, ``(F, N, 2)``, thinned as for `latent_plane`.
        labels: ``(N,)``, as for :func:`latent_plane`.
        captions: Text above each frame, F strings.
        path: Path of the .gif; an existing file is replaced.
        prior: As for :func:`latent_plane`, the same in all frames.
        axes: Names of the two axes.
        name: Name of the data in the title, such as ``validation data``.
        duration: Seconds per frame. The last one stays for 2 s.
    """
    path = with_ending(path, ".gif")
    count, captions = frames.shape[1], [as_text(caption, limit=80) for caption in captions]
    step = math.ceil(count / MAX_POINTS)
    frames = frames[:, ::step]
    low, high = np.quantile(frames.reshape(-1, 2), [0.0025, 0.9975], axis=0)
    figure = Figure(figsize=(4.8, 5.2 if labels is None else 4.8), dpi=100, layout="compressed")
    canvas, plane = FigureCanvasAgg(figure), figure.subplots()
    title = f"Posterior means of {count:,} {as_text(name)}"
    if prior is not None and _draw_prior(plane, *prior):
        title += f"\n{CONTOURS}"
        low, high = np.minimum(low, plane.dataLim.min), np.maximum(high, plane.dataLim.max)
    middle, reach = (low + high) / 2, 0.54 * (np.max(high - low) or 1.0)
    dots = _scatter(figure, plane, frames[-1], None if labels is None else labels[::step])
    plane.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal")
    set_labels(plane, f"{title}\n{captions[0]}", *map(as_text, axes))
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once, so that nothing moves but the points
    pictures = []
    for points, caption in zip(frames, captions, strict=True):
        dots.set_offsets(points)
        set_title(plane, f"{title}\n{caption}")
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    palette = _palette(pictures[-1])
    pictures = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    shown = [round(1000 * duration)] * (len(pictures) - 1) + [2000]
    with replacing(path) as partial:
        pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=shown, loop=0)


def _palette(picture: ndarray) -> Image.Image:
    """The most frequent colors of a picture ``(H, W, 3)``, unchanged: averages would dim the background."""
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    codes = codes[np.argsort(-counts, kind="stable")]
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    darkest = colors.min(axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors[(darkest == 255) | (darkest < 248)][:256].ravel().tolist())  # a single white
    return palette
