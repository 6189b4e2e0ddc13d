"""log p(x) by importance sampling from the posterior, with its error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.data.support import explained
from subo.evaluation.evidence.pareto import WeightTail
from subo.evaluation.evidence.tail_error import tail_error
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import place
from subo.typing import Context

__all__ = ["ImportanceEstimate", "WeightSums", "data_at_a_time", "log_marginal", "split_context"]

_SAMPLES = 1600  # per example in a pass: its encoder then costs little compared with its decodes
_KEPT = 31 * 2**20
"""Bytes. glibc keeps freed memory for the next pass up to twice the size of the largest block ever freed, and returns
the rest to the system, from which fresh pages cost each pass as much as its decodes."""


@dataclass(frozen=True)
class ImportanceEstimate:
    """Per-example estimates from K samples of the posterior, in nats, float64 and on the CPU.

    Attributes:
        log_px: ``log 1/K sum_k w_k``. In expectation a lower bound on log p(x), which is tight for large K.
        standard_error: Standard error of `log_px`, from the tail fitted to the weights, see
            :func:`~subo.evaluation.evidence.tail_error.tail_error`; it allows for large weights that were not drawn,
            but not for modes that q never visits. Infinite for K = 1. Without a tail, that of the delta method.
        effective_sample_size: ``(sum w)^2 / sum w^2``, between 1 and K. If it is near 1, one sample dominates the
            estimate.
        pareto_k: Shape of the weights' upper tail, see :func:`~subo.evaluation.evidence.pareto.pareto_k`. Above
            :func:`~subo.evaluation.evidence.pareto.highest_pareto_k` of K, neither estimate nor error is reliable. NaN
            if there is no tail (K below 25, equal weights) or none was requested.
        rate: ``KL(q || p)`` of each stochastic layer, from the same samples (in closed form if there is one).
        distortion: ``-E_q[log p(x|z)]``, from the same samples.
        num_samples: K.
    """

    log_px: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    effective_sample_size: Float[Tensor, " B"]
    pareto_k: Float[Tensor, " B"]
    rate: Float[Tensor, "L B"]
    distortion: Float[Tensor, " B"]
    num_samples: int

    @property
    def elbo(self) -> Float[Tensor, " B"]:
        """``-(rate + distortion)``."""
        return -(self.rate.sum(0) + self.distortion)


class WeightSums:
    """Sums over k of ``w_k`` and ``w_k^2`` for each of B examples, kept in log space, in float64 and on the CPU.

    Args:
        num_data: B.
    """

    def __init__(self, num_data: int):
        self.count = 0
        self.log_sum = torch.full((num_data,), -torch.inf, dtype=torch.float64)
        self.log_sum_squares = self.log_sum.clone()

    def add(self, log_weight: Float[Tensor, "k B"]) -> None:
        """Adds more weights."""
        self.count += len(log_weight)
        largest = log_weight.amax(0).clamp(min=torch.finfo(torch.float64).min)  # finite, if all of them are 0
        relative = (log_weight - largest).exp_()
        self.log_sum = torch.logaddexp(self.log_sum, relative.sum(0).log() + largest)
        self.log_sum_squares = torch.logaddexp(self.log_sum_squares, relative.square_().sum(0).log() + 2 * largest)

    @property
    def log_mean(self) -> Float[Tensor, " B"]:
        """``log 1/K sum_k w_k``."""
        return self.log_sum - math.log(self.count)

    @property
    def effective_sample_size(self) -> Float[Tensor, " B"]:
        """``(sum w)^2 / sum w^2``; 0 where all weights are 0."""
        return torch.exp(2 * self.log_sum - self.log_sum_squares).where(self.log_sum != -torch.inf, 0.0)

    @property
    def standard_error(self) -> Float[Tensor, " B"]:
        """Error of `log_mean` by the delta method, ``sqrt(Var(w) / K) / mean(w)``; infinite for K = 1 or mean 0."""
        if self.count == 1:
            return torch.full_like(self.log_sum, torch.inf)
        return ((self.count / self.effective_sample_size - 1).clamp(min=0) / (self.count - 1)).sqrt()

    def error_by(self, tail: WeightTail) -> Float[Tensor, " B"]:
        """Error of `log_mean` from the largest weights: :func:`~subo.evaluation.evidence.tail_error.tail_error`."""
        return tail_error(tail.largest(), self.count, self.log_sum, self.log_sum_squares, self.standard_error)


@takes_data
@checked_arguments
@torch.no_grad()
def log_marginal(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    num_samples: int = 1000,
    max_rows: int = 5000,
    pareto: bool = True,
    advance: Callable[[float], object] | None = None,
) -> ImportanceEstimate:
    r"""Estimates log p(x) of each example by importance sampling.

    .. math:: \hat p(x) = \frac1K \sum_k w_k, \qquad w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

    is unbiased for p(x) (Burda et al., 2016, section 3): it is a plain average, and its logarithm is a lower bound in
    expectation. Smoothed weights would be neither, so the tail fitted to the weights only determines the error. Exactly
    K samples are drawn, at most `max_rows` latents at a time; only the sums of ``w`` and ``w^2`` and the largest
    weights are kept, so memory does not grow with K.

    Args:
        model: The model.
        x: Data.
        context: Named context tensors, one row per example.
        num_samples: K.
        max_rows: Number of latents drawn at a time; bounds memory and does not change the estimator.
        pareto: Whether to fit the weights' tails, which takes about a millisecond per example for K = 5,000. Without
            them, errors are those of the delta method, ``sqrt(Var(w) / K) / mean(w)``, which are too small for heavy
            tails.
        advance: Called with the number of examples done, as they finish: in fractions if an example takes many passes.

    Returns:
        Per-example estimates.

    Raises:
        InputError: `num_samples` or `max_rows` is below 1, there are no data, or the context does not have one row per
            example.

    Example:
        >>> from subo import probabilistic_pca
        >>> model, x = probabilistic_pca(5, 2), torch.zeros(3, 5)
        >>> estimate = log_marginal(model, x, num_samples=10)
        >>> torch.allclose(estimate.log_px.float(), model.likelihood.log_px(x), atol=1e-4)
        True
    """
    x, context = place(model, x, context or {})
    size = data_at_a_time(x, num_samples=num_samples, max_rows=max_rows)
    torch.empty(_KEPT, dtype=torch.uint8)  # freed at once; see _KEPT
    parts = zip(x.split(size), split_context(context, len(x), size), strict=True)
    with explained(model, x, context or {}, where="x"):
        return _joined([_of_part(model, part, c, num_samples, max_rows, pareto, advance) for part, c in parts])


def _of_part(
    model: LatentVariableModel,
    x: Tensor,
    context: Context,
    num_samples: int,
    max_rows: int,
    pareto: bool,
    advance: Callable[[float], object] | None,
) -> ImportanceEstimate:
    """The estimates for examples that all take part in every pass."""
    sums, tail = WeightSums(len(x)), WeightTail(len(x), num_samples)
    distortion, rate, shown = torch.zeros(len(x), dtype=torch.float64), torch.zeros(()), 0.0
    for count in _equal_shares(num_samples, max(1, max_rows // len(x))):
        draw = model.draw(x, context, num_samples=count, path=False)
        log_weight = draw.log_weight.cpu().double()  # on the CPU: some devices have no float64
        sums.add(log_weight)
        if pareto:
            tail.add(log_weight)
        distortion = distortion - draw.log_likelihood.cpu().double().sum(0)
        rate = rate + count * torch.stack([factor.rate().cpu().double() for factor in draw.factors])
        if advance is not None:
            done = 1024 * len(x) * sums.count // num_samples / 1024  # a fraction that floats add up exactly
            advance(done - shown)
            shown = done
    return ImportanceEstimate(
        log_px=sums.log_mean,
        standard_error=sums.error_by(tail) if pareto else sums.standard_error,
        effective_sample_size=sums.effective_sample_size,
        pareto_k=tail.pareto_k() if pareto else torch.full_like(distortion, torch.nan),
        rate=rate / num_samples,
        distortion=distortion / num_samples,
        num_samples=num_samples,
    )


def data_at_a_time(x: Tensor, *, num_samples: int, max_rows: int) -> int:
    """Number of examples per pass of at most `max_rows` latents, such that each example has many of them."""
    return max(1, min(len(x), max_rows // _equal_shares(num_samples, _SAMPLES)[0]))


def _equal_shares(count: int, most: int) -> list[int]:
    """The fewest numbers of at most `most` that add up to `count`, largest first: a small pass costs a full one."""
    shares = math.ceil(count / most)
    return [count // shares + (i < count % shares) for i in range(shares)]


def split_context(context: Context | None, length: int, size: int) -> list[dict[str, Tensor]]:
    """The contexts of consecutive parts of at most `size` examples, out of `length`.

    Raises:
        InputError: The context does not have one row per example.
    """
    check_rows(context, length)
    starts = range(0, length, size)
    return [{name: tensor[i : i + size] for name, tensor in (context or {}).items()} for i in starts]


def _joined(parts: list[ImportanceEstimate]) -> ImportanceEstimate:
    """One estimate for all examples from those of consecutive parts."""
    names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "rate", "distortion")
    fields = {name: torch.cat([getattr(part, name) for part in parts], dim=-1) for name in names}
    return ImportanceEstimate(**fields, num_samples=parts[0].num_samples)
