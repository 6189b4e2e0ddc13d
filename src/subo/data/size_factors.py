"""The size of each row of counts: its total, or a column's number, over the mean of the rows to train on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.rows_on_disk import RowsOnDisk
from subo.data.sparse_rows import SparseRows
from subo.data.splits import Split
from subo.errors import InputError

__all__ = ["OBSERVED", "SizeFactor", "totals", "with_sizes"]

OBSERVED = "observed"
"""The size is the row's total."""


@dataclass(frozen=True)
class SizeFactor:
    """What the size of a row is; each row has it, in its unit, as its context ``size``.

    Attributes:
        source: ``observed`` for the row's total, or the name of a column.
        unit: The mean over the rows that a model is fitted to, which is the size 1.
    """

    source: str
    unit: float


def totals(split: Split) -> Float[Tensor, " N"]:
    """The sum of each row, in float64."""
    x = split.x
    if isinstance(x, RowsOnDisk):
        parts = torch.arange(len(x)).split(x.block)
        return torch.cat([x.index_select(0, rows).flatten(1).sum(1, dtype=torch.float64) for rows in parts])
    return x.sums() if isinstance(x, SparseRows) else x.flatten(1).sum(1, dtype=torch.float64)


def with_sizes(
    parts: Sequence[Split], source: str, *, unit: float | None = None, where: str
) -> tuple[tuple[Split, ...], SizeFactor]:
    """Splits whose rows have their size, of which the context ``size`` holds the numbers of a column until here.

    Args:
        parts: Splits, the first of which a model is fitted to.
        source: ``observed``, or the name of the column that the context holds.
        unit: That of the fit; by default the mean over the first split.
        where: Name of the data in messages.

    Raises:
        InputError: A size is not above 0.

    Example:
        >>> (split,), size = with_sizes([Split(torch.tensor([[1.0, 2.0], [4.0, 5.0]]))], "observed", where="cells")
        >>> split.context["size"], size
        (tensor([0.5000, 1.5000]), SizeFactor(source='observed', unit=6.0))
    """
    if any(part.lengths is not None for part in parts):
        raise InputError(f"{where}: `size_factor` is for rows of counts, and these are sequences: leave it out")
    sizes = [totals(part) if source == OBSERVED else part.context["size"].double() for part in parts]
    for size in sizes:
        wrong = ~((size > 0) & size.isfinite())
        if bool(wrong.any()):
            row, what = int(wrong.nonzero()[0, 0]), "its total" if source == OBSERVED else f"its {source}"
            raise InputError(
                f"{where}: the size of a row must be above 0, but of {int(wrong.sum()):,} rows it is not; the first is "
                f"row {row + 1} of its part, {what} is {size[row].item():g}. Leave out rows without counts"
            )
    unit = sizes[0].mean().item() if unit is None else unit
    known = [(size / unit).to(torch.get_default_dtype()) for size in sizes]
    sized = [replace(part, context={**part.context, "size": size}) for part, size in zip(parts, known, strict=True)]
    return tuple(sized), SizeFactor(source, unit)
