"""Locks on folders: a process that dies releases its lock, and no file is left behind."""

import os
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = ["FolderLock"]


class FolderLock:
    """The lock on a folder, which has one holder at a time; the system releases it when a process ends.

    It is on the folder itself and not on its name: a folder that is moved keeps it. Where the system has no such
    lock (Windows, some network file systems) anyone can take it, and :attr:`is_sure` is False.

    Args:
        folder: Folder to lock.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with FolderLock(folder):
        ...     FolderLock(folder).is_free()
        False
        >>> FolderLock(folder).is_free()
        True
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.is_sure = False
        self._descriptor: int | None = None
        self._identity: os.stat_result | None = None

    def take(self) -> "FolderLock":
        """Takes the lock, unless this object already holds it.

        Raises:
            BlockingIOError: The lock is held elsewhere.
            OSError: There is no such folder, or it cannot be read.
        """
        if self._identity is not None:
            return self
        self._identity = self.folder.stat()
        if fcntl is None:
            return self
        try:
            self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            self._identity = os.fstat(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_sure = True
        except OSError as error:
            if isinstance(error, BlockingIOError) or self._descriptor is None:
                self.release()
                raise
        return self

    def release(self) -> None:
        """Releases the lock, if this object holds it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity, self.is_sure = None, None, False

    def is_free(self) -> bool:
        """Whether the lock could be taken at this moment."""
        try:
            FolderLock(self.folder).take().release()
        except BlockingIOError:
            return False
        return True

    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._identity is not None

    def is_lost(self) -> bool:
        """Whether the folder was moved, removed or replaced since the lock was taken: its name then leads elsewhere."""
        if self._identity is None:
            return False
        try:
            return not os.path.samestat(self._identity, self.folder.stat())
        except OSError:
            return True

    def __enter__(self) -> "FolderLock":
        return self.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
