"""Errors that the user can fix: each message says what happened and what to do."""

import errno
import os
import re
from pathlib import Path

__all__ = ["DivergedError", "InputError", "Interrupted", "ProcessLostError", "in_words", "of_system"]


class InputError(ValueError):
    """The user's input is invalid.

    The message is complete in itself: what was expected, what was received, the likely cause and the fix. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


class DivergedError(RuntimeError):
    """Training encountered a number that is not finite; says at which step, in which term, and what to try."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop (Ctrl-C, SIGTERM, SIGHUP) and has saved its state.

    It also ends notebooks and hyperparameter searches, which treat an ordinary exception as one more failed fit.

    Args:
        message: Where it stopped and how to continue.
        signal: Number of the signal.
    """

    def __init__(self, message: str, *, signal: int):
        super().__init__(message)
        self.signal = signal


class ProcessLostError(RuntimeError):
    """One of the processes that share a training has ended before its time, and the others can't go on.

    Args:
        message: Which one, how it ended, and what is left to go on from.
        code: Exit code of a command that this ends: 128 + n after the signal n.
    """

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


_FULL = "Free some space, or choose another path."
_DENIED = "Change the permissions there, or choose another path."
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "Choose a path that can be written to.",
    errno.ENOENT: "Choose a path in a folder that exists; what was there may have been moved or removed.",
    errno.ENOTDIR: "A part of the path is a file where a folder is expected: choose another path.",
    errno.EISDIR: "It is a folder where a file is expected: remove it, or choose another path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Its links form a cycle: fix them, or choose another path.",
    errno.EIO: "The disk, or the connection to it, is failing: try another path.",
    errno.EMFILE: "Raise the limit (ulimit -n).",
}


def in_words(error: OSError, path: str | Path | None = None) -> str:
    """What the operating system refused, as one sentence with the path, and what can be done.

    Args:
        error: The system's error.
        path: The path to show, if the error names none or names an internal file of the program.

    Example:
        >>> in_words(PermissionError(13, "Permission denied", "run"))
        'run: Permission denied. Change the permissions there, or choose another path.'
    """
    where = path if path is not None else error.filename
    what = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Choose another path, or try again.")
    return f"{'' if where is None else f'{os.fsdecode(where)}: '}{what}. {remedy}"


def of_system(error: BaseException | None) -> OSError | None:
    """The operating system's error behind a library's error; None if there is none.

    Example:
        >>> of_system(RuntimeError("I/O error: No space left on device (os error 28)"))
        OSError(28, 'No space left on device')
    """
    while error is not None and not isinstance(error, InputError | Interrupted):
        if re.search(r"requested and \d+ written", str(error)):  # NumPy's wording
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError):
            return error
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(found[1]), os.strerror(int(found[1])))
        error = error.__cause__ or error.__context__
    return None
