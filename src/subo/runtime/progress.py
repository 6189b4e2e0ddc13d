"""Progress: a bar in a terminal, an occasional line elsewhere.

rich is imported when a bar is made because importing it draws from Python's random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Advance", "StagesBar", "bar", "stages_bar"]


class Advance(Protocol):
    """Advances a bar by the work done since, and optionally changes its description."""

    def __call__(self, count: int | float = 0, /, description: str | None = None) -> None: ...


@contextmanager
def bar(description: str, total: int, *, show: bool) -> Iterator[Advance]:
    """A plain bar for work of known length; yields the function that advances it."""
    with _plain(show=show) as progress:
        task = progress.add_task(description, total=total)

        def advance(count: int | float = 0, /, description: str | None = None) -> None:
            progress.update(task, advance=count, description=description)

        yield advance


def _plain(*, show: bool) -> "Progress":
    """Description, bar, percentage and time left, if there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (show and console.is_terminal),
        transient=True,
    )


class StagesBar:
    """One bar per stage, all visible from the start; without a terminal, a line when a stage is done.

    Args:
        progress: Display in which the bars are drawn.
        show: Whether lines are printed without a terminal.
    """

    def __init__(self, progress: "Progress", *, show: bool):
        self._progress, self._show = progress, show
        self._tasks: dict[str, TaskID] = {}

    def add(self, title: str, total: int) -> None:
        """Adds a stage that processes `total` examples."""
        self._tasks[title] = self._progress.add_task(title, total=total)

    def say(self, message: str) -> None:
        """Prints a line above the bars."""
        if self._show:
            self._progress.console.print(message, highlight=False, soft_wrap=True, markup=False)

    def advance(self, title: str, count: int) -> None:
        """Records that `count` more examples of a stage are done."""
        task = self._tasks[title]
        self._progress.advance(task, count)
        done = next(known for known in self._progress.tasks if known.id == task)
        if self._show and not self._progress.console.is_terminal and done.completed >= (done.total or 0):
            self._progress.console.print(f"done: {title}", highlight=False)


@contextmanager
def stages_bar(*, show: bool) -> Iterator[StagesBar]:
    """Bars for work in several stages."""
    with _plain(show=show) as progress:
        yield StagesBar(progress, show=show)
