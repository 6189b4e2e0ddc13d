"""What the latents carry: posterior means, KL and activity of each dimension."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from subo.batches import batches
from subo.data import Split
from subo.devices import evaluating, place
from subo.model import Draw, LatentVariableModel
from subo.randomness import forked

__all__ = ["LatentUsage", "latent_usage", "posterior_mean", "posterior_means"]

ACTIVE_VARIANCE = 0.01
_MEAN_SAMPLES = 1000


@dataclass(frozen=True)
class LatentUsage:
    """How the D dimensions of z are used on N data.

    Attributes:
        means: Posterior means.
        variance: Variance of the posterior means over the data.
        active: Which exceed 0.01: the active units of Burda et al., 2016, section 5.
        kl: Mean KL of each dimension's marginal in nats, or None where these are not known. They sum to the rate where
            prior and posterior factorise over dimensions, and to less below a full-rank posterior.
    """

    means: Float[Tensor, "N D"]
    variance: Float[Tensor, " D"]
    active: Bool[Tensor, " D"]
    kl: Float[Tensor, " D"] | None


def posterior_mean(q: Distribution) -> Float[Tensor, "B ..."]:
    """``E_q[z]``: exact where the distribution knows it, else the mean of 1,000 samples by a fixed seed."""
    try:
        return q.mean
    except NotImplementedError:
        with forked(0):
            return q.sample(torch.Size([_MEAN_SAMPLES])).mean(0)


@torch.no_grad()
def posterior_means(model: LatentVariableModel, split: Split, *, batch_size: int = 1000) -> Float[Tensor, "N ..."]:
    """Posterior means of data, in their order; the same at every call.

    Args:
        model: The model.
        split: The data.
        batch_size: Data at a time.

    Returns:
        Means on the CPU.
    """
    return torch.cat([posterior_mean(draw.q).cpu() for draw in _draws(model, split, batch_size)])


@torch.no_grad()
def latent_usage(model: LatentVariableModel, split: Split, *, batch_size: int = 1000) -> LatentUsage:
    """How each dimension of a vector of latents is used.

    Args:
        model: The model.
        split: The data.
        batch_size: Data at a time.
    """
    means, kls = [], []
    for draw in _draws(model, split, batch_size):
        means.append(posterior_mean(draw.q).flatten(1).cpu())
        kls.append(_kl_by_dimension(draw.q, draw.factors[0].p))
    z = torch.cat(means)
    variance = z.var(0, correction=0)
    if kls[0] is not None and kls[0].shape[1] < z.shape[1]:  # categories: the C numbers of each are one latent
        variance = variance.unflatten(0, (kls[0].shape[1], -1)).sum(1)
    kl = None if kls[0] is None else torch.cat([k.cpu() for k in kls if k is not None]).mean(0)
    return LatentUsage(z, variance, variance > ACTIVE_VARIANCE, kl)


def _kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """``(B, D)`` marginal divergences, where the prior factorises and q's marginals are known."""
    if not isinstance(p, Independent):
        return None
    if isinstance(q, MultivariateNormal):
        marginals: Distribution = Normal(q.mean, q.variance.sqrt(), validate_args=False)
    elif isinstance(q, Independent):
        marginals = q.base_dist
    else:
        return None
    try:
        prior = p.base_dist.expand(marginals.batch_shape)  # torch's divergence of bits does not broadcast
        return kl_divergence(marginals, prior).flatten(1)
    except NotImplementedError:
        return None


def _draws(model: LatentVariableModel, split: Split, batch_size: int) -> Iterator[Draw]:
    """A draw of every batch: how any model tells its posterior and prior."""
    with evaluating(model), forked(0):
        for batch in batches(split, batch_size, seed=0, epoch=0, shuffle=False):
            yield model.draw(*place(model, batch.x, batch.context), path=False)
