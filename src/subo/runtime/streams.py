"""Standard output and error: neither text that a terminal cannot show nor a closed terminal stops the work."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["standard_streams"]


class _Stream:
    """A stream that goes on after it fails: the first error is kept, and what is written from then on is lost."""

    def __init__(self, stream: Any):
        self.error: OSError | None = None
        self._is_ours = stream is None
        if stream is None:  # closed before the program began
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream = open(os.devnull, "w")  # noqa: SIM115 (takes the number of the closed one, which no file may get)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for letters that its encoding lacks
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, if still possible."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, if still possible."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def give_back(self) -> None:
        """Closes the stream if it was opened here."""
        if self._is_ours:
            self._stream.close()

    def _fail(self, error: OSError) -> None:
        self.error = error
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())  # or what is buffered would fail again when the process ends
            os.close(devnull)
        except OSError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams() -> Iterator[_Stream]:
    """Inside, writing to ``sys.stdout`` and ``sys.stderr`` raises nothing.

    Yields:
        Standard output; its `error` is the first failure, if any.
    """
    before = sys.stdout, sys.stderr
    output, messages = _Stream(sys.stdout), _Stream(sys.stderr)
    sys.stdout, sys.stderr = output, messages  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before
        output.give_back()
        messages.give_back()
