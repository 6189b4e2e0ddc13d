"""Means and ratios over data with their standard errors, and the effect of examples without a finite number."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Estimate", "bits_per_dim", "error_of_mean", "linearized_ratio"]


@dataclass(frozen=True)
class Estimate:
    """A mean over N examples and its standard error, ``sd / sqrt(N)``.

    Attributes:
        mean: The mean; not finite if any value is not: a single example of probability 0 makes a mean log p(x) -inf.
        standard_error: Standard error from the spread over the data, which includes that of the samples; NaN if the
            mean is not finite.
        num_not_finite: Number of values that are not finite.
        others: Mean of the finite values, if some are not finite and at least two are.
    """

    mean: float
    standard_error: float
    num_not_finite: int = 0
    others: "Estimate | None" = None

    @classmethod
    def of(cls, values: Float[Tensor, " N"]) -> "Estimate":
        """The mean of the values of some examples; for a single one the error is unknown."""
        mean, error = values.mean().item(), error_of_mean(values)
        finite = values[values.isfinite()]
        count = len(values) - len(finite)
        return cls(mean, error, count, cls.of(finite) if count and len(finite) > 1 else None)

    @property
    def differs(self) -> bool:
        """Whether the mean is more than two standard errors from zero."""
        return abs(self.mean) > 2 * self.standard_error


def error_of_mean(values: Float[Tensor, " N"]) -> float:
    """The standard error of a mean from the spread of its terms, ``sd / sqrt(N)``; NaN for a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan


def bits_per_dim(log_px: Tensor, elements: Tensor | int) -> Tensor:
    """Numbers whose mean is ``-sum_i log p(x_i) / (log 2 sum_i D_i)``, and whose spread gives the error of that ratio.

    Args:
        log_px: ``(N,)``, in nats.
        elements: D_i, number of elements of each example; the same for all, or one per sequence.
    """
    return linearized_ratio(-log_px / math.log(2), elements)


def linearized_ratio(values: Tensor, sizes: Tensor | int) -> Tensor:
    """``R + (v_i - R s_i) / mean(s)`` with ``R = sum_i v_i / sum_i s_i``: numbers whose mean is that ratio.

    The standard error of their mean is the ratio's, to the first order in the data's fluctuations (delta method).

    Args:
        values: v, ``(N,)``.
        sizes: s, ``(N,)``, or the same for all.
    """
    sizes = torch.as_tensor(sizes, dtype=values.dtype).expand(len(values))
    ratio = values.sum() / sizes.sum()
    terms = ratio + (values - ratio * sizes) / sizes.mean()
    return terms if ratio.isfinite() else ratio.expand(len(values))  # their mean would be inf - inf
