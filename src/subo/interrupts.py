"""Ctrl-C and SIGTERM as a question that training asks between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Inside, the first SIGINT or SIGTERM is noted instead of obeyed; a second one is obeyed at once.

    Signals belong to the main thread; in another one nothing is caught.

    Yields:
        A function that gives the number of the signal that came, or 0.
    """
    came = 0
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        nonlocal came
        came = number
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: came
    finally:
        restore()
