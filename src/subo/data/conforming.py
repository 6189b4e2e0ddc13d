"""Later data, read as those that a model was fitted to; what cannot be read so is refused."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from subo.data.dataset import Data
from subo.data.meaning import Meaning
from subo.data.splits import Split
from subo.errors import InputError

__all__ = ["conform", "in_order", "numbered_alike", "with_num_labels"]

_LISTED = 5  # names in a message


def conform(rows: Split, meaning: Meaning, *, where: str) -> Split:
    """Reads data as those of a fit: by what the run has stored, and never by the values at hand.

    Bytes are levels ``0 .. levels``, even where none exceeds 1, and True is the highest. Numbers that come for pixels
    are what the model is shown: ``x / levels`` in [0, 1], or whole levels where it describes these. Channels are put
    where the fit's were.

    Args:
        rows: The data, as they are stored.
        meaning: What the values of the fit's data mean.
        where: What the data are called in a message.

    Raises:
        InputError: They cannot be what the model was fitted to.
    """
    if meaning.sequential and rows.lengths is None and rows.x.ndim == 2:  # one array (T, D) is one of them
        rows = replace(rows, labels=None, context={}, names=None, lengths=torch.tensor([len(rows.x)]))
    if meaning.sequential != (rows.lengths is not None):
        kinds = ("sequences", "single data")
        fitted, came = kinds if meaning.sequential else kinds[::-1]
        raise InputError(
            f"{where}: the run was fitted to {fitted}, and these are {came}: give it data of the same kind"
        )
    rows = replace(rows, x=_laid_out(rows.x, meaning.event_shape))
    stored = not rows.x.is_floating_point()
    if not meaning.pixels:
        if not stored or meaning.sequential:
            return rows
        if rows.levels == 1 and bool((rows.x <= 1).all()):
            return replace(rows, x=rows.x.float())
        raise InputError(
            f"{where}: the run was fitted to numbers as they were, and these are 8-bit pixels, whose unit it was not "
            "told: give an array of numbers (float32) in the units of the data that were fitted to"
        )
    return _levels(rows, meaning, where) if stored else _of_numbers(rows, meaning, where)


def _laid_out(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Puts channels where they are in data of a shape, if that gives it; else the data are as they came."""
    shape = tuple(shape)
    for laid_out in (x, x.unsqueeze(1), *((x.movedim(3, 1), x.movedim(1, 3)) if x.ndim == 4 else ())):
        if tuple(laid_out.shape[1:]) == shape:
            return laid_out.contiguous()
    return x


def _levels(rows: Split, meaning: Meaning, where: str) -> Split:
    """Bytes, whose levels are the run's or, of bits and of a set with a name, their own."""
    highest = int(rows.x.max())
    if highest > rows.levels:
        raise InputError(
            f"{where} holds the value {highest}, and the pixels that the run was fitted to have the levels 0 to "
            f"{rows.levels}: give it such pixels"
        )
    if rows.levels == meaning.levels or not meaning.whole:
        return rows
    if rows.levels == 1:
        return replace(rows, x=rows.x * meaning.levels, levels=meaning.levels)
    raise InputError(
        f"{where} has the levels 0 to {rows.levels}, and the run was fitted to the levels 0 to {meaning.levels}: give "
        "it pixels of such levels"
    )


def _of_numbers(rows: Split, meaning: Meaning, where: str) -> Split:
    """Numbers in place of pixels: what the model is shown."""
    top, x = (meaning.levels if meaning.whole else 1), rows.x
    outside = (x < 0) | (x > top) | ((x != x.round()) & meaning.whole)
    if outside.any():
        what = f"whole numbers, the levels 0 to {top}" if meaning.whole else "the levels as parts of 1, in [0, 1]"
        raise InputError(
            f"{where} holds {x[outside][0].item():g}. The run was fitted to 8-bit pixels, of which numbers are {what}: "
            f"give bytes (uint8) from 0 to {meaning.levels}, or such numbers"
        )
    return replace(rows, x=x.to(torch.uint8), levels=meaning.levels) if meaning.whole else rows


def in_order(rows: Split, names: Sequence[str] | None, wanted: Sequence[str] | None, *, where: str) -> Split:
    """The columns of a table in the order of the fit's, by name; what has no names stays as it is.

    Raises:
        InputError: Columns are missing, or there are others; names them.
    """
    if names is None or wanted is None or tuple(names) == tuple(wanted):
        return rows
    others = [name for name in names if name not in wanted]
    missing = [name for name in wanted if name not in names]
    if others or missing:
        found = [f"{_called(others)} {'were' if len(others) > 1 else 'was'} not fitted to"] * bool(others)
        found += [f"{_called(missing)} {'are' if len(missing) > 1 else 'is'} missing"] * bool(missing)
        raise InputError(
            f"{where}: {', and '.join(found)}. Give it the run's {len(wanted)} columns, in any order: rename or "
            "leave out what differs"
        )
    return replace(rows, x=rows.x[..., [list(names).index(name) for name in wanted]])


def numbered_alike(
    rows: Split, classes: Sequence[int | str] | None, known: Sequence[str] | None
) -> tuple[Split, tuple[str, ...] | None]:
    """Labels by the run's numbers of their classes, and the names; classes that it does not know come after its own.

    Args:
        rows: Labels count `classes`.
        classes: As they are called in the file: integers where labels are numbers.
        known: The names of the run's classes; None: it has stored none, and integers stay what they are.
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
    """Data with so many classes, of which they may lack some: numbers then are the classes' own, 0, 1, ....

    Nothing changes where classes have names, or numbers beyond these.
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
