r"""Missing cells of tables: draws from ``p(x_mis | x_obs)``, best guesses, and the pooling of several draws.

With :math:`z_k \sim q(z | x_{obs})` and :math:`w_k = p(x_{obs}, z_k) / q(z_k | x_{obs})`,

.. math:: E[h(x_{mis}) | x_{obs}] \approx \sum_k \tilde w_k\, E[h(x_{mis}) | z_k], \qquad
          \tilde w_k = w_k / \sum_l w_l

(Mattei and Frellsen, 2019, equations 11 and 12). A draw takes one of the z by these weights, then the cells from
p(x_mis | z): as K grows its distribution becomes the exact conditional (sampling importance resampling; Rubin, 1987).
With a model p(s | x) of which cells are missing, the weights are of ``p(x_obs, s, z)``, and the cells are drawn from
p(x_mis | z, s).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.batches import batches
from subo.data.splits import Split, takes_data
from subo.data.support import check_support
from subo.distributions.columns import Columns
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream
from subo.typing import Context, map_latent

__all__ = ["Imputation", "Pooled", "check_refits", "impute", "pooled", "with_own_gaps"]

_LATENTS = 20_000  # at a time


@dataclass(frozen=True, eq=False)
class Imputation:
    """Rows with their missing cells filled.

    Attributes:
        draws: ``(M, N, D)``, M independent fillings of each row; observed cells are the same in all.
        effective_sample_size: ``(N,)``, how many of K samples of z the weights of a row are worth; where it is small,
            its draws repeat each other. K for a row without missing cells.
        num_samples: K.
    """

    draws: Float[Tensor, "M N D"]
    effective_sample_size: Float[Tensor, " N"]
    num_samples: int

    @classmethod
    def of(cls, parts: Sequence["Imputation"]) -> "Imputation":
        """Those of several models one after the other, with the smallest effective sample size of each row."""
        sizes = torch.stack([part.effective_sample_size for part in parts])
        return cls(torch.cat([part.draws for part in parts]), sizes.amin(0), parts[0].num_samples)


@takes_data
@checked_arguments
@torch.no_grad()
def impute(
    model: LatentVariableModel,
    split: Split,
    *,
    num_draws: int = 1,
    num_samples: int = 1000,
    seed: int = 0,
    advance: Callable[[float], object] | None = None,
) -> Imputation:
    """Fills the missing cells, NaN, of rows with draws from their distribution given the observed ones.

    Args:
        model: A model whose likelihood describes tables with missing cells.
        split: Rows, coded as the model's data were.
        num_draws: M, the number of fillings.
        num_samples: K, the number of samples of z from which each draw takes one.
        seed: Seed for the draws.
        advance: Called with the number of incomplete rows done, as they finish.

    Raises:
        InputError: A row is outside of the support, as one with missing cells is of every likelihood but ``columns``.
    """
    check_support(model, split)
    incomplete = split.x.isnan().any(1).nonzero()[:, 0]
    draws = split.x.expand(num_draws, *split.x.shape).clone()
    sizes = torch.full((len(split),), float(num_samples), dtype=torch.float64)
    if len(incomplete) == 0:
        return Imputation(draws, sizes, num_samples)
    with evaluating(model), forked(seed):
        size = max(1, _LATENTS // num_samples)
        for batch in batches(split.take(incomplete), size, seed=seed, epoch=0, shuffle=False):
            x, context = place(model, batch.x, batch.context)
            rows = incomplete[batch.context["index"].cpu() - split.first]
            filled, effective = _filled(model, x, context, num_draws, num_samples)
            draws[:, rows], sizes[rows] = filled.cpu(), effective.cpu()
            if advance is not None:
                advance(len(x))
    return Imputation(draws, sizes, num_samples)


def _filled(
    model: Any, x: Tensor, context: dict[str, Tensor], num_draws: int, num_samples: int
) -> tuple[Tensor, Tensor]:
    """M fillings of a batch, and the effective sample sizes."""
    draw = model.draw(x, context, num_samples=num_samples, path=False)
    log_weight = draw.log_weight.double()
    log_weight = log_weight.masked_fill(log_weight.isneginf().all(0), 0)  # an observed cell that no z explains
    effective = torch.exp(2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0))
    chosen = torch.distributions.Categorical(logits=log_weight.T, validate_args=False).sample(torch.Size([num_draws]))
    rows = torch.arange(len(x), device=x.device).expand(num_draws, -1)
    z = map_latent(lambda leaf: leaf[chosen, rows].flatten(0, 1), draw.z)
    repeated = {name: tensor.repeat(num_draws, *[1] * (tensor.ndim - 1)) for name, tensor in context.items()}
    p = model.decode(z, repeated)
    drawn = (p.sample_missing() if isinstance(p, Columns) else p.sample()).unflatten(0, (num_draws, len(x)))
    return torch.where(x.isnan(), drawn, x), effective


@torch.no_grad()
def with_own_gaps(
    model: Any, x: Float[Tensor, "N D"], context: Context | None = None, *, seed: int
) -> Float[Tensor, "N D"]:
    """Rows without the cells that a model of which cells are missing, p(s | x), leaves out at random.

    Args:
        model: A model with the likelihood ``columns`` whose ``missing_model`` is not ``none``.
        x: Coded rows without missing cells.
        context: One row per example, if the model needs any.
        seed: Seed for the choice.
    """
    with forked(seed):
        p = model.sample(1, None if context is None else {name: tensor[:1] for name, tensor in context.items()})[1]
    chance = torch.rand(x.shape, generator=stream("gaps", seed))
    return x.masked_fill(chance < p.log_missing(x).exp(), torch.nan)


@dataclass(frozen=True)
class Pooled:
    """An estimate from several imputed tables.

    Attributes:
        mean: The mean of the estimates.
        variance: Its variance, of both the data and what is missing in them.
        degrees_of_freedom: Of Student's t for intervals of `mean`.
        missing_information: The share of the variance that is due to missing cells.
    """

    mean: float
    variance: float
    degrees_of_freedom: float
    missing_information: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval that holds the estimated quantity in a share `level` of all samples."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * math.sqrt(self.variance)
        return self.mean - reach, self.mean + reach


@checked_arguments
def pooled(
    estimates: np.ndarray, variances: np.ndarray, *, complete_degrees: float = math.inf, refits: int | None = None
) -> Pooled:
    r"""Pools what was estimated from each of M imputed tables by Rubin's rules (1987, section 3.1).

    .. math:: T = \bar U + (1 + 1/M) B

    with the mean :math:`\bar U` of the variances and the variance B between the estimates. The degrees of freedom are
    those of Barnard and Rubin (1999, equation 3), which never exceed those of complete data.

    With R refits of n = M / R draws each, estimates of one refit are alike. B is then the variance between the means of
    refits, and W the mean of those within (Rubin, 2003, "Nested multiple imputation of NMES via partially incompatible
    MCMC", section 3; Shen, 2000):

    .. math:: T = \bar U + (1 + 1/R) B + (1 - 1/n) W

    Args:
        estimates: ``(M,)``, such as the mean of a column in each table.
        variances: ``(M,)``, the square of the standard error of each.
        complete_degrees: Degrees of freedom of the estimate without missing cells, such as N - 1 for a mean.
        refits: R, if the tables are from several fits, those of a fit following each other; None: all from one.

    Raises:
        InputError: There are fewer than two tables, not as many variances, or tables cannot be divided among refits.

    Example:
        >>> result = pooled(np.array([1.0, 1.2, 0.8]), np.array([0.1, 0.1, 0.1]))
        >>> round(result.mean, 2), round(result.variance, 4)
        (1.0, 0.1533)
    """
    estimates, variances = np.asarray(estimates, dtype=float), np.asarray(variances, dtype=float)
    if estimates.ndim != 1 or len(estimates) < 2 or variances.shape != estimates.shape:
        raise InputError(
            f"estimates and variances are one number from each of at least two tables; got shapes {estimates.shape} "
            f"and {variances.shape}"
        )
    parts = _parts(estimates, refits)
    added = sum(part for part, _ in parts)
    total = float(variances.mean()) + added
    share = added / total if total > 0 else 0.0
    inverse = sum((part / total) ** 2 / degrees for part, degrees in parts if part > 0)
    observed = math.inf
    if math.isfinite(complete_degrees):
        observed = (complete_degrees + 1) / (complete_degrees + 3) * complete_degrees * (1 - share)
    inverse += 1 / observed if observed > 0 else math.inf
    degrees = 1 / inverse if inverse > 0 else math.inf
    return Pooled(float(estimates.mean()), total, degrees, share)


def _parts(estimates: np.ndarray, refits: int | None) -> list[tuple[float, int]]:
    """What missing cells add to the variance, part by part, each with its degrees of freedom."""
    if refits is None:
        return [((1 + 1 / len(estimates)) * float(estimates.var(ddof=1)), len(estimates) - 1)]
    each, rest = divmod(len(estimates), refits)
    if refits < 2 or rest:
        raise InputError(f"{len(estimates)} tables cannot be divided among {refits} refits: give as many of each")
    nested = estimates.reshape(refits, each)
    parts = [((1 + 1 / refits) * float(nested.mean(1).var(ddof=1)), refits - 1)]
    if each > 1:
        parts.append(((1 - 1 / each) * float(nested.var(1, ddof=1).mean()), refits * (each - 1)))
    return parts


def check_refits(draws: int | None, refits: int) -> None:
    """Refuses draws that cannot be divided equally among refits."""
    if draws is None or draws % refits:
        raise InputError(
            f"`refits` models give as many draws each: `draws` must be a multiple of {refits}, such as {4 * refits}, "
            f"not {'left out' if draws is None else draws}"
        )
