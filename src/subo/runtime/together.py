"""The processes of one run from their start to the end of training: if one is lost, the others end with one message.

A process that waits for the numbers of another one would wait for half an hour. The first process looks after those
that it started, these look after the first (:mod:`subo.runtime.processes`), and where a launcher started them, a broken
connection says that one is lost.
"""

import re
import signal
import threading
import time
from collections.abc import Callable
from subprocess import Popen
from types import TracebackType
from typing import TYPE_CHECKING, Any

from subo.errors import DivergedError, InputError, ProcessLostError
from subo.runtime.launchers import launched
from subo.runtime.processes import end_with, is_first, last_words

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Together"]

_LOOK = 0.2  # seconds between looks
_PATIENCE = 5.0  # seconds for a broken connection to be followed by the end of the process behind it
_GRACE = 10.0  # seconds for the main thread to find out by itself, before the process ends without it
_BROKEN = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused)|broken pipe|closed by peer|socket|gloo|nccl", re.IGNORECASE
)


class Together:
    """A context in which processes share a training, from before they are launched.

    Args:
        fabric: Lightning Fabric that launches them.
        left: Says what the run has left to go on from, when one of them is lost.
    """

    def __init__(self, fabric: "Fabric", left: Callable[[], str]):
        self._fabric, self._left = fabric, left
        self._ended = threading.Event()
        self._others: list[Popen] = []

    def __enter__(self) -> "Together":
        if self._fabric.world_size > 1 and launched() is None:
            if is_first():
                threading.Thread(target=self._look_after, daemon=True).start()
            elif self._fabric.local_rank == 1:  # one message is enough
                last_words.append(self._without_the_first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._fabric.world_size == 1:
            return
        unexpected = isinstance(error, Exception) and not isinstance(error, InputError | DivergedError)
        if (among := launched()) is not None:
            if unexpected and _BROKEN.search(str(error)):
                raise ProcessLostError(self._of_launcher(among.by), code=1) from error
        elif is_first():
            lost = self._lost(patience=_PATIENCE) if unexpected else None
            for process in self._others if error is not None else ():
                process.kill()  # they have nothing to add, and would follow anyway
                process.wait()
            if lost is not None:
                raise ProcessLostError(self._message(*lost), code=_exit_code(lost[1])) from error
        elif not unexpected:  # otherwise the first may be gone
            last_words.clear()

    def _look_after(self) -> None:
        """Ends this process if another one is lost, and the main thread waits for it in vain."""
        while not self._ended.wait(_LOOK):
            if (lost := self._lost()) is not None and not self._ended.wait(_GRACE):
                end_with(self._message(*lost), code=_exit_code(lost[1]))

    def _lost(self, *, patience: float = 0.0) -> tuple[int, int] | None:
        """Rank and exit code of a process that failed, as soon as there is one; None if there is none in this time.

        Fabric has its own observer, which would end all of them without a word: it is left nothing to observe.
        """
        launcher: Any = self._fabric.strategy.launcher
        started, until = getattr(launcher, "procs", []), time.monotonic() + patience
        while True:
            while started:
                self._others.append(started.pop(0))
            for rank, process in enumerate(self._others, start=1):
                if process.poll():
                    return rank, process.returncode
            if time.monotonic() >= until:
                return None
            time.sleep(_LOOK)

    def _message(self, rank: int, code: int) -> str:
        of = f"process {rank + 1} of {self._fabric.world_size}"
        if code > 0:
            return f"{of} has failed, with exit code {code}, so training can't go on. {self._left()}"
        hint = " Most likely memory ran out, or someone ended it." if -code == signal.SIGKILL else ""
        return f"{of} was ended by {_name(-code)}, so training can't go on.{hint} {self._left()}"

    def _without_the_first(self) -> str:
        return (
            f"the first of {self._fabric.world_size} processes was ended by a signal, most likely {_name(9)}, so "
            f"training can't go on. {self._left()}"
        )

    def _of_launcher(self, by: str) -> str:
        return (
            f"process {self._fabric.global_rank + 1} of {self._fabric.world_size} lost the connection to another one, "
            f"so training can't go on. What {by} says of the others, on their machines, shows which has ended and why. "
            f"{self._left()}"
        )


def _name(number: int) -> str:
    return f"{signal.Signals(number).name} (signal {number})"


def _exit_code(code: int) -> int:
    return code if code > 0 else 128 - code
