"""The one exception that means: the input can't be used, and here is what to do."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something a person gave us can't be used.

    The message is complete in itself: what was expected, what came, the usual cause and the mend. The
    command line prints it alone, without a traceback, and exits with code 2.
    """
