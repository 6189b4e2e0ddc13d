"""What can go wrong in a way that a person can mend: each message says what happened and what to do."""

import errno
import os
import re
from pathlib import Path

__all__ = ["DivergedError", "InputError", "Interrupted", "in_words", "of_system"]


class InputError(ValueError):
    """Something a person gave us can't be used.

    The message is complete in itself: what was expected, what came, the usual cause and the mend. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


class DivergedError(RuntimeError):
    """Training met a number that is not finite; says at which step, in which term, and what to try."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop (Ctrl-C, SIGTERM, SIGHUP) and has saved what it had.

    Notebooks and searches over settings, which take an exception for one more fit that failed, end with it.

    Args:
        message: Where it stopped and how to go on.
        signal: The signal's number.
    """

    def __init__(self, message: str, *, signal: int):
        super().__init__(message)
        self.signal = signal


_FULL = "Free some room, or name another place."
_DENIED = "Change who may read and write there, or name another place."
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "Name a place that may be written to.",
    errno.ENOENT: "Name a place in a folder that exists; what was there may have been moved or removed.",
    errno.ENOTDIR: "A part of the path is a file, and a folder is expected: name another place.",
    errno.EISDIR: "It is a folder, and a file is expected: remove it, or name another place.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Its links lead in a circle: mend them, or name another place.",
    errno.EIO: "The disk, or the way to it, fails: try another place.",
    errno.EMFILE: "Raise the limit (ulimit -n).",
}


def in_words(error: OSError, path: str | Path | None = None) -> str:
    """What the operating system refused, as one sentence with the path, and what can be done.

    Args:
        error: What it said.
        path: Where, if the error does not tell or tells of a file that only the program knows.

    Example:
        >>> in_words(PermissionError(13, "Permission denied", "run"))
        'run: Permission denied. Change who may read and write there, or name another place.'
    """
    where = path if path is not None else error.filename
    what = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Name another place, or try again.")
    return f"{'' if where is None else f'{os.fsdecode(where)}: '}{what}. {remedy}"


def of_system(error: BaseException | None) -> OSError | None:
    """The operating system's error, if that is what a library's error tells of; None of any other.

    Example:
        >>> of_system(RuntimeError("I/O error: No space left on device (os error 28)"))
        OSError(28, 'No space left on device')
    """
    while error is not None and not isinstance(error, InputError | Interrupted):
        if re.search(r"requested and \d+ written", str(error)):  # NumPy's word for it
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError):
            return error
        if told := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(told[1]), os.strerror(int(told[1])))
        error = error.__cause__ or error.__context__
    return None
