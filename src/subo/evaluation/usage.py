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

__all__ = ["LatentUsage", "latent_usage", "marginals", "posterior_mean", "posterior_means"]

ACTIVE_VARIANCE = 0.01
COLLAPSED_KL = 0.01  # nats
_MEAN_SAMPLES = 1000


@dataclass(frozen=True)
class LatentUsage:
    """How the D dimensions of z are used on N data.

    Attributes:
        means: Posterior means of the E elements of z: D, or of one-hot categories D times the number of classes.
        variance: Variance of the posterior means over the data.
        active: Which exceed 0.01: the active units of Burda et al., 2016, section 5.
        kl: Mean KL of each dimension's marginal in nats, or None where these are not known. They sum to the rate where
            prior and posterior factorise over dimensions, and to less below a full-rank posterior.
        share_collapsed: Share of the data whose KL in a dimension is below 0.01 nats, so that their posterior is the
            prior (Lucas et al., 2019, definition 1, with epsilon = 0.01); None where `kl` is.
    """

    means: Float[Tensor, "N E"]
    variance: Float[Tensor, " D"]
    active: Bool[Tensor, " D"]
    kl: Float[Tensor, " D"] | None
    share_collapsed: Float[Tensor, " D"] | None = None


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
    active = variance > ACTIVE_VARIANCE
    if kls[0] is None:
        return LatentUsage(z, variance, active, None)
    kl = torch.cat([k.cpu() for k in kls if k is not None])
    return LatentUsage(z, variance, active, kl.mean(0), (kl < COLLAPSED_KL).double().mean(0))


def _kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """``(B, D)`` marginal divergences, where the prior factorises and q's marginals are known."""
    of_q = marginals(q)
    if of_q is None or not isinstance(p, Independent):
        return None
    try:
        prior = p.base_dist.expand(of_q.batch_shape)  # torch's divergence of bits does not broadcast
        return kl_divergence(of_q, prior).flatten(1)
    except NotImplementedError:
        return None


def marginals(q: Distribution) -> Distribution | None:
    """``q(z_d)`` of each dimension, batch shape ``(B, *D)``, where they are known, else None.

    They are where q factorises, and of a Gaussian. A one-hot category is one dimension, whatever its classes.
    """
    if isinstance(q, MultivariateNormal):
        return Normal(q.mean, q.variance.sqrt(), validate_args=False)
    return q.base_dist if isinstance(q, Independent) else None


def _draws(model: LatentVariableModel, split: Split, batch_size: int) -> Iterator[Draw]:
    """A draw of every batch: how any model tells its posterior and prior."""
    with evaluating(model), forked(0):
        for batch in batches(split, batch_size, seed=0, epoch=0, shuffle=False):
            yield model.draw(*place(model, batch.x, batch.context), path=False)
