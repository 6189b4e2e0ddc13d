"""Files that are whole or not there: written in a folder of their own, then renamed."""

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
"""How the names of the folders begin in which files are while they are written."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to; when the block ends well, the file takes `path`'s place in one step.

    A crash at any moment leaves the old file or the new one, never a part. The temporary file has the final name, since
    writers choose their format by its ending, and lies in a folder beside `path` that its writer has locked. What a
    crash leaves there is removed by whoever next writes a file beside it; that of a writer who lives is let be. The
    file gets the permissions that the umask gives, whatever the writer's library made of them.

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
        refused = of_system(error)  # which writers of other libraries tell in their own way
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
    """The lock of an empty folder of this name: made, or left by a writer who is dead; None if it is another's."""
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
    except (BlockingIOError, FileNotFoundError):  # another one was faster
        return None
    except OSError:
        if made:  # a folder of another number would be no better
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
    """Whether it is a folder, and this user's: what others leave in a shared place is not written into."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (os.name != "posix" or found.st_uid == os.geteuid())


def _discard(lock: FolderLock) -> None:
    """Removes a folder that is held, and gives its lock back."""
    if not lock.is_lost():
        shutil.rmtree(lock.folder, ignore_errors=True)
    lock.release()


def remove(path: Path) -> None:
    """Removes a file, a folder with all in it, or a link; what a link leads to stays.

    Raises:
        OSError: It cannot be removed.
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
    """Writes JSON for people to read, too; refuses NaN, which is no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON.

    Raises:
        InputError: The file is missing, is no JSON, or gives a name twice, of which one would be lost.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
    except OSError as error:
        raise InputError(f"cannot read {in_words(error, path)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}). It may be truncated: restore it from a copy.") from error


def check_readable(path: Path) -> None:
    """Says why the system gives no file, which readers of other libraries tell in words of their own.

    Raises:
        InputError: It cannot be opened.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {in_words(error, path)}") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r} twice")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths name one file or folder, by links or other spellings, too."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, which need not exist, is a folder or lies somewhere in it, links seen through.

    Example:
        >>> lies_in(Path("a/../b/c"), Path("b")), lies_in(Path("bc"), Path("b"))
        (True, False)
    """
    places = (path.resolve(), path.parent.resolve() / path.name)  # of a link: what it names, and where it lies
    return any(is_same(above, folder) for place in places for above in (place, *place.parents))
