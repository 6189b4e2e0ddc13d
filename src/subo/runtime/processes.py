"""The processes that share the batches of one run: they connect at a free port, and none outlives the first.

Fabric starts the others as copies of the first one's command. It ends all when one of the others fails, but not when
the first one is gone; they would then wait for it for half an hour.
"""

import os
import socket
import threading
import time
from collections.abc import Callable

from subo.runtime.launchers import STARTED_BY_SUBO, launched

__all__ = ["end_with", "is_first", "keep_together", "last_words", "wait_for_the_first"]

_LOOK = 0.5  # seconds between looks
_PATIENCE = 5.0  # seconds for the first process to say what went wrong

last_words: list[Callable[[], str]] = []
"""What a process says when the first one is gone, which can't say anything any more; see subo.runtime.together."""


def keep_together() -> None:
    """Prepares the first process to start others, each of which ends when the first one does.

    Processes that another launcher starts, such as ``torchrun``, are left to it.
    """
    if launched() is not None:
        return
    if "LOCAL_RANK" not in os.environ:
        os.environ[STARTED_BY_SUBO] = str(os.getpid())
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the others need not report that the first one is gone
        if not _is_free(os.environ.get("MASTER_PORT", "0")):
            del os.environ["MASTER_PORT"]  # then Fabric looks for a free one
    elif not is_first():
        threading.Thread(target=_follow, args=(int(os.environ[STARTED_BY_SUBO]),), daemon=True).start()


def is_first() -> bool:
    """Whether this is the process that reports: it was not started by another one of the same run."""
    if (among := launched()) is not None:
        return among.rank == 0
    return STARTED_BY_SUBO not in os.environ or int(os.environ[STARTED_BY_SUBO]) == os.getpid()


def end_with(*messages: str, code: int) -> None:
    """Ends this process at once, whatever its main thread waits for."""
    for message in messages:
        os.write(2, f"subo: {message}\n".encode(errors="backslashreplace"))
    os._exit(code)


def wait_for_the_first() -> None:
    """Gives the first process, which most likely failed in the same way, time to report it and end.

    This process ends with it. If only this one failed, it goes on and reports the failure itself.
    """
    if not is_first():
        time.sleep(_PATIENCE)


def _follow(first: int) -> None:
    while os.getppid() == first:
        time.sleep(_LOOK)
    end_with(*(words() for words in last_words), code=1)


def _is_free(port: str) -> bool:
    """Whether this process can listen on a port of this machine."""
    with socket.socket() as listener:
        try:
            listener.bind(("", int(port)))
        except (OSError, ValueError, OverflowError):
            return False
    return True
