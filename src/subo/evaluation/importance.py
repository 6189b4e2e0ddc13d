"""log p(x) by importance sampling from the posterior, with its error."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from subo.errors import InputError
from subo.model import LatentVariableModel
from subo.typing import Context

__all__ = ["ImportanceEstimate", "log_marginal"]


@dataclass(frozen=True)
class ImportanceEstimate:
    """Per-datum estimates from K samples of the posterior, in nats, float64 and on the CPU.

    Attributes:
        log_px: ``log 1/K sum_k w_k``. In expectation a lower bound on log p(x), which K makes tight.
        standard_error: Of `log_px`, from the spread of the weights; infinite for K = 1, which tells nothing of it.
        effective_sample_size: ``(sum w)^2 / sum w^2``, between 1 and K. Where it is near 1, one sample carries the
            estimate, and neither it nor its standard error can be trusted.
        rate: ``KL(q || p)`` of each stochastic layer, from the same samples (in closed form where there is one).
        distortion: ``-E_q[log p(x|z)]``, from the same samples.
        num_samples: K.
    """

    log_px: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    effective_sample_size: Float[Tensor, " B"]
    rate: Float[Tensor, "L B"]
    distortion: Float[Tensor, " B"]
    num_samples: int

    @property
    def elbo(self) -> Float[Tensor, " B"]:
        """``-(rate + distortion)``."""
        return -(self.rate.sum(0) + self.distortion)


@torch.no_grad()
def log_marginal(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    num_samples: int = 1000,
    max_rows: int = 5000,
) -> ImportanceEstimate:
    r"""Estimates log p(x) of each datum by importance sampling.

    .. math:: \hat p(x) = \frac1K \sum_k w_k, \qquad w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

    is unbiased for p(x) (Burda et al., 2016, section 3). The standard error is that of its logarithm by the delta
    method, ``sqrt(Var(w) / K) / mean(w)``. Exactly K samples are drawn, `max_rows` latents at a time at the most, and
    the sums of ``w`` and ``w^2`` are kept in log space, so memory does not grow with K.

    Args:
        model: The model.
        x: Data.
        context: What is known beside x, by name.
        num_samples: K.
        max_rows: Latents decoded at a time; bounds memory and does not change the estimator.

    Returns:
        Per-datum estimates.

    Raises:
        InputError: `num_samples` or `max_rows` is below 1.

    Example:
        >>> from subo import probabilistic_pca
        >>> model, x = probabilistic_pca(5, 2), torch.zeros(3, 5)
        >>> estimate = log_marginal(model, x, num_samples=10)
        >>> torch.allclose(estimate.log_px.float(), model.likelihood.log_px(x), atol=1e-4)
        True
    """
    if num_samples < 1 or max_rows < 1:
        raise InputError(f"num_samples and max_rows must be at least 1: got {num_samples} and {max_rows}")
    if len(x) == 0:
        raise InputError("there are no data to estimate log p(x) of")
    if len(x) > max_rows:
        parts = zip(x.split(max_rows), _split(context, len(x), max_rows), strict=True)
        return _joined([log_marginal(model, part, c, num_samples=num_samples, max_rows=max_rows) for part, c in parts])
    log_sum = torch.full((len(x),), -torch.inf, dtype=torch.float64)  # on the CPU: some devices have no float64
    log_sum_squares = log_sum.clone()
    distortion, rate = torch.zeros_like(log_sum), torch.zeros_like(log_sum)
    drawn = 0
    while drawn < num_samples:
        count = min(max_rows // len(x), num_samples - drawn)
        draw = model.draw(x, context, num_samples=count, path=False)
        log_weight = draw.log_weight.cpu().double()
        log_sum = torch.logaddexp(log_sum, log_weight.logsumexp(0))
        log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_weight).logsumexp(0))
        distortion = distortion - draw.log_likelihood.cpu().double().sum(0)
        rate = rate + count * torch.stack([factor.rate().cpu().double() for factor in draw.factors])
        drawn += count
    inverse_ess = torch.exp(log_sum_squares - 2 * log_sum)
    variance = (num_samples * inverse_ess - 1).clamp(min=0) / (num_samples - 1) if num_samples > 1 else torch.inf
    return ImportanceEstimate(
        log_px=log_sum - math.log(num_samples),
        standard_error=torch.as_tensor(variance, dtype=torch.float64).sqrt().expand(len(x)),
        effective_sample_size=1 / inverse_ess,
        rate=rate / num_samples,
        distortion=distortion / num_samples,
        num_samples=num_samples,
    )


def _split(context: Context | None, length: int, size: int) -> list[dict[str, Tensor]]:
    starts = range(0, length, size)
    return [{name: tensor[i : i + size] for name, tensor in (context or {}).items()} for i in starts]


def _joined(parts: list[ImportanceEstimate]) -> ImportanceEstimate:
    """One estimate for all data from those of consecutive parts."""
    names = ("log_px", "standard_error", "effective_sample_size", "rate", "distortion")
    fields = {name: torch.cat([getattr(part, name) for part in parts], dim=-1) for name in names}
    return ImportanceEstimate(**fields, num_samples=parts[0].num_samples)
