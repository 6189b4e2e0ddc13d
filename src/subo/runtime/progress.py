"""Progress in the terminal: a bar where there is one, a line now and then elsewhere.

rich is imported when a bar is made, since it draws Python's random numbers as it is imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Advance", "StagesBar", "bar", "stages_bar"]


class Advance(Protocol):
    """Tells a bar how much more is done, and what is being done from now on."""

    def __call__(self, count: int | float = 0, /, description: str | None = None) -> None: ...


@contextmanager
def bar(description: str, total: int, *, show: bool) -> Iterator[Advance]:
    """A plain bar for work of known length; gives the function that advances it."""
    with _plain(show=show) as progress:
        task = progress.add_task(description, total=total)

        def advance(count: int | float = 0, /, description: str | None = None) -> None:
            progress.update(task, advance=count, description=description)

        yield advance


def _plain(*, show: bool) -> "Progress":
    """Description, bar, share and time left, where there is a terminal."""
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
    """A bar a stage, all in sight from the start; where there is no terminal, a line when one is done.

    Args:
        progress: Where they are drawn.
        show: Whether lines are printed without a terminal.
    """

    def __init__(self, progress: "Progress", *, show: bool):
        self._progress, self._show = progress, show
        self._tasks: dict[str, TaskID] = {}

    def add(self, title: str, total: int) -> None:
        """Adds a stage of so many data."""
        self._tasks[title] = self._progress.add_task(title, total=total)

    def say(self, message: str) -> None:
        """Prints a line above the bars."""
        if self._show:
            self._progress.console.print(message, highlight=False, soft_wrap=True, markup=False)

    def advance(self, title: str, count: int) -> None:
        """Some data of a stage are done."""
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
