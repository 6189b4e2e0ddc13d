"""Files that are whole or not there: written under a temporary name, then renamed."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subo.errors import InputError

__all__ = ["read_json", "replacing", "write_json", "write_text"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to; when the block ends well, the file takes `path`'s place in one step.

    A crash at any moment leaves the old file or the new one, never a part. The temporary name keeps the ending, since
    writers choose their format by it.

    Raises:
        InputError: The folder does not exist or cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch()
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}. Name a place in a folder that exists and may be written to."
        ) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        InputError: The file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). It may be truncated: restore it from a copy.") from error
