"""What each layer of latents decides: samples with the upper layers held fixed and the lower ones redrawn."""

import math
from collections.abc import Sequence

from jaxtyping import Shaped
from matplotlib.figure import Figure
from numpy import ndarray

from subo.errors import InputError
from subo.figures.data_space import tile
from subo.figures.style import as_text, set_title

__all__ = ["layers"]


def layers(images: Shaped[ndarray, "L rows cols *event"], *, names: Sequence[str] | None = None) -> Figure:
    """Samples with the upper layers fixed, one panel per layer, the top one first.

    In a row of the panel of layer l, all layers above l are fixed, and l and all layers below it are redrawn: what
    differs along a row is what these decide, and what stays the same is what those above have decided. In the first
    panel nothing is fixed.

    Args:
        images: Means of p(x|z), ``(L, rows, columns, H, W)``, with a channel axis before H or without, in [0, 1].
        names: Names of the layers, top first; zL, ..., z1 by default.

    Returns:
        Panels side by side, at most three in a row.

    Raises:
        InputError: The images have another layout, or there is not one name per layer.

    Example:
        >>> import numpy as np
        >>> figure = layers(np.zeros((3, 4, 6, 8, 8)))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['all redrawn', 'z3 held in each row', 'z3, z2 held in each row']
    """
    if images.ndim not in (5, 6) or 0 in images.shape:
        raise InputError(
            f"layers have the shape (L, rows, columns, H, W), with a channel axis before H or without; these have "
            f"{images.shape}. For each layer and row, decode samples that share the layers above it."
        )
    count, rows, columns = images.shape[:3]
    names = [f"z{number}" for number in range(count, 0, -1)] if names is None else list(map(as_text, names))
    if len(names) != count:
        raise InputError(f"there are {count} layers of images, but {len(names)} names: give one per layer, top first")
    pictures = [tile(panel.reshape(rows * columns, *images.shape[3:]), columns=columns) for panel in images]
    across = min(count, 3)
    height, width = pictures[0].shape[:2]
    inches = max(min(0.45 * columns, 4), 2.6)  # per panel
    figsize = (across * (inches + 0.2), math.ceil(count / across) * (inches * height / width + 0.4))
    figure = Figure(figsize=figsize, layout="constrained")
    grid = figure.subplots(math.ceil(count / across), across, squeeze=False).ravel()
    for level, (axes, picture) in enumerate(zip(grid, pictures, strict=False)):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
        axes.set_anchor("NW")
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[])
        set_title(axes, _title(names[:level]), size=9)
    for axes in grid[count:]:
        axes.remove()
    return figure


def _title(held: Sequence[str]) -> str:
    """Which layers are fixed along a row; many layers are given as a range."""
    shown = ", ".join(held) if len(held) <= 3 else f"{held[0]} to {held[-1]}"
    return f"{shown} held in each row" if held else "all redrawn"
