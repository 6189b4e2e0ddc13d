"""The training bar: bound, rate, distortion, speed and time left."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from subo.training.step import Step

if TYPE_CHECKING:
    from subo.training.history import Epoch

__all__ = ["TrainingBar"]


_REFRESH = 0.2  # seconds: reading the numbers of every step would cost more than some steps do


_LINES = 10  # without a terminal


class TrainingBar:
    """Bound, rate, distortion, examples per second and time left.

    Args:
        epochs: Total number of epochs, or None if the clock decides.
        steps_per_epoch: Number of steps per epoch.
        minutes: Time limit.
        show: Whether anything is shown.
    """

    def __init__(self, epochs: int | None, steps_per_epoch: int, minutes: float | None, *, show: bool):
        self._total = None if epochs is None else epochs * steps_per_epoch
        self._epochs, self._minutes, self._show = epochs, minutes, show
        self._console = Console(stderr=True)
        self._updates = ""
        self._data, self._since, self._shown = 0, time.monotonic(), 0.0
        self._printed = -1  # tenths of training done at the last line
        self._progress = Progress(
            SpinnerColumn("dots" if self._console.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (show and self._console.is_terminal),
            transient=True,
        )
        total = 60 * minutes if self._total is None and minutes else self._total
        self._task = self._progress.add_task("epoch 1", total=total, numbers="")
        self._started = time.monotonic()

    def __enter__(self) -> "TrainingBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, step: Step, epoch: int, num_data: int) -> None:
        """Shows a step if an update is due."""
        self._data += num_data
        now = time.monotonic()
        if not self._show or now - self._shown < _REFRESH:
            return
        rate, distortion = step.loss.rate.sum(0).mean().item(), step.loss.distortion.mean().item()
        speed = self._data / max(now - self._since, 1e-9)
        self._data, self._since, self._shown = 0, now, now
        of = f"/{self._epochs}" if self._epochs else ""
        self._progress.update(
            self._task,
            completed=step.number if self._total else now - self._started,
            description=f"epoch {epoch + 1}{of}",
            numbers=f"bound {step.loss.bound.mean().item():.2f} = -(rate {rate:.2f} + distortion {distortion:.2f}) nats"
            f"  {speed:,.0f} examples/s",
        )

    def epoch(self, epoch: "Epoch") -> None:
        """Says when aggressive updates end; without a terminal, also a line for every tenth of the training."""
        if self._show and self._updates == "aggressive" != epoch.updates:
            self._console.print(f"from epoch {epoch.epoch} on, theta and phi are updated jointly", highlight=False)
        self._updates = epoch.updates
        if not self._show or self._console.is_terminal:
            return
        by_epochs = epoch.epoch / self._epochs if self._epochs else 0.0
        by_time = epoch.seconds / (60 * self._minutes) if self._minutes else 0.0
        done = int(_LINES * min(1.0, max(by_epochs, by_time)))
        if done > self._printed:
            self._printed = done
            held_out = f", validation bound {epoch.validation.bound:.2f}" if epoch.validation else ""
            self._console.print(
                f"epoch {epoch.epoch}: bound {epoch.train.bound:.2f}, rate {epoch.train.rate:.2f}, "
                f"distortion {epoch.train.distortion:.2f}{held_out} nats, {epoch.seconds:.0f} s",
                highlight=False,
                soft_wrap=True,
            )
