"""Pareto k-hat: whether importance weights have a mean that samples find, told by the shape of their upper tail."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["WeightTail", "highest_pareto_k", "pareto_k", "tail_length"]


def highest_pareto_k(num_samples: int) -> float:
    """The k-hat up to which K samples do: ``min(1 - 1 / log10(K), 0.7)`` (Vehtari et al., 2024, equation 13).

    So many samples as a k needs, about ``10^(1 / (1 - k))``, are there; above 0.7 no practicable number is.

    Args:
        num_samples: K.

    Example:
        >>> [round(highest_pareto_k(num_samples), 2) for num_samples in (100, 1000, 10_000)]
        [0.5, 0.67, 0.7]
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


class WeightTail:
    """The largest log-weights of each example, all that k-hat and the error need of them: memory does not grow with K.

    Args:
        num_data: B.
        num_samples: K, of all the weights that will be added.
    """

    def __init__(self, num_data: int, num_samples: int):
        self.num_samples = num_samples
        self._size = min(num_samples, tail_length(num_samples) + 1)  # the tail, and the cutoff below it
        self._parts = [torch.empty(0, num_data, dtype=torch.float64)]

    def add(self, log_weight: Float[Tensor, "k B"]) -> None:
        """Takes note of some more weights, on the CPU."""
        self._parts.append(log_weight)
        if sum(len(part) for part in self._parts) > 4 * self._size:  # seldom, as each time sorts
            self._parts = [self.largest()]

    def pareto_k(self) -> Float[Tensor, " B"]:
        """:func:`pareto_k` of all the weights that were added."""
        return pareto_k(self.largest(), self.num_samples)

    def largest(self) -> Float[Tensor, "M B"]:
        """The tail, and the cutoff below it, of all the weights that were added."""
        weights = torch.cat(self._parts)
        return weights.topk(min(self._size, len(weights)), dim=0).values


def tail_length(num_samples: int) -> int:
    """How many of K independent weights make the tail: ``min(K / 5, 3 sqrt(K))`` (Vehtari et al., 2024, section 3)."""
    return num_samples // 5 if num_samples <= 225 else math.floor(3 * math.sqrt(num_samples))


def pareto_k(largest: Float[Tensor, "M B"], num_samples: int) -> Float[Tensor, " B"]:
    r"""Shape k of the generalized Pareto distribution that fits the upper tail of K importance weights.

    Weights with such a tail have ``1 / k`` moments: above 1/2 their variance is infinite, above 1 their mean; above
    :func:`highest_pareto_k` there are fewer samples than an estimate needs (Vehtari et al., 2024, section 3). Small
    values tell nothing of regions that q never visits. The fit is ArviZ's.

    Args:
        largest: For each of B data its :func:`tail_length` + 1 largest log-weights, or more of them, in any order.
        num_samples: K.

    Returns:
        k-hat of each example. NaN where there is no tail to fit: K is below 25, or the largest weights are all the
        same, or a quarter of them. Infinite where a quarter of the tail vanishes beside the largest weight, even in
        float64.

    Example:
        >>> log_weight = -0.4 * torch.rand(100_000, 1, dtype=torch.float64).log()  # Pareto, k = 0.4
        >>> bool((pareto_k(log_weight, 100_000) - 0.4).abs() < 0.1)
        True
    """
    from arviz_stats.base import array_stats  # here, since it takes a moment and only evaluation needs it

    length = tail_length(num_samples)
    if length < 5:
        return torch.full((largest.shape[1],), torch.nan, dtype=torch.float64)
    tails = largest.cpu().double().sort(dim=0).values[-length - 1 :].mT.numpy()
    found = np.empty(len(tails))
    # ArviZ fits the 3 sqrt(n / r_eff) largest of n weights: few at a small r_eff have the same tail as K at 1.
    few = 5 * length + 3
    r_eff: Any = 9 * few / (length + 0.5) ** 2 if few < num_samples else 1.0
    weights = np.empty((1, min(few, num_samples)))  # a chain, to ArviZ
    for i, tail in enumerate(tails):
        try:
            with np.errstate(all="ignore", divide="raise"):
                weights[0, -length - 1 :] = np.exp(tail - tail[-1])
                weights[0, : -length - 1] = weights[0, -length - 1]  # the fit asks nothing of those below the cutoff
                found[i] = array_stats.pareto_khat(weights, r_eff=r_eff, tail="right")
        except (ValueError, FloatingPointError):  # no two weights differ, or a quarter of the tail is at the cutoff
            found[i] = math.nan
    quarter = tails[:, int(length / 4 + 0.5)]  # by which the fit measures
    found[quarter < tails[:, -1] - _LARGEST_SPREAD] = math.inf
    return torch.from_numpy(found)


_LARGEST_SPREAD = -math.log(np.finfo(float).tiny)
"""Log-weights further apart than this have a quotient of 0."""
