"""Where numbers lie and how far they spread, whatever a few of them are: the units in which models see data."""

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor

from subo.errors import InputError
from subo.values import constant_elements

__all__ = ["far_rows", "moments"]

_SORTED = 1_000_000  # numbers, for quantiles
_NEAR, _FAR = 10, 1000  # standard deviations: within the one values count in full, beyond the other a row is far


def moments(examples: Tensor | None, event: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Center and unit of the data, and the unit of their likelihood: of each feature of a vector, of all pixels.

    Center and unit are mean and standard deviation of the data, each value moved into the median plus or minus 10
    standard deviations, as quantiles tell them: those of a normal's are exact to rounding, and one cell of 1e6 among
    thousands moves them by a hundredth (winsorizing; Huber and Ronchetti, 2009, "Robust Statistics", section 1.7). A
    plain standard deviation would follow it, and make all other values of that feature 0 to a network.

    A feature that is constant has no deviation. A network sees it in units of its own size (1 of a 0). Its density is
    as high as its unit is small, so that no unit is right; the likelihood's is a thousandth of the value: samples stay
    at it to that precision, a value that differs by more is noticed in log p(x), and the floor of the scale, a
    thousandth of the unit by default, is still ten roundings of float32.

    Args:
        examples: `(N, *event)`; without them all are placeholders.
        event: Shape of one datum.
    """
    shape = event if len(event) == 1 else Size()
    if examples is None:
        return torch.zeros(shape), torch.ones(shape), torch.ones(shape)
    if examples.shape[1:] != event or len(examples) == 0:
        raise InputError(
            f"examples are data, (N, {', '.join(map(str, event))}), at least one, and a tensor of shape "
            f"{tuple(examples.shape)} came"
        )
    columns = examples if len(event) == 1 else examples.flatten()
    constant = constant_elements(columns)
    low, high = _limits(columns)
    if bool((columns < low).any()) or bool((columns > high).any()):
        columns = columns.clamp(low, high)
    size = columns[0].abs()
    size = torch.where(size > 1e-30, size, torch.ones_like(size))
    center = torch.where(constant, columns[0], columns.mean(0))
    unit = columns.std(0, correction=0)
    constant = constant | (unit == 0)
    return center, torch.where(constant, size, unit), torch.where(constant, size / 1000, unit)


def far_rows(x: Float[Tensor, " N *event"]) -> Bool[Tensor, " N"]:
    """Which rows have a value more than 1,000 units from the center, by which a gradient is that much larger."""
    center, unit, _ = moments(x, x.shape[1:])
    return ((x - center).abs() > _FAR * unit).flatten(1).any(1)


def _limits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Beyond what values lie far from the others: the median plus or minus 10 standard deviations, by quantiles.

    A deviation is that of a normal with the same distance between its quartiles; where these agree, as of a feature
    that is mostly 0, between its quantiles of 5 and 95%, else of 1 and 99%; where all agree there are no limits.
    """
    x = x[: max(1000, _SORTED // x.shape[1:].numel())]
    ordered, last = x.sort(0).values, len(x) - 1

    def quantile(share: float) -> Tensor:
        place = share * last
        below = int(place)
        return torch.lerp(ordered[below], ordered[min(below + 1, last)], place - below)

    deviation = torch.zeros_like(ordered[0])
    for share, width in ((0.25, 1.34898), (0.05, 3.28971), (0.01, 4.65270)):  # a normal's with deviation 1
        wider = (quantile(1 - share) - quantile(share)) / width
        deviation = torch.where(deviation > 0, deviation, wider)
    reach = torch.where(deviation > 0, _NEAR * deviation, torch.inf)
    return quantile(0.5) - reach, quantile(0.5) + reach
