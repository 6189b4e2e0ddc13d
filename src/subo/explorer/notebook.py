"""The page of a run in a notebook."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from subo.experiments.experiment import Experiment, open_latest
from subo.files.whole import replacing
from subo.runtime.arguments import checked_arguments

__all__ = ["Page", "explore"]


@dataclass(frozen=True, repr=False)
class Page:
    """A page, which a notebook shows where it is the value of a cell.

    Attributes:
        html: The page.
        height: Height of its frame in pixels.
    """

    html: str
    height: int

    def __repr__(self) -> str:
        return f"Page of {len(self.html) / 1e6:.1f} MB: save(path) writes it, a notebook shows it"

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" style="width:100%;height:{self.height}px;border:0"></iframe>'

    def save(self, path: str | Path) -> None:
        """Writes the page to a file, which a browser opens."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(self.html, encoding="utf-8")


@checked_arguments
def explore(
    run: Experiment | str | Path, *, split: Literal["test", "validation", "train"] = "test", height: int = 900
) -> Page:
    """What a run learned, to look at and to touch, as ``subo report`` writes it.

    Args:
        run: A run, or its folder; its fit may still be going on.
        split: Which split of the run's data the examples are of.
        height: Height in a notebook, in pixels.

    Returns:
        The page: the value of a notebook's cell, or written by ``save``.
    """
    from subo.explorer.page import page  # here, since they import matplotlib, which takes a second
    from subo.explorer.record import record_of

    opened = run if isinstance(run, Experiment) else open_latest(run)
    return Page(page(record_of(opened, opened.data(), split=split)), height)
