"""The epochs' records in ``metrics.jsonl``, one per line: read, written, and appended atomically."""

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from subo.errors import InputError, in_words
from subo.files.records import EPOCH, check_record
from subo.files.whole import write_text

__all__ = ["append_line", "read_lines", "write_lines"]

_REMEDY = "The file may be cut off or damaged: `resume` rewrites it from the checkpoint; without one, remove the line."


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The epochs' records; empty if there is no file.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return []
    records = []
    try:
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            where = f"{path}, line {number}, is not the record of an epoch"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} ({error}). {_REMEDY}") from error
            check_record(record, EPOCH, where=where, remedy=_REMEDY)
            records.append(record)
    except OSError as error:
        raise InputError(f"cannot read {in_words(error, path)}") from error
    return records


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Replaces the epochs' records."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends an epoch's record, whole or not at all.

    Raises:
        InputError: The file cannot be written to; it is left unchanged.
    """
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(size)
            raise InputError(f"cannot write {in_words(error, path)}") from error
