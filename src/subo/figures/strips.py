"""Pictures of places in latent space one after the other: a path, or each dimension from end to end."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from subo.figures.data_space import as_pictures, as_rows, tile
from subo.figures.style import INK, as_text, set_labels, set_title, with_ending
from subo.files.whole import replacing

__all__ = ["save_movie", "strip"]

_LISTED, _SIDE = 20, 256  # features whose names are written, pixels of a movie


def strip(
    means: Shaped[ndarray, " N *event"],
    *,
    rows: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    units: tuple[ndarray, ndarray] | None = None,
) -> Figure:
    """Means of p(x|z) along a path, or in rows of equal length.

    Args:
        means: In order, ``(N, *event)``; images from left to right, vectors as lines from dark to bright.
        rows: Names of the rows, each of as many means.
        feature_names: Names of a vector's features, written where there are 20 or fewer.
        units: Mean and standard deviation of each feature of a vector, as for :func:`reconstructions`.
    """
    each = len(means) // (1 if rows is None else len(rows))
    title = "Means of p(x|z) along a path" if rows is None else "Means of p(x|z) along each dimension"
    if as_pictures(means) is not None:
        picture = tile(means, columns=each)
        width = min(9.0, 0.9 * each)
        figure = _figure(max(width, 4), 0.6 + width * picture.shape[0] / picture.shape[1])
        axes = figure.subplots()
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        middles = (np.arange(len(rows or ())) + 0.5) * (picture.shape[0] + 1) / max(len(rows or ()), 1) - 1
        axes.set_yticks(middles, labels=[as_text(name, limit=20) for name in rows or ()])
        axes.tick_params(length=0, labelsize=9, labelcolor=INK)
        axes.spines[:].set_visible(False)
        set_title(axes, title)
        return figure
    curves = as_rows(means, units)
    count, size = len(curves) // each, curves.shape[1]
    columns = min(count, 4)
    figure = _figure(max(4.5, 3.2 * columns), 0.6 + 2.4 * math.ceil(count / columns))
    panels = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, each))
    for k, axes in enumerate(panels[:count]):
        for curve, color in zip(curves[k * each : (k + 1) * each], colors, strict=True):
            axes.plot(np.arange(size), curve, color=color, lw=1.2, marker="o" if size == 1 else None)
        named = feature_names if size <= _LISTED else None
        if named:
            axes.set_xticks(np.arange(size), labels=[as_text(name, limit=12) for name in named], rotation=90)
        y = "standard deviations" if units is not None else ""
        set_labels(axes, title if rows is None else as_text(rows[k]), "" if named else "feature", y)
    return figure


def _figure(width: float | int, height: float | int) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def save_movie(images: Shaped[ndarray, " N *event"], path: str | Path, *, duration: float = 0.15) -> None:
    """Writes images as a looping .gif, there and back.

    Args:
        images: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``, clipped to [0, 1].
        path: Path of the .gif; an existing file is replaced.
        duration: Seconds for each image.
    """
    path = with_ending(path, ".gif")
    pictures = (255 * np.stack([tile(image[None], columns=1) for image in images])).round().astype(np.uint8)
    factor = max(1, _SIDE // max(pictures.shape[1:3]))
    large = [Image.fromarray(p.repeat(factor, 0).repeat(factor, 1)) for p in pictures]
    frames = [*large, *large[-2:0:-1]]
    with replacing(path) as partial:
        frames[0].save(
            partial, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 * duration), loop=0
        )
