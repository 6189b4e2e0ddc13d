"""The processes that share the batches of one run: they meet at a free port, and none outlives the first.

Fabric starts the others as copies of the first one's command. It ends all when one of the others fails, and leaves them
alone when the first one is gone, where they would wait for it for half an hour.
"""

import os
import socket
import threading
import time

__all__ = ["is_first", "keep_together", "wait_for_the_first"]

_FIRST = "SUBO_FIRST_PROCESS"
_LOOK = 0.5  # seconds between looks
_PATIENCE = 5.0  # seconds in which the first process says what went wrong


def keep_together() -> None:
    """Prepares the first process to start others; each of those ends when the first one does.

    Processes that somebody else starts, such as ``torchrun``, are left to them.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[_FIRST] = str(os.getpid())
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the others need not tell that the first one is gone
        if not _is_free(os.environ.get("MASTER_PORT", "0")):
            del os.environ["MASTER_PORT"]  # then Fabric looks for one that is
    elif not is_first():
        threading.Thread(target=_end_with, args=(int(os.environ[_FIRST]),), daemon=True).start()


def is_first() -> bool:
    """Whether this process was not started by another one of the same run."""
    return _FIRST not in os.environ or int(os.environ[_FIRST]) == os.getpid()


def wait_for_the_first() -> None:
    """Gives the first process, to which the same has happened most likely, the time to say so and to end.

    Its end is that of this one. One that is alone in its trouble goes on, to tell of it.
    """
    if not is_first():
        time.sleep(_PATIENCE)


def _end_with(first: int) -> None:
    while os.getppid() == first:
        time.sleep(_LOOK)
    os._exit(1)


def _is_free(port: str) -> bool:
    """Whether a port of this machine can be listened at."""
    with socket.socket() as listener:
        try:
            listener.bind(("", int(port)))
        except (OSError, ValueError, OverflowError):
            return False
    return True
