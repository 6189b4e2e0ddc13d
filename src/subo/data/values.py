"""The kind of values, and which are refused: checked once, when they come in."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from subo.data.sparse_rows import SparseRows
from subo.data.stored_rows import Rows, column_ranges, some_of, stored
from subo.errors import InputError

__all__ = ["Kind", "check_resolution", "check_values", "constant_elements", "kind_of", "num_classes_of"]

Kind = Literal["binary", "grey", "whole", "real", "mixed"]

_EXACT = 2**24  # beyond it float32 holds whole numbers only, so that every number is one


def kind_of(*parts: Rows, levels: int = 1) -> Kind:
    """Infers the kind of data from the values alone.

    The first that holds of: `binary`, all are 0 or `levels`; `grey`, there are levels, or all are in [0, 1];
    `whole`, all are non-negative whole numbers up to 2^24, beyond which float32 holds no others; `real`. It cannot
    infer what they mean: whole numbers may be counts, years, ages or classes, and features that someone scaled to
    [0, 1] look like a grey picture. So it is used to choose only the likelihood of bits.

    Args:
        parts: All of the values, `(N, *event)` each, as stored; NaN, a missing value, does not count.
        levels: The stored value that means 1.0; 1 for unscaled values.
    """
    values = [_known(stored(x)) for x in parts]
    if all(bool(((x == 0) | (x == levels)).all()) for x in values):
        return "binary"
    ends = torch.tensor([[value.item() for value in x.aminmax()] for x in values if len(x)], dtype=torch.float64)
    lowest, highest = ends[:, 0].min().item(), ends[:, 1].max().item()
    if levels > 1 or (lowest >= 0 and highest <= 1):
        return "grey"
    whole = all(not x.is_floating_point() or bool((x == x.round()).all()) for x in values)
    return "whole" if whole and lowest >= 0 and highest <= _EXACT else "real"


def _known(x: Tensor) -> Tensor:
    return x[~x.isnan()] if x.is_floating_point() and bool(x.isnan().any()) else x


def constant_elements(x: Rows) -> Shaped[Tensor, " *event"]:
    """Which elements are constant over all data, exactly: a standard deviation may be a rounding error away from 0."""
    if isinstance(x, SparseRows):
        least, most = column_ranges(x)
        return least == most
    some = some_of(x)
    return (some == some[:1]).all(0)


def num_classes_of(parts: Sequence[Rows]) -> int | tuple[int, ...]:
    """The number of classes 0, 1, ..., at least two: per column of a table, or over all pixels.

    Args:
        parts: All data that a model is to describe, `(N, *event)` each.

    Example:
        >>> num_classes_of([torch.tensor([[0, 7], [2, 1]]), torch.tensor([[1, 9]])])
        (3, 10)
    """
    highest = [column_ranges(x)[1] for x in parts if len(x)]
    largest = torch.stack(highest).amax(0)
    if largest.ndim != 1:
        return max(2, 1 + int(largest.max()))
    return tuple(max(2, 1 + int(value)) for value in largest.tolist())


def check_values(x: Shaped[Tensor, " N *event"], *, where: str, names: tuple[str, ...] | None = None) -> None:
    """Refuses NaN and infinity early rather than as a NaN loss.

    Args:
        x: `(N, *event)`.
        where: Name of the data in the message.
        names: Names of the columns, for data of shape `(N, D)`.

    Raises:
        InputError: Some values aren't finite; says how many, and where the first one is, counting from 1.
    """
    bad = ~x.isfinite()
    count = int(bad.sum())
    if count == 0:
        return
    first = tuple(bad.nonzero()[0].tolist())
    row, *place = (position + 1 for position in first)
    if len(place) != 1:
        column = f"element ({', '.join(map(str, place))})"
    else:
        column = f"column {place[0]}" if names is None else f"column {names[place[0] - 1]!r}"
    raise InputError(
        f"{where}: all values must be finite, but {count} of {x.numel()} {'is' if count == 1 else 'are'} NaN "
        f"or infinite; the first, {x[first].item()}, is in row {row}, {column} (counting from 1). Usually a "
        "value is missing or beyond float32 (3.4e38): drop the row, or fill or scale the value"
    )


def check_resolution(x: Shaped[Tensor, " N D"], *, where: str, names: tuple[str, ...] | None = None) -> None:
    """Refuses columns that rounding to float32, in which data are stored, would destroy.

    Args:
        x: `(N, D)`, before rounding.
        where: Name of the data in the message.
        names: Names of the columns.

    Raises:
        InputError: A column varies so little around so large a number that float32 cannot distinguish its values.
    """
    if len(x) < 2:
        return
    center, deviation = x.double().mean(0), x.double().std(0)
    lost = ~constant_elements(x) & (deviation < 100 * torch.finfo(torch.float32).eps * center.abs())
    if lost.any():
        column = int(lost.nonzero()[0])
        name = f"column {column + 1}" if names is None else f"column {names[column]!r}"
        raise InputError(
            f"{where}: {name} varies by {deviation[column]:.3g} around {center[column]:.10g}, which float32 (7 digits) "
            "cannot resolve. Usually it is a time or an identifier: subtract an offset from it, or leave it out"
        )
