"""Reads later data in the same way as the data that a model was fitted to; what cannot be read so is refused."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from subo.data.dataset import Data
from subo.data.meaning import Meaning
from subo.data.rows_on_disk import RowsOnDisk
from subo.data.sparse_rows import SparseRows
from subo.data.splits import Split
from subo.data.stored_rows import Rows, changed, some_of, stored
from subo.errors import InputError

__all__ = ["conform", "in_order", "numbered_alike", "with_num_labels"]

_LISTED = 5  # names listed in a message


def conform(rows: Split, meaning: Meaning, *, where: str) -> Split:
    """Reads data like those of a fit: by what the run has stored, never by the values at hand.

    Bytes are levels ``0 .. levels``, even if none exceeds 1, and True is the highest. Numbers given for pixels
    are what the model sees: ``x / levels`` in [0, 1], or whole levels if it describes those. Channels are moved
    to where the fit's were.

    Args:
        rows: Data, as stored.
        meaning: Meaning of the values of the fit's data.
        where: Name of the data in messages.

    Raises:
        InputError: The data do not match what the model was fitted to.
    """
    if meaning.sequential and rows.lengths is None and rows.x.ndim == 2:  # one array (T, D) is one of them
        rows = replace(rows, labels=None, context={}, names=None, rows=None, lengths=torch.tensor([len(rows.x)]))
    if meaning.sequential != (rows.lengths is not None):
        kinds = ("sequences", "single data")
        fitted, came = kinds if meaning.sequential else kinds[::-1]
        raise InputError(
            f"{where}: the run was fitted to {fitted}, but these are {came}: give it data of the same kind"
        )
    rows = replace(rows, x=_laid_out(rows.x, meaning.event_shape))
    integers = not rows.x.is_floating_point()
    if not meaning.pixels:
        if not integers or meaning.sequential:
            return rows
        if rows.levels == 1 and bool((stored(rows.x) <= 1).all()):
            return replace(rows, x=changed(rows.x, Tensor.float))
        raise InputError(
            f"{where}: the run was fitted to numbers as they were, but these are 8-bit pixels, whose unit it does not "
            "know: give an array of numbers (float32) in the units of the training data"
        )
    return _levels(rows, meaning, where) if integers else _of_numbers(rows, meaning, where)


def _laid_out(x: Rows, shape: Sequence[int]) -> Rows:
    """Moves channels to where a shape has them, if that yields the shape; else the data are left unchanged."""
    shape = tuple(shape)
    if tuple(x.shape[1:]) == shape or isinstance(x, SparseRows):
        return x
    if isinstance(x, RowsOnDisk):
        laid_out: Any = partial(_laid_out, shape=shape)
        return x.then(laid_out)
    for laid_out in (x, x.unsqueeze(1), *((x.movedim(3, 1), x.movedim(1, 3)) if x.ndim == 4 else ())):
        if tuple(laid_out.shape[1:]) == shape:
            return laid_out.contiguous()
    return x


def _levels(rows: Split, meaning: Meaning, where: str) -> Split:
    """Bytes, with the levels of the run or, for bits and for named sets, their own."""
    highest = int(stored(rows.x).max())
    if highest > rows.levels:
        raise InputError(
            f"{where} holds the value {highest}, but the pixels that the run was fitted to have the levels 0 to "
            f"{rows.levels}: give it such pixels"
        )
    if rows.levels == meaning.levels or not meaning.whole:
        return rows
    if rows.levels == 1:
        return replace(rows, x=changed(rows.x, partial(torch.mul, other=meaning.levels)), levels=meaning.levels)
    raise InputError(
        f"{where} has the levels 0 to {rows.levels}, but the run was fitted to the levels 0 to {meaning.levels}: give "
        "it pixels with these levels"
    )


def _of_numbers(rows: Split, meaning: Meaning, where: str) -> Split:
    """Numbers in place of pixels: what the model sees."""
    top, x = (meaning.levels if meaning.whole else 1), some_of(rows.x)
    outside = (x < 0) | (x > top) | ((x != x.round()) & meaning.whole)
    if outside.any():
        what = f"whole numbers, the levels 0 to {top}" if meaning.whole else "the levels scaled to [0, 1]"
        raise InputError(
            f"{where} holds {x[outside][0].item():g}. The run was fitted to 8-bit pixels, so numbers must be {what}: "
            f"give bytes (uint8) from 0 to {meaning.levels}, or such numbers"
        )
    as_bytes = partial(Tensor.to, dtype=torch.uint8)
    return replace(rows, x=changed(rows.x, as_bytes), levels=meaning.levels) if meaning.whole else rows


def in_order(rows: Split, names: Sequence[str] | None, wanted: Sequence[str] | None, *, where: str) -> Split:
    """Puts the columns of a table in the fit's order, by name; data without names are left unchanged.

    Raises:
        InputError: Columns are missing or unknown; names them.
    """
    if names is None or wanted is None or tuple(names) == tuple(wanted):
        return rows
    others = [name for name in names if name not in wanted]
    missing = [name for name in wanted if name not in names]
    if others or missing:
        found = [f"{_called(others)} {'were' if len(others) > 1 else 'was'} not in the fit"] * bool(others)
        found += [f"{_called(missing)} {'are' if len(missing) > 1 else 'is'} missing"] * bool(missing)
        raise InputError(
            f"{where}: {', and '.join(found)}. Give it the run's {len(wanted)} columns, in any order: rename or "
            "leave out what differs"
        )
    columns = [list(names).index(name) for name in wanted]
    if isinstance(rows.x, RowsOnDisk):
        return replace(rows, x=rows.x.then(partial(torch.index_select, dim=1, index=torch.tensor(columns))))
    return replace(rows, x=rows.x[..., columns])


def numbered_alike(
    rows: Split, classes: Sequence[int | str] | None, known: Sequence[str] | None
) -> tuple[Split, tuple[str, ...] | None]:
    """Renumbers labels as in the run, and returns the class names; classes that it does not know come last.

    Args:
        rows: Data with labels that index `classes`.
        classes: Names of the classes in the file; integers if labels are numbers.
        known: Names of the run's classes; None if it has stored none: integers are then left unchanged.
    """
    if classes is None or rows.labels is None:
        return rows, tuple(known) if known is not None and rows.labels is not None else None
    if known is None:
        if all(isinstance(name, int) for name in classes):
            return replace(rows, labels=torch.tensor(classes)[rows.labels]), None
        return rows, tuple(map(str, classes))
    names = [*known, *(str(name) for name in classes if str(name) not in known)]
    number = torch.tensor([names.index(str(name)) for name in classes])
    return replace(rows, labels=number[rows.labels]), tuple(names)


def _called(names: Sequence[str]) -> str:
    """``the column 'a'``, ``the columns 'a', 'b'``, the first of many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"the column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:_LISTED]))}{more}"


def with_num_labels(data: Data, num_labels: int | None) -> Data:
    """Data with a given number of classes, some of which may be absent: numbers are then the classes 0, 1, ....

    Nothing changes if classes have names, or numbers beyond these.
    """
    names = data.class_names
    if num_labels is None or names is None or not {*names} <= {str(number) for number in range(num_labels)}:
        return data
    number = torch.tensor([int(name) for name in names])
    known = tuple(map(str, range(num_labels)))

    def numbered(part: Split) -> Split:
        return part if part.labels is None else replace(part, labels=number[part.labels])

    parts = {name: numbered(getattr(data, name)) for name in ("train", "validation", "test")}
    return replace(data, class_names=known, **parts)
