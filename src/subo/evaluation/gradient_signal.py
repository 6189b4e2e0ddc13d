"""The size of the mean of a noisy vector: its squared norm without bias, and intervals that are valid near 0."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

__all__ = ["COVERAGE", "Signal", "signal_of"]

COVERAGE = 0.95


@dataclass(frozen=True)
class Signal:
    """The size of a mean, and its ratio to the noise around it; intervals are 95% intervals.

    Attributes:
        squared_norm: ``|E g|^2``, without bias: below 0 in about half of the cases if the mean is 0.
        norm: ``|E g|``, its root; None if it has none.
        norm_interval: Interval of ``|E g|``; begins at 0 if the draws do not show that the mean differs from 0.
        ratio: ``|E g| / sqrt(trace(Cov g))``; None if the norm is.
        ratio_interval: Interval of that ratio.
    """

    squared_norm: float
    norm: float | None
    norm_interval: tuple[float, float]
    ratio: float | None
    ratio_interval: tuple[float, float]


def signal_of(
    mean: Float[Tensor, " P"],
    trace: float,
    *,
    count: int,
    blocks: Float[Tensor, "Q P"],
    sizes: Float[Tensor, " Q"],
    projections: Float[Tensor, "m Q"],
    distances: Float[Tensor, " m"],
) -> Signal:
    r"""The size of the mean of n independent vectors g, from a summary of them.

    .. math:: S = |\bar g|^2 - \frac{\operatorname{tr} \hat\Sigma}{n}, \qquad E S = |\mu|^2 = \theta, \qquad
              \operatorname{Var} S = \frac{4 \theta \lambda}{n} + \frac{2 \operatorname{tr} \Sigma^2}{n^2}

    with lambda the variance of g along its mean: S is the mean of ``g_i . g_j`` over all pairs of different draws. Near
    0 the second term is all of the variance, and an error "of the norm", from the first alone, is far too small. So the
    interval inverts the test, which uses the variance at each theta that it tries instead of at S (Wilson, 1927),

    .. math:: \{ \theta \ge 0 : (S - \theta)^2 \le t^2 (4 \theta \lambda / n + 2 \operatorname{tr} \Sigma^2 / n^2) \}

    with the roots of a quadratic as ends; likewise for ``theta / trace``, where the variance of the trace is added. The
    covariance of any two block means' projections, ``b_q . g``, over other draws is an unbiased estimate of
    :math:`\mu^T \Sigma \mu = \theta \lambda`, and the variance of one exceeds it by :math:`\operatorname{tr} \Sigma^2`
    over the size of the block.

    Args:
        mean: Mean of all n vectors.
        trace: Trace of their covariance, estimated without bias.
        count: n.
        blocks: Means of Q disjoint blocks of the first draws.
        sizes: Number of draws in each block.
        projections: Projections of the m other draws on these means.
        distances: Squared distances of the m other draws from the mean of the first ones: their spread is that of the
            trace.

    Example:
        >>> g = torch.randn(200, 5, dtype=torch.float64)
        >>> blocks, others = g[:100].view(4, 25, 5).mean(1), g[100:]
        >>> around = (others - blocks.mean(0)).square().sum(1)
        >>> sizes = torch.full((4,), 25.0, dtype=torch.float64)
        >>> found = signal_of(g.mean(0), g.var(0).sum().item(), count=200, blocks=blocks,
        ...                   sizes=sizes, projections=others @ blocks.mT, distances=around)
        >>> found.norm_interval[0] < 0.2
        True
    """
    squared = mean.square().sum().item() - trace / count
    norm = math.sqrt(squared) if squared > 0 else None
    if trace == 0:
        size = norm or 0.0
        return Signal(squared, norm, (size, size), math.inf, (math.inf, math.inf))
    along, square_trace = _spread(trace, len(mean), blocks, sizes, projections)
    quantile = float(stdtrit(len(projections) - 1, (1 + COVERAGE) / 2)) ** 2
    # A negative S is treated as 0: otherwise there might be no theta at all, or only one very near 0.
    value, noise = max(squared, 0.0), 2 * square_trace / count**2
    constant, slope = value**2 - quantile * noise, quantile * 2 * along / count
    skew = torch.stack([projections @ sizes / sizes.sum(), distances]).cov()[0, 1].item()
    with_trace = min(2 * skew / count, 0.0)  # covariance of S and the trace; counted only if it widens
    of_trace = quantile * distances.var().item() / count
    return Signal(
        squared,
        norm,
        _between_roots(1.0, value + slope, constant),
        None if norm is None else norm / math.sqrt(trace),
        _between_roots(trace**2 - of_trace, value * trace + slope * trace - quantile * with_trace, constant),
    )


def _spread(
    trace: float, dim: int, blocks: Float[Tensor, "Q P"], sizes: Float[Tensor, " Q"], projections: Float[Tensor, "m Q"]
) -> tuple[float, float]:
    """The variance of g along its mean, and the trace of the covariance's square."""
    covariance, gram = projections.mT.cov(), blocks @ blocks.mT
    other = ~torch.eye(len(blocks), dtype=torch.bool)
    signal, squared = covariance[other].mean().item(), gram[other].mean().item()
    square_trace = (sizes * (covariance.diagonal() - signal)).mean().item()
    square_trace = min(max(square_trace, trace**2 / dim), trace**2)  # by Cauchy-Schwarz, and positivity
    largest = math.sqrt(square_trace)  # no variance along any direction exceeds it
    return (min(signal / squared, largest) if signal > 0 and squared > 0 else largest), square_trace


def _between_roots(square: float, half: float, constant: float) -> tuple[float, float]:
    """Roots of the two theta between which ``square theta^2 - 2 half theta + constant <= 0``, at least 0."""
    if square <= 0:  # the trace's noise reaches 0
        return 0.0, math.inf
    apart = math.sqrt(max(half**2 - square * constant, 0.0))
    return math.sqrt(max(half - apart, 0.0) / square), math.sqrt(max(half + apart, 0.0) / square)
