"""log p(x) from samples of the prior: the estimator that needs no posterior, and what that costs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core import context as contexts
from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.evaluation.evidence.importance import WeightSums, data_at_a_time, split_context
from subo.evaluation.evidence.pareto import WeightTail
from subo.evaluation.numbers import ALONE, LIKELY, Beside, Number
from subo.runtime.arguments import checked_arguments
from subo.typing import Context

__all__ = ["PriorEstimate", "log_marginal_from_prior"]

Weights = tuple[WeightSums, WeightTail]
"""What is kept of the weights of some examples."""

_PAIRED = 16  # examples that a pass of decodes is compared with at a time


@dataclass(frozen=True)
class PriorEstimate:
    """Per-example estimates from K samples of the prior, in nats, float64 and on the CPU.

    Attributes:
        log_px: ``log 1/K sum_k p(x|z_k)``. In expectation a lower bound on log p(x), usually a very loose one.
        standard_error: Standard error of `log_px`, from the tail of p(x|z), as for importance sampling; infinite for K
            = 1. Too small if no sample came near the posterior, which k-hat and the effective sample size reveal.
        effective_sample_size: ``(sum w)^2 / sum w^2`` with ``w = p(x|z)``, between 1 and K.
        pareto_k: Shape of the tail of w; above :func:`~subo.evaluation.evidence.pareto.highest_pareto_k` of K, neither
            the estimate nor its error is reliable.
        num_samples: K.
    """

    log_px: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    effective_sample_size: Float[Tensor, " B"]
    pareto_k: Float[Tensor, " B"]
    num_samples: int

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The mean over the data, how much it exceeds importance sampling's, and how many samples count."""
        count, num_data = self.num_samples, len(self.log_px)
        yield Number.mean(LIKELY, beside.name("log p(x)", num_data), self.log_px, "samples of the prior", count)
        yield from beside.less(self.log_px, count)
        worth, how = self.effective_sample_size.nanmedian().item(), "the prior's weights"
        yield Number(LIKELY, "  effective samples, median", worth, None, "", how, count, num_data)


@takes_data
@checked_arguments
@torch.no_grad()
def log_marginal_from_prior(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    num_samples: int = 1000,
    max_rows: int = 5000,
) -> PriorEstimate:
    r"""Estimates log p(x) of each example by the likelihood's mean over samples of the prior.

    .. math:: \hat p(x) = \frac1K \sum_k p(x | z_k), \qquad z_k \sim p(z)

    is unbiased for p(x) and hopeless in practice: a sample counts only if it falls where the posterior is, as does
    about one in ``exp(KL(p(z|x) || p(z)))`` of the prior's samples. At a rate of 25 nats, that of a good model of
    MNIST, K would have to exceed 10^10; below that, one sample dominates the mean (an effective sample size near 1),
    which lies many nats below log p(x). It is here to show the value of importance sampling from q, and as a check for
    models with very few latents.

    Without a context, the K decodes are shared by all examples, so that the estimates of different examples use the
    same samples, and their errors are not independent. With a context, every example has its own K samples and decodes.

    Args:
        model: The model.
        x: Data.
        context: Named context tensors, one row per example.
        num_samples: K.
        max_rows: Number of distributions p(x|z), or pairs of one with an example, at a time; bounds memory and does not
            change the estimator.

    Returns:
        Per-example estimates.

    Raises:
        InputError: `num_samples` or `max_rows` is below 1, there are no data, or the context does not have one row per
            example.

    Example:
        >>> from subo import probabilistic_pca
        >>> model, x = probabilistic_pca(5, 1), torch.zeros(3, 5)
        >>> estimate = log_marginal_from_prior(model, x, num_samples=10_000)
        >>> error = estimate.log_px - model.likelihood.log_px(x)
        >>> bool((error.abs() < 5 * estimate.standard_error).all())
        True
    """
    size = data_at_a_time(x, num_samples=num_samples, max_rows=max_rows)
    if not context:
        weights = _by_shared_decodes(model, x, num_samples, max_rows)
    else:
        parts = zip(x.split(size), split_context(context, len(x), size), strict=True)
        weights = [_by_own_decodes(model, part, c, num_samples, max_rows) for part, c in parts]
    return PriorEstimate(
        log_px=torch.cat([sums.log_mean for sums, _ in weights]),
        standard_error=torch.cat([sums.error_by(tail) for sums, tail in weights]),
        effective_sample_size=torch.cat([sums.effective_sample_size for sums, _ in weights]),
        pareto_k=torch.cat([tail.pareto_k() for _, tail in weights]),
        num_samples=num_samples,
    )


def _by_shared_decodes(model: LatentVariableModel, x: Tensor, num_samples: int, max_rows: int) -> list[Weights]:
    """The weights of consecutive parts of the data, all from the same K samples."""
    parts = x.split(min(_PAIRED, max_rows))
    weights = [(WeightSums(len(part)), WeightTail(len(part), num_samples)) for part in parts]
    drawn = 0
    while drawn < num_samples:
        count = min(max_rows // len(parts[0]), num_samples - drawn)
        p = model.sample(count)[1]
        for part, (sums, tail) in zip(parts, weights, strict=True):
            pairs = part.unsqueeze(1).expand(-1, count, *part.shape[1:])  # each example with every p(x|z)
            log_weight = p.log_prob(pairs).mT.cpu().double()
            sums.add(log_weight)
            tail.add(log_weight)
        drawn += count
    return weights


def _by_own_decodes(
    model: LatentVariableModel, x: Tensor, context: Context, num_samples: int, max_rows: int
) -> Weights:
    """The weights of data with separate samples for each example, drawn given its context."""
    sums, tail = WeightSums(len(x)), WeightTail(len(x), num_samples)
    while sums.count < num_samples:
        count = min(max_rows // len(x), num_samples - sums.count)
        p = model.sample(count * len(x), contexts.repeat(context, count))[1]
        rows = x.expand(count, *x.shape).flatten(0, 1)
        log_weight = p.log_prob(rows).unflatten(0, (count, len(x))).cpu().double()
        sums.add(log_weight)
        tail.add(log_weight)
    return sums, tail
