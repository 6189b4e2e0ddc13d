"""What all figures share: colors, the look of axes and legends, and how they are saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, get_font

from subo.errors import InputError
from subo.files.whole import replacing

__all__ = [
    "BLUE",
    "CLASS_COLORS",
    "GREY",
    "INK",
    "ORANGE",
    "PALE",
    "as_text",
    "legend_below",
    "legend_of",
    "panel_of",
    "save",
    "set_labels",
    "set_title",
    "with_ending",
]

INK, GREY, PALE = "#333333", "#a6a6a6", "#dddddd"
BLUE, ORANGE = "#0072b2", "#d55e00"
CLASS_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9"),
    *("#cc79a7", "#882255", "#b3a800", "#333333", "#a6a6a6"),
)


def as_text(name: object, *, limit: int = 40) -> str:
    r"""A name from the data in a form that figures can show: no math, one line, only letters that the font has.

    Missing letters are spelled out, so that two names stay distinct. Long names lose their middle, and a leading
    underscore, which would make matplotlib leave a curve out of the legend, gets a space in front.

    Args:
        name: Name of a column, a class, a file or a run.
        limit: Maximum number of letters.

    Example:
        >>> print(as_text("price_$"), as_text("a" * 50, limit=9), as_text("\udcff"))
        price_\$ aaaaa…aaa \udcff
    """
    font = get_font(findfont(FontProperties()))
    words = " ".join(str(name).split())
    spelled = "".join(c if c.isprintable() and font.get_char_index(ord(c)) else _spelled(c) for c in words)
    if len(spelled) > limit:
        spelled = f"{spelled[: limit - limit // 3 - 1]}…{spelled[-(limit // 3) :]}"
    return f"{' ' * spelled.startswith('_')}{spelled}".replace("$", r"\$")


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def set_title(axes: Axes, text: str, *, size: int = 11) -> None:
    """A title on the left, in ink."""
    axes.set_title(text, loc="left", fontsize=size, color=INK)


def set_labels(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Applies the look of all figures: a title on the left, two grey spines, text in ink."""
    set_title(axes, title)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=9, labelcolor=INK, color=GREY)


def panel_of(
    panel: Axes | None, *, figsize: tuple[int | float, int | float] = (6, 4), layout: str = "constrained"
) -> tuple[Figure, Axes]:
    """The given panel and its figure, or else the only panel of a new figure.

    Args:
        panel: Axes to draw on.
        figsize: Size of a new figure, in inches.
        layout: Layout engine of a new figure.
    """
    if panel is None:
        figure = Figure(figsize=figsize, layout=layout)  # pyright: ignore[reportArgumentType]
        return figure, figure.subplots()
    figure: Any = panel.get_figure()
    return figure.figure if isinstance(figure, SubFigure) else figure, panel


def legend_of(figure: Figure, panel: Axes | None, handles: Sequence[Artist] | None = None) -> None:
    """Adds a legend inside a given panel, which may be one of several, or else below the panels of the figure."""
    if panel is None:
        legend_below(figure, handles)
        return
    handles = handles or panel.get_legend_handles_labels()[0]
    panel.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK)


def legend_below(figure: Figure, handles: Sequence[Artist] | None = None) -> None:
    """Adds a legend under all panels, where it hides nothing; by default for the first panel's artists."""
    handles = handles or figure.axes[0].get_legend_handles_labels()[0]
    place = {"loc": "outside lower right", "ncols": 3}
    figure.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK, **place)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: Figure to save.
        path: Path of the .png (150 dots per inch), .pdf or .svg; an existing file is replaced.
    """
    with replacing(with_ending(path, ".png", ".pdf", ".svg")) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")


def with_ending(path: str | Path, *endings: str) -> Path:
    """The path, if its name has one of the endings; raises an InputError otherwise."""
    if Path(path).suffix.lower() not in endings:
        raise InputError(f"'{path}' can't be written: expected a name ending in {' or '.join(endings)}.")
    return Path(path)
