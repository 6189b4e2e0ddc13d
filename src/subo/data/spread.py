"""Robust location and spread of numbers: the units in which models see data."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor

from subo.data.rows_on_disk import RowsOnDisk
from subo.data.sparse_rows import SparseRows
from subo.data.stored_rows import Rows, chunks
from subo.data.values import constant_elements
from subo.errors import InputError

__all__ = ["center_and_units", "far_rows", "observed_in_turn"]

_SORTED = 100_000  # numbers, for quantiles
_SPREAD, _ROWS = 2_000_000, 5000  # numbers and rows, for center and units
_NEAR, _FAR = 10, 1000  # standard deviations: up to the first, values count in full; beyond the second, a row is far


def center_and_units(examples: Tensor | None, event: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Center and unit of the data, and the unit of their likelihood: per feature of a vector, or over all pixels.

    Center and unit are mean and standard deviation of the data after each value is clipped to the median plus or minus
    10 standard deviations, estimated from quantiles: for normal data they are exact to rounding, and one far cell among
    N moves the unit by about 50 / N of it: 10% for N = 500, 1.7% for 3,000, 1.0% for 5,000 (winsorizing; Huber and
    Ronchetti, 2009, "Robust Statistics", section 1.7). A plain standard deviation would follow it, and make all other
    values of that feature 0 to a network.

    A constant feature has no deviation. A network sees it in units of its own size (1 if it is 0). Its density is
    as high as its unit is small, so that no unit is right; the likelihood's is a thousandth of the value: samples stay
    at it to that precision, a value that differs by more is noticed in log p(x), and the floor of the scale, a
    thousandth of the unit by default, is still ten roundings of float32.

    Args:
        examples: `(N, *event)`; without them all results are placeholders.
        event: Shape of one example.
    """
    shape = event if len(event) == 1 else Size()
    if examples is None:
        return torch.zeros(shape), torch.ones(shape), torch.ones(shape)
    if examples.shape[1:] != event or len(examples) == 0:
        raise InputError(
            f"examples are at least one row of shape (N, {', '.join(map(str, event))}); received a tensor of shape "
            f"{tuple(examples.shape)}"
        )
    columns = examples if len(event) == 1 else examples.flatten()
    constant = constant_elements(columns)
    most = max(1000 if len(event) == 1 else 1, _SORTED // event.numel())
    some = examples[:: -(-len(examples) // most)]  # spread over all, since the first may differ from the others
    low, high = _limits(some if len(event) == 1 else some.flatten())
    if bool((columns < low).any()) or bool((columns > high).any()):
        columns = columns.clamp(low, high)
    size = columns[0].abs()
    size = torch.where(size > 1e-30, size, torch.ones_like(size))
    center = torch.where(constant, columns[0], columns.mean(0))
    unit = columns.std(0, correction=0)
    constant = constant | (unit == 0)
    return center, torch.where(constant, size, unit), torch.where(constant, size / 1000, unit)


def far_rows(x: Rows) -> Bool[Tensor, " N"]:
    """Which rows have a value more than 1,000 units from the center, which makes a gradient that much larger.

    Center and units are first those of some rows, spread over all; if any is far by these, those of all rows decide. Of
    sparse rows and rows on disk, the former suffice, and of the latter only these are looked at. Cells of a table that
    are missing or at a spike, which are not finite, are not far.
    """
    some = x[:: _step(x)] if isinstance(x, Tensor) else x.spread()
    everywhere = some if isinstance(x, RowsOnDisk) else x
    far = _far(everywhere, some)
    return _far(x, x) if isinstance(x, Tensor) and len(some) < len(x) and bool(far.any()) else far


def _step(x: Tensor) -> int:
    """Every which row: a few million numbers, and thousands of rows."""
    return max(1, min(x.numel() // _SPREAD, len(x) // _ROWS))


def _far(x: Tensor | SparseRows, some: Tensor) -> Bool[Tensor, " N"]:
    """The far rows of x, by the center and units of some."""
    known = some
    if not bool(some.isfinite().all()):
        known = some.where(some.isfinite(), torch.nan)
        known = known.where(known.isfinite(), known.nanmedian(0).values.nan_to_num(0))
    center, unit, _ = center_and_units(known, some.shape[1:])

    def is_far(rows: Tensor) -> Tensor:
        away = (rows - center).abs()
        return ((away > _FAR * unit) & (away < torch.inf)).flatten(1).any(1)

    return torch.cat([is_far(rows) for rows in chunks(x)])


def observed_in_turn(x: Float[Tensor, " N *event"]) -> Float[Tensor, " N *event"]:
    """Examples whose missing elements, NaN, are the observed ones of the same place, one after the other.

    Their mean and spread are those of the observed elements, but for the last turn; 0 where none is observed.

    Example:
        >>> observed_in_turn(torch.tensor([[1.0], [float("nan")], [3.0], [float("nan")]]))[:, 0]
        tensor([1., 1., 3., 3.])
    """
    missing = x.isnan()
    if not bool(missing.any()):
        return x
    columns, gaps = x.flatten(1).clone(), missing.flatten(1)
    for column, gap in zip(columns.unbind(1), gaps.unbind(1), strict=True):
        known = column[~gap]
        column[gap] = known[torch.arange(int(gap.sum())) % len(known)] if len(known) else column.new_zeros(())
    return columns.reshape(x.shape)


def _limits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Limits beyond which values are far from the others: the median plus or minus 10 deviations, from quantiles.

    The deviation is that of a normal with the same distance between two quantiles, the largest of three: for the
    quartiles, for 5 and 95%, and for 1 and 99% or, with few rows, those that leave out two at either end. The smallest
    would consider the fifth of an image's pixels that are not black far from the rest. If quantiles coincide there are
    no limits.
    """
    outer = min(0.25, max(0.01, 2.5 / len(x)))
    lower = np.array([0.25, max(0.05, outer), outer])
    width = -2 * torch.special.ndtri(torch.as_tensor(lower)).to(x)  # their distance for a normal with deviation 1
    found = torch.as_tensor(np.quantile(x.cpu().numpy(), [*lower, 0.5, *(1 - lower)], axis=0)).to(x)
    distance = found[4:] - found[:3]
    deviation = (distance / width.reshape(-1, *(1 for _ in x.shape[1:]))).amax(0)
    reach = torch.where(deviation > 0, _NEAR * deviation, torch.inf)
    return found[3] - reach, found[3] + reach
