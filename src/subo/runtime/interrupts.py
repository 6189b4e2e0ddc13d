"""Signals that ask to stop: Ctrl-C (SIGINT), SIGTERM, and SIGHUP, which a closing terminal sends.

One rule holds for every command: the first such signal n ends it with one message and the exit code 128 + n. Training
checks for it between two steps and writes a checkpoint first (:func:`stop_signals`); everywhere else it is an
exception (:class:`Stopped`), so that files are written whole or not at all (:class:`Stops`). A signal that was
ignored when the program started, as with ``nohup``, stays ignored.
"""

import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Stopped", "Stops", "stop_signals"]

_REPEATED = 1.0  # seconds in which the same request may arrive again: shells and `timeout` send it to group and process
_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal that asks to stop has been received.

    Args:
        signal: Number of the signal.
    """

    def __init__(self, signal: int):
        super().__init__("stopped.")
        self.signal = signal


class Stops:
    """A context in which a command obeys stop signals.

    Before the command begins, while the program is being imported, nothing is at stake, and libraries may mistake an
    exception for a failed import: the process ends at once. From :meth:`begin` on, the first signal raises
    :class:`Stopped`, and another one ends the process. C code may swallow an exception, so code that ends the process
    checks :attr:`came`.

    Attributes:
        came: Number of the signal received, or 0.
    """

    def __init__(self):
        self.came = 0
        self._began, self._since = False, 0.0
        self._previous: dict[int, Any] = {}

    def begin(self) -> None:
        """Marks the beginning of the command."""
        self._began = True

    def __enter__(self) -> "Stops":
        self._previous = _handled_by(self._obey)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._previous)

    def _obey(self, number: int, frame: FrameType | None) -> None:
        if self.came and time.monotonic() - self._since < _REPEATED:
            return
        first = not self.came
        self.came, self._since = number, time.monotonic()
        _leave_closed_terminal(number)
        if self._began and first:
            raise Stopped(number)
        os.write(2, b"subo: stopped.\n")
        os._exit(128 + number)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Inside, the first stop signal is noted instead of obeyed; another one, a second later, is obeyed.

    Signals belong to the main thread; in other threads nothing is caught.

    Yields:
        A function that returns the number of the signal received, or 0.
    """
    came, since, previous = 0, 0.0, dict[int, Any]()

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came, since
        if not came:
            came, since = number, time.monotonic()
            _leave_closed_terminal(number)
        elif time.monotonic() - since > _REPEATED:
            _restore(previous)
            signal.raise_signal(number)

    previous |= _handled_by(note)
    try:
        yield lambda: came
    finally:
        _restore(previous)


def _handled_by(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of the signals that are not ignored; returns the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    previous = {number: signal.getsignal(number) for number in _NUMBERS}
    previous = {number: old for number, old in previous.items() if old not in (signal.SIG_IGN, None)}
    for number in previous:
        signal.signal(number, handler)
    return previous


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _leave_closed_terminal(number: int) -> None:
    """After SIGHUP, discards output to a terminal that is gone: every write to it would be an error."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for descriptor in (1, 2):
        try:
            gone = stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)
        except OSError:  # closed
            continue
        if gone:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
