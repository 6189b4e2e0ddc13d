"""What can go wrong in a way that a person can mend: each message says what happened and what to do."""

__all__ = ["DivergedError", "InputError", "Interrupted"]


class InputError(ValueError):
    """Something a person gave us can't be used.

    The message is complete in itself: what was expected, what came, the usual cause and the mend. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


class DivergedError(RuntimeError):
    """Training met a number that is not finite; says at which step, in which term, and what to try."""


class Interrupted(Exception):  # noqa: N818 (not an error: somebody asked for it)
    """Training was asked to stop (Ctrl-C, SIGTERM) and has saved what it had.

    Args:
        message: Where it stopped and how to go on.
        signal: The signal's number.
    """

    def __init__(self, message: str, *, signal: int):
        super().__init__(message)
        self.signal = signal
