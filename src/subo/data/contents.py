"""What a file, a folder or a named set holds, before it is a data set; its labels, and the order of its files."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from subo.data.classes import numbered
from subo.data.splits import Split
from subo.data.tables.schema import Schema
from subo.errors import InputError

__all__ = ["Contents", "by_number", "labeled"]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a source holds.

    Attributes:
        parts: One split with all rows in their order, or train, validation and test.
        names: Names of a table's columns.
        classes: What the labels 0, 1, ... stand for; integers if labels are numbers.
        divided: Whether the parts were split at random rather than given by the source.
        notes: Descriptions of what was not read and how images were changed.
        table: What the columns are, for a table of mixed columns.
        beside: What the columns of a condition are, for numbers of one kind that have any beside them.
    """

    parts: tuple[Split, ...]
    names: tuple[str, ...] | None = None
    classes: tuple[int | str, ...] | None = None
    divided: bool = False
    notes: tuple[str, ...] = ()
    table: Schema | None = None
    beside: Schema | None = None


def labeled(rows: Split, labels: np.ndarray | None, where: str | Path, notes: tuple[str, ...] = ()) -> Contents:
    """One split, with the classes named by its labels."""
    if labels is None:
        return Contents((rows,), notes=notes)
    if labels.dtype.kind not in "iubSU" or labels.shape != (len(rows),):
        raise InputError(
            f"{where}: labels must be {len(rows)} integers or names, one per row; got an array of shape {labels.shape} "
            f"of {labels.dtype}"
        )
    try:
        classes, numbers = numbered(np.char.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: labels that are bytes must be text in UTF-8 ({error}): give text") from error
    return Contents((replace(rows, labels=numbers),), classes=classes, notes=notes)


def by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key for names in natural order: 2.npy before 10.npy; for equal numbers, 01.npy before 1.npy."""
    parts = re.split(r"(\d+)", path.name)  # every second part is digits
    return [(int(part), "") if odd % 2 else (-1, part) for odd, part in enumerate(parts)], path.name
