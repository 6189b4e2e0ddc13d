"""What a file, a folder or a named set holds, before it is a data set."""

from dataclasses import dataclass
from typing import Any

from subo.data.splits import Split
from subo.data.tables.schema import Schema

__all__ = ["Contents"]


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
        frame: The cells of such a table, as they came.
    """

    parts: tuple[Split, ...]
    names: tuple[str, ...] | None = None
    classes: tuple[int | str, ...] | None = None
    divided: bool = False
    notes: tuple[str, ...] = ()
    table: Schema | None = None
    beside: Schema | None = None
    frame: Any = None
