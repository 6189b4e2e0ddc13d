"""Atomic writes: files are written in a temporary folder, then renamed, so that they are whole or not there."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from subo.errors import InputError, in_words, of_system
from subo.files.locks import FolderLock

__all__ = [
    "UNFINISHED",
    "check_readable",
    "is_same",
    "lies_in",
    "read_json",
    "remove",
    "replacing",
    "write_json",
    "write_text",
]

UNFINISHED = ".unfinished-"
"""Prefix of the folders that hold files while they are being written."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to; when the block succeeds, the file replaces `path` in one step.

    A crash at any moment leaves the old file or the new one, never a part. The temporary file has the final name, since
    writers choose their format by its ending, and lies in a folder beside `path` that its writer has locked. What a
    crash leaves there is removed by the next writer of a file beside it; the folder of a live writer is left alone. The
    file gets the permissions that the umask gives, whatever the writer's library set.

    Raises:
        InputError: The folder does not exist or cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        lock, temporary = _place_beside(path)
    except OSError as error:
        raise InputError(f"cannot write {in_words(error, path)}") from error
    try:
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        refused = of_system(error)  # writers of other libraries wrap it in their own errors
        if refused is None:
            raise
        raise InputError(f"cannot write {in_words(refused, path)}") from error
    finally:
        _discard(lock)


def _place_beside(path: Path) -> tuple[FolderLock, Path]:
    """An empty file of the same name in a folder beside a path, with the folder's lock."""
    number, lock = 0, None
    while lock is None:
        lock, number = _claimed(path.parent / f"{UNFINISHED}{number}"), number + 1
    try:
        for other in count(number):
            left = path.parent / f"{UNFINISHED}{other}"
            if not os.path.lexists(left):
                break
            if (abandoned := _claimed(left)) is not None:
                _discard(abandoned)
        temporary = lock.folder / path.name
        temporary.touch()
    except OSError:
        _discard(lock)
        raise
    return lock, temporary


def _claimed(folder: Path) -> FolderLock | None:
    """The lock of an empty folder of this name, new or left by a dead process; None if it belongs to another one."""
    try:
        folder.mkdir()
        made = True
    except FileExistsError:
        made = False
        if not _is_ours(folder):
            return None
    lock = FolderLock(folder)
    try:
        lock.take()
    except (BlockingIOError, FileNotFoundError):  # another process was faster
        return None
    except OSError:
        if made:  # a folder with another number would fail, too
            folder.rmdir()
            raise
        return None
    if lock.is_lost() or not (made or lock.is_sure):
        lock.release()
        return None
    for left in () if made else list(folder.iterdir()):
        remove(left)
    return lock


def _is_ours(folder: Path) -> bool:
    """Whether this is a folder that this user owns: what others leave in a shared place is not written into."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (os.name != "posix" or found.st_uid == os.geteuid())


def _discard(lock: FolderLock) -> None:
    """Removes a locked folder and releases its lock."""
    if not lock.is_lost():
        shutil.rmtree(lock.folder, ignore_errors=True)
    lock.release()


def remove(path: Path) -> None:
    """Removes a file, a folder with its content, or a link; the target of a link stays.

    Raises:
        OSError: The path cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes human-readable JSON; refuses NaN, which is not valid JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON.

    Raises:
        InputError: The file is missing, is not JSON, or contains a name twice, so that one value would be lost.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
    except OSError as error:
        raise InputError(f"cannot read {in_words(error, path)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}). It may be truncated: restore it from a copy.") from error


def check_readable(path: Path) -> None:
    """Refuses a file that the system cannot open; other libraries' readers would report it in their own words.

    Raises:
        InputError: The file cannot be opened.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {in_words(error, path)}") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it contains {next(name for name in names if names.count(name) > 1)!r} twice")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths name the same file or folder, even by links or other spellings."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, which need not exist, is a folder or lies anywhere inside it, with links resolved.

    Example:
        >>> lies_in(Path("a/../b/c"), Path("b")), lies_in(Path("bc"), Path("b"))
        (True, False)
    """
    places = (path.resolve(), path.parent.resolve() / path.name)  # for a link: its target, and where it lies
    return any(is_same(above, folder) for place in places for above in (place, *place.parents))
