"""What a file, a folder or a named set holds, before it is a data set."""

from dataclasses import dataclass

from subo.data.splits import Split

__all__ = ["Contents"]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a source holds.

    Attributes:
        parts: One split with all rows in their order, or train, validation and test.
        names: The names of a table's columns.
        classes: What the labels 0, 1, ... stand for; integers where labels are numbers.
        divided: Whether the parts were divided at random, and are not the source's own.
        notes: What was not read, and how images were changed, in words.
    """

    parts: tuple[Split, ...]
    names: tuple[str, ...] | None = None
    classes: tuple[int | str, ...] | None = None
    divided: bool = False
    notes: tuple[str, ...] = ()
