"""The error of an average of importance weights, from the tail fitted to the largest of them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from subo.evaluation.evidence.pareto import tail_length, theta_at

__all__ = ["tail_error"]

_UPPER, _TWO_SIDED = 0.975, 1.96  # a 95% interval, and its half-width in standard errors
_SHARES = 25  # points for the posterior of k at each point of the other axis
_NUMBERS = 2_000_000  # in the grid at a time


def tail_error(
    largest: Float[Tensor, "M B"],
    num_samples: int,
    log_sum: Float[Tensor, " B"],
    log_sum_squares: Float[Tensor, " B"],
    delta: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    r"""A standard error of ``log 1/K sum_k w_k`` that allows for the weights that were not drawn.

    The delta method's error, ``sd(w) / (sqrt(K) mean(w))``, is valid if the samples show how their mean varies. With a
    heavy tail, most samples do not: the mean is usually too low, and so is its error. Split at the cutoff u, the
    largest weight below the tail's M,

    .. math:: E[w] = E[\min(w, u)] + \tfrac MK E[w - u \mid w > u],

    where exceedances of a high cutoff are generalized Pareto, with shape k, scale sigma and mean ``sigma / (1 - k)``
    (Vehtari et al., 2024, sections 2.2 and 3). Since ``E[w] = p(x)`` is finite, k < 1. Their posterior under a flat
    prior on k and log sigma, by ``theta = k / sigma`` and ``a = 1/M sum log(1 + theta x)``, is the product of two
    factors,

    .. math:: \log L = -M (\log \tfrac a\theta + a) - M (\log \tfrac ka + \tfrac ak),

    so that a grid costs one pass over the tail per theta. With the mean's upper end (97.5%) ``T_+``, its median T and
    the error s of T from the sampled weights, with exceedances set to their mean, the result is

    .. math:: \sqrt{\big(\log \tfrac{T_+}{T} / 1.96\big)^2 + s^2},

    or that of the delta method if it is larger. It allows for the drawn tail, but not for a mode of p(z|x) that q never
    visits, which affects no weight. `benchmarks/coverage.txt` shows how often log p(x) lies within 1.96 errors.

    Args:
        largest: For each of B examples, the :func:`~subo.evaluation.evidence.pareto.tail_length` + 1 largest
            log-weights, or more.
        num_samples: K.
        log_sum: ``log sum_k w_k``.
        log_sum_squares: ``log sum_k w_k^2``.
        delta: Error of the delta method.

    Returns:
        The error in nats, float64; that of the delta method if there is no tail to fit, infinite if the tail vanishes
        beside the largest weight.

    Example:
        >>> log_weight = -0.6 * torch.rand(1000, 1, dtype=torch.float64).log()  # Pareto: the variance is infinite
        >>> log_sum, delta = log_weight.logsumexp(0), (log_weight.exp().std(0) / log_weight.exp().mean(0)) / 1000**0.5
        >>> error = tail_error(log_weight, 1000, log_sum, (2 * log_weight).logsumexp(0), delta)
        >>> bool((error > delta) & (error < 2))
        True
    """
    length = tail_length(num_samples)
    if length < 5:
        return delta
    tail = largest.topk(length + 1, dim=0).values
    points = 30 + math.isqrt(length)
    at_once = max(1, _NUMBERS // (points * max(length, _SHARES)))
    columns = zip(*(tensor.split(at_once, dim=-1) for tensor in (tail, log_sum, log_sum_squares)), strict=True)
    found = torch.cat([_by_posterior(*part, num_samples=num_samples, points=points) for part in columns])
    return torch.where(found.isnan(), delta, torch.maximum(found, delta))


def _by_posterior(tail: Tensor, log_sum: Tensor, log_sum_squares: Tensor, *, num_samples: int, points: int) -> Tensor:
    """The error for some examples; `tail` is sorted, largest first, the cutoff last. NaN if no tail can be fitted."""
    length, top = len(tail) - 1, tail[0]
    weights = (tail - top).exp()  # in units of the largest
    cutoff, exceedances = weights[-1], weights[:-1] - weights[-1]
    log_posterior, k, mean = _grid(exceedances.flip(0).mT, points)
    upper, middle = _quantiles(mean, log_posterior.where(k < 1, -torch.inf), (_UPPER, 0.5))
    total, squares = (log_sum - top).exp(), (log_sum_squares - 2 * top).exp()
    below = (total - weights[:-1].sum(0)).clamp(min=0)  # the sum of the weights that are not in the tail
    squares_below = (squares - weights[:-1].square().sum(0)).clamp(min=0)
    mean_of = [(below + length * (cutoff + exceedance)) / num_samples for exceedance in (middle, upper)]
    square = (squares_below + length * (cutoff + middle).square()) / num_samples
    spread = ((square / mean_of[0].square() - 1).clamp(min=0) / (num_samples - 1)).sqrt()
    found = torch.hypot((mean_of[1] / mean_of[0]).log() / _TWO_SIDED, spread)
    vanishing = (exceedances[length - int(length / 4 + 0.5)] == 0) & (top > -torch.inf) & (exceedances[0] > 0.5)
    return found.where(~vanishing, torch.inf)


def _grid(x: Float[Tensor, "B M"], points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-posterior, k and mean exceedance on the grid, ``(B, points * _SHARES)``; x ascending.

    The points of theta are those of :func:`~subo.evaluation.evidence.pareto.theta_at`.
    """
    length, options = x.shape[1], {"dtype": x.dtype, "device": x.device}
    places = torch.arange(1, points + 1, **options)
    at = theta_at(places - 0.5, x, points)
    width = -theta_at(torch.cat([places[:1] / 4, places]), x, points).diff(dim=1)
    a = torch.log1p(at.unsqueeze(2) * x.unsqueeze(1)).mean(2)
    scale = a / at  # sigma at k = a
    log_theta = -length * (scale.log() + a) + (scale * width).log()
    step = torch.linspace(-4, 4, _SHARES, **options) / math.sqrt(length)
    share = step.exp()  # k / a
    log_share = -length * (step + 1 / share) + step
    k = a.unsqueeze(2) * share
    mean = scale.unsqueeze(2) * share / (1 - k)
    return (log_theta.unsqueeze(2) + log_share).flatten(1), k.flatten(1), mean.flatten(1)


def _quantiles(values: Tensor, log_weight: Tensor, at: tuple[float, ...]) -> list[Tensor]:
    """Quantiles of weighted values in rows."""
    order = values.argsort(1)
    shares = log_weight.gather(1, order).softmax(1).cumsum(1)
    last = values.shape[1] - 1
    return [values.gather(1, order.gather(1, (shares < p).sum(1, keepdim=True).clamp(max=last)))[:, 0] for p in at]
