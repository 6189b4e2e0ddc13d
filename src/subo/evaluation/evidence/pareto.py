"""Pareto k-hat: the shape of the upper tail of importance weights, which shows whether samples find their mean."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["WeightTail", "highest_pareto_k", "pareto_k", "tail_length", "theta_at"]


def highest_pareto_k(num_samples: int) -> float:
    """The k-hat up to which K samples suffice: ``min(1 - 1 / log10(K), 0.7)`` (Vehtari et al., 2024, equation 13).

    A k needs about ``10^(1 / (1 - k))`` samples; above 0.7 no practical number is enough.

    Args:
        num_samples: K.

    Example:
        >>> [round(highest_pareto_k(num_samples), 2) for num_samples in (100, 1000, 10_000)]
        [0.5, 0.67, 0.7]
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


class WeightTail:
    """The largest log-weights of each example, all that k-hat and the error need: memory does not grow with K.

    Args:
        num_data: B.
        num_samples: K, the number of all weights that will be added.
    """

    def __init__(self, num_data: int, num_samples: int):
        self.num_samples = num_samples
        self._size = min(num_samples, tail_length(num_samples) + 1)  # the tail, and the cutoff below it
        self._parts = [torch.empty(0, num_data, dtype=torch.float64)]

    def add(self, log_weight: Float[Tensor, "k B"]) -> None:
        """Adds more weights, on the CPU."""
        self._parts.append(log_weight)
        if sum(len(part) for part in self._parts) > 4 * self._size:  # rarely, since this sorts
            self._parts = [self.largest()]

    def pareto_k(self) -> Float[Tensor, " B"]:
        """:func:`pareto_k` of all weights added so far."""
        return pareto_k(self.largest(), self.num_samples)

    def largest(self) -> Float[Tensor, "M B"]:
        """The tail, and the cutoff below it, of all weights added so far."""
        weights = torch.cat(self._parts)
        return weights.topk(min(self._size, len(weights)), dim=0).values


def tail_length(num_samples: int) -> int:
    """How many of K independent weights form the tail: ``min(K / 5, 3 sqrt(K))`` (Vehtari et al., 2024, section 3)."""
    return num_samples // 5 if num_samples <= 225 else math.floor(3 * math.sqrt(num_samples))


def pareto_k(largest: Float[Tensor, "M B"], num_samples: int) -> Float[Tensor, " B"]:
    r"""Shape k of the generalized Pareto distribution that fits the upper tail of K importance weights.

    Weights with such a tail have ``1 / k`` moments: above 1/2 their variance is infinite, above 1 their mean; above
    :func:`highest_pareto_k` there are fewer samples than an estimate needs (Vehtari et al., 2024, section 3). Small
    values say nothing about regions that q never visits. The fit follows Zhang and Stephens (2009), with the prior of
    Vehtari et al.

    Args:
        largest: For each of B examples, the :func:`tail_length` + 1 largest log-weights, or more, in any order.
        num_samples: K.

    Returns:
        k-hat of each example. NaN if there is no tail to fit: K is below 25, or the largest weights, or a quarter of
        them, are all the same. Infinite if a quarter of the tail vanishes beside the largest weight, even in float64.

    Example:
        >>> log_weight = -0.4 * torch.rand(100_000, 1, dtype=torch.float64).log()  # Pareto, k = 0.4
        >>> bool((pareto_k(log_weight, 100_000) - 0.4).abs() < 0.1)
        True
    """
    length = tail_length(num_samples)
    if length < 5:
        return torch.full((largest.shape[1],), torch.nan, dtype=torch.float64)
    tail = largest.cpu().double().sort(dim=0).values[-length - 1 :]
    weights = (tail - tail[-1]).exp()
    exceedances = (weights[1:] - weights[0]).mT.contiguous()
    at_once = max(1, _NUMBERS // ((30 + math.isqrt(length)) * length))
    found = torch.cat([_shape(part) for part in exceedances.split(at_once)])
    vanishing = tail[int(length / 4 + 0.5)] < tail[-1] - _LARGEST_SPREAD  # of the quartile that scales the fit
    return found.where(~vanishing, torch.inf)


def theta_at(places: Tensor, x: Float[Tensor, "B M"], points: int) -> Float[Tensor, "B P"]:
    """Values of ``theta = k / sigma`` at places among `points` points; x ascending (Zhang and Stephens, 2009).

    They cover where the likelihood of a generalized Pareto distribution is not negligible, above ``-1 / max x``.
    """
    quarter, largest = x[:, int(x.shape[1] / 4 + 0.5) - 1, None], x[:, -1:]
    return ((points / places).sqrt() - 1) / (3 * quarter) - 1 / largest


def _shape(x: Float[Tensor, "B M"]) -> Float[Tensor, " B"]:
    r"""Shape k of the generalized Pareto distribution of each row, ascending, from its likelihood's mean of theta.

    With ``k(theta) = 1/M sum log(1 + theta x)`` the profile log-likelihood is ``M (log(theta / k) - k - 1)``. The prior
    of Vehtari et al. (2024) counts as 10 exceedances of shape 1/2.
    """
    length, tiny = x.shape[1], torch.finfo(x.dtype).tiny
    points = 30 + math.isqrt(length)
    theta = theta_at(torch.arange(1, points + 1, dtype=x.dtype) - 0.5, x, points)
    k = torch.log1p(theta.unsqueeze(2) * x.unsqueeze(1)).mean(2)
    rate = (theta / k).where(theta != 0, 1 / x.mean(1, keepdim=True))  # 1 / sigma
    weight = (length * (rate.log() - k - 1)).softmax(1)
    weight = weight.where(weight >= _NEGLIGIBLE, 0.0)
    mean = (weight * theta).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    found = (length * torch.log1p(mean * x).mean(1) + 10 * 0.5) / (length + 10)
    quarter = x[:, int(length / 4 + 0.5) - 1]
    return found.where((quarter > 0) & (x[:, -1] - x[:, 0] >= tiny), torch.nan)


_NUMBERS = 2_000_000  # in a grid at a time
_NEGLIGIBLE = 10 * torch.finfo(torch.float64).eps
_LARGEST_SPREAD = -math.log(torch.finfo(torch.float64).tiny)
"""Log-weights further apart than this have a quotient of 0."""
