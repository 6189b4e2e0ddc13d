"""What the latents carry: posterior means, KL and activity of each dimension, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import one_hot

from subo.core.draw import Draw, Factor, LatentVariableModel, divergence
from subo.data.batches import batches, num_batches
from subo.data.splits import Split, takes_data
from subo.distributions.gaussian import finite_density
from subo.errors import InputError
from subo.evaluation.latents.classes import prior_classes
from subo.evaluation.numbers import ALONE, CARRIED, Beside, Number
from subo.models.markov import MarkovDistribution
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, seed_of_piece
from subo.runtime.shares import in_shares

__all__ = [
    "LatentUsage",
    "draws",
    "is_compound",
    "latent_usage",
    "layer_means",
    "marginals",
    "posterior_mean",
    "posterior_means",
]

ACTIVE_VARIANCE = 0.01
COLLAPSED_KL = 0.01  # nats
_MEAN_SAMPLES = 1000
_LAYER_SAMPLES = 50  # of z, if the posterior of a part depends on other parts
_LAYERED_DATA = 100  # examples at a time, each with that many samples
_NUMBERS = 20_000_000  # decoded at a time, at most


@dataclass(frozen=True)
class LatentUsage:
    """How the D dimensions of z are used on N examples; those of several layers stand side by side.

    For sequences, every time step is an example; for integer states, the "dimensions" are their probabilities.

    Attributes:
        means: Posterior means of the E elements of z: E is D, or for one-hot categories D times the number of classes.
        variance: Variance of the posterior means over the data; if the prior receives a class, the mean of the
            variances within classes, and for chains, of those over the sequences at each time step.
        active: Which variances exceed 0.01: the active units of Burda et al., 2016, section 5.
        kl: Mean KL of each dimension's marginal in nats, or None if unknown. They sum to the rate if prior and
            posterior factorize over dimensions, and to less for a full-rank posterior.
        share_collapsed: Fraction of the examples whose KL in a dimension is below 0.01 nats, so that their posterior is
            the prior (Lucas et al., 2019, definition 1, with epsilon = 0.01); None if `kl` is None or an estimate.
        layers: Name and number of dimensions of each stochastic layer, in the order of drawing and of the columns.
    """

    means: Float[Tensor, "N E"]
    variance: Float[Tensor, " D"]
    active: Bool[Tensor, " D"]
    kl: Float[Tensor, " D"] | None
    share_collapsed: Float[Tensor, " D"] | None = None
    layers: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns of `means`: z1, z2, ... for one layer, z1_1, z1_2, ... for a layer z1."""
        if len(self.layers) < 2:
            return [f"z{i + 1}" for i in range(self.means.shape[1])]
        return [f"{name}_{i + 1}" for name, size in self.layers for i in range(size)]

    @property
    def active_by_layer(self) -> dict[str, int]:
        """The number of active dimensions in each layer."""
        parts = self.active.split([size for _, size in self.layers])
        return {name: int(part.sum()) for (name, _), part in zip(self.layers, parts, strict=True)}

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The number of active dimensions."""
        how = f"of {len(self.active)}, variance of means > {ACTIVE_VARIANCE}"
        yield Number(CARRIED, "active units", float(self.active.sum()), None, "", how, None, len(self.means))


def posterior_mean(q: Distribution) -> Float[Tensor, "B ..."]:
    """``E_q[z]``: exact if the distribution knows it, else the mean of 1,000 samples with a fixed seed."""
    try:
        return q.mean
    except NotImplementedError:
        with forked(0):
            return q.sample(torch.Size([_MEAN_SAMPLES])).mean(0)


def layer_means(draw: Draw) -> dict[str, Float[Tensor, "B ..."]]:
    """``E_q[z_l | x]`` for every layer, by name.

    Exact if a layer's posterior depends only on x. Otherwise ``E[z_l | x] = E[ E[z_l | x, others] | x ]``: the mean
    over the draw's K samples of the others.
    """
    return {name: _means(factor).mean(0) for name, factor in _named(draw)}


@takes_data
@torch.no_grad()
def posterior_means(
    model: LatentVariableModel, split: Split, *, batch_size: int = 1000, processes: int = 1
) -> Float[Tensor, "N ..."]:
    """Posterior means of data, in their order; the same at every call. Those of several layers stand side by side.

    Args:
        model: The model.
        split: The data.
        batch_size: Number of examples at a time.
        processes: Number of processes that share the examples, as in :func:`subo.evaluation.score`.

    Returns:
        Means on the CPU; for sequences ``(all their steps, D)``.
    """
    size, num_samples = _at_a_time(model, split, batch_size)
    work = partial(_means_of, model, split, size, num_samples)
    return torch.cat(in_shares(work, num_batches(split, size), processes=processes))


@torch.no_grad()
def _means_of(model: LatentVariableModel, split: Split, size: int, num_samples: int, pieces: range) -> list[Tensor]:
    """Posterior means of some batches of a size."""
    parts = []
    for draw, _ in _draws(model, split, size, num_samples, pieces):
        means = [_of_data(_means(factor), factor).mean(0).cpu() for _, factor in _named(draw)]
        parts.append(means[0] if len(means) == 1 else torch.cat([layer.flatten(1) for layer in means], dim=1))
    return parts


@takes_data
@torch.no_grad()
def latent_usage(
    model: LatentVariableModel, split: Split, *, batch_size: int = 1000, processes: int = 1
) -> LatentUsage:
    """How each dimension of the latents is used.

    If means are averages of samples, their variance includes their own error, so that a dimension that carries nothing
    could seem active. The covariance between the means of the two halves of the samples does not: the halves are
    independent given the data. For chains it is computed over the sequences at each time step, and averaged: a prior
    that changes over time moves its states, which says nothing about x. Neither does a prior that receives a class,
    which moves the means of that class: there the variance is computed within classes, and averaged over them.

    Args:
        model: The model.
        split: The data.
        batch_size: Number of examples at a time.
        processes: Number of processes that share the examples, as in :func:`subo.evaluation.score`.
    """
    size, num_samples = _at_a_time(model, split, batch_size)
    classes = prior_classes(model, split)
    of_data = None if classes is None else classes.of_data
    work = partial(_parts_of, model, split, size, num_samples, of_data)
    layers: dict[str, list[_Part]] = {}
    for parts in in_shares(work, num_batches(split, size), processes=processes):
        for name, part in parts.items():
            layers.setdefault(name, []).append(part)
    usages = [_usage(name, parts) for name, parts in layers.items()]
    if len(usages) == 1:
        return usages[0]
    kls = [usage.kl for usage in usages if usage.kl is not None]
    return LatentUsage(
        torch.cat([usage.means for usage in usages], dim=1),
        torch.cat([usage.variance for usage in usages]),
        torch.cat([usage.active for usage in usages]),
        torch.cat(kls) if len(kls) == len(usages) else None,
        layers=tuple(layer for usage in usages for layer in usage.layers),
    )


def marginals(q: Distribution) -> Distribution | None:
    """``q(z_d)`` of each dimension, batch shape ``(B, *D)``, if known, else None.

    They are known if q factorizes, and for Gaussians. A one-hot category is one dimension, for any number of classes.
    """
    if isinstance(q, MultivariateNormal):
        return Normal(q.mean, q.variance.sqrt(), validate_args=False)
    return q.base_dist if isinstance(q, Independent) else None


class _Part(NamedTuple):
    """A layer's posterior means for some data, from all samples and from either half, and each dimension's KL."""

    means: Float[Tensor, "N E"]
    halves: tuple[Float[Tensor, "N E"], Float[Tensor, "N E"]]
    groups: Integer[Tensor, " N"] | None  # the class of each, or its time step
    kl: Float[Tensor, "N D"] | None
    exact: bool


def _part(factor: Factor, classes: Integer[Tensor, " B"] | None) -> _Part:
    means = _of_data(_means(factor), factor).flatten(2).cpu()
    mean, kl = means.mean(0), _kl_by_dimension(factor)
    half = len(means) // 2
    halves = (means[:half].mean(0), means[half:].mean(0)) if half else (mean, mean)
    return _Part(mean, halves, _groups(factor, classes), None if kl is None else kl.cpu(), half == 0)


@torch.no_grad()
def _parts_of(
    model: LatentVariableModel,
    split: Split,
    size: int,
    num_samples: int,
    classes: Integer[Tensor, " N"] | None,
    pieces: range,
) -> list[dict[str, _Part]]:
    """The parts of each layer for some batches of a size."""
    of_each = [None] * num_batches(split, size) if classes is None else classes.split(size)
    drawn = _draws(model, split, size, num_samples, pieces)
    return [
        {name: _part(factor, of_each[piece]) for name, factor in _named(draw)}
        for piece, (draw, _) in zip(pieces, drawn, strict=True)
    ]


def _usage(name: str, parts: list[_Part]) -> LatentUsage:
    """The usage of one layer, from its parts."""
    z = torch.cat([part.means for part in parts])
    first, second = (torch.cat(halves) for halves in zip(*(part.halves for part in parts), strict=True))
    groups = [part.groups for part in parts if part.groups is not None]
    variance = _covariance(first, second, torch.cat(groups) if groups else None).clamp(min=0)
    kls = [part.kl for part in parts if part.kl is not None]
    kl = torch.cat(kls) if kls else None
    if kl is not None and kl.shape[1] < z.shape[1]:  # categories: the C numbers of each form one latent
        variance = variance.unflatten(0, (kl.shape[1], -1)).sum(1)
    share = (kl < COLLAPSED_KL).double().mean(0) if kl is not None and parts[0].exact else None
    active = variance > ACTIVE_VARIANCE
    return LatentUsage(z, variance, active, None if kl is None else kl.mean(0), share, ((name, len(active)),))


def _covariance(
    a: Float[Tensor, "N E"], b: Float[Tensor, "N E"], groups: Integer[Tensor, " N"] | None
) -> Float[Tensor, " E"]:
    """The covariance of each column over the data; with groups, the mean of the covariances within each group."""
    if groups is None:
        return ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
    counts = torch.bincount(groups).to(a)

    def around_their_means(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, groups, values)
        return values - (sums / counts.unsqueeze(1))[groups]

    return (around_their_means(a) * around_their_means(b)).sum(0) / (counts - 1).clamp(min=0).sum().clamp(min=1)


def _groups(factor: Factor, classes: Integer[Tensor, " B"] | None) -> Integer[Tensor, " N"] | None:
    """The class of each example, or the time step of each state of a chain, in the order of :func:`_of_data`."""
    if not isinstance(factor.q, MarkovDistribution):
        return classes
    mask, batch = factor.q.mask, factor.z.shape[1]
    times = torch.arange(factor.q.length).expand(batch, -1)
    return times.flatten() if mask is None else times[mask.cpu()]


def _named(draw: Draw) -> list[tuple[str, Factor]]:
    """The names of the latents and their factors, in the order of drawing."""
    if isinstance(draw.z, Tensor):
        return [("z", draw.factors[0])]
    names = {id(leaf): name for name, leaf in draw.z.items()}
    return [(names[id(factor.z)], factor) for factor in draw.factors]


def _means(factor: Factor) -> Float[Tensor, "k B ..."]:
    """Means of a layer's posterior at k samples of what it depends on, one if that is nothing; for a chain, samples."""
    if isinstance(factor.q, MarkovDistribution):
        if factor.z.is_floating_point():
            return factor.z
        states = factor.q.first.enumerate_support(expand=False)  # for integers, the probability of each
        return one_hot(factor.z, len(states)).to(torch.get_default_dtype())
    return factor.q.mean if len(factor.q.batch_shape) > 1 else posterior_mean(factor.q).unsqueeze(0)


def _of_data(means: Float[Tensor, "k B ..."], factor: Factor) -> Float[Tensor, "k N ..."]:
    """The same, with the real steps of sequences as examples."""
    if not isinstance(factor.q, MarkovDistribution):
        return means
    mask = factor.q.mask
    return means.flatten(1, 2) if mask is None else means[:, mask]


def _kl_by_dimension(factor: Factor) -> Tensor | None:
    """``(B, D)`` marginal divergences, if the prior factorizes and q's marginals are known.

    For a layer that depends on others, the mean over their samples of its ``log q - log p``.
    """
    q, p = marginals(factor.q), factor.p
    if q is None or not isinstance(p, Independent):
        return None
    if len(factor.q.batch_shape) > 1 or len(p.batch_shape) > 1:
        log_q, log_p = (finite_density(elements).log_prob(factor.z) for elements in (q, p.base_dist))
        return (log_q - log_p).mean(0).flatten(1)
    kl = divergence(q, p.base_dist)
    return None if kl is None else kl.flatten(1)


def is_compound(draw: Draw) -> bool:
    """Whether z is a dict of layers, or a chain: its parts' posteriors depend on each other."""
    return isinstance(draw.z, dict) or isinstance(draw.q, MarkovDistribution)


def draws(
    model: LatentVariableModel, split: Split, *, batch_size: int = 1000
) -> Iterator[tuple[Draw, dict[str, Tensor]]]:
    """A draw for every batch, in the data's order, and its context: the way to any model's posterior and prior.

    The same at every call; one sample of a flat posterior, many of a compound one, where means are averages of samples.

    Raises:
        InputError: There are no data.
    """
    size, num_samples = _at_a_time(model, split, batch_size)
    yield from _draws(model, split, size, num_samples, range(num_batches(split, size)))


def _at_a_time(model: LatentVariableModel, split: Split, batch_size: int) -> tuple[int, int]:
    """Number of examples in a batch, and of samples for each."""
    if len(split) == 0:
        raise InputError("cannot measure latent usage: there are no data")
    with evaluating(model), forked(0), torch.no_grad():
        first = next(batches(split, 1, seed=0, epoch=0, shuffle=False))
        if not is_compound(model.draw(*place(model, first.x, first.context), path=False)):
            return batch_size, 1
    most = max(1, _NUMBERS // (_LAYER_SAMPLES * split.num_elements))
    return min(batch_size, _LAYERED_DATA, most), _LAYER_SAMPLES


def _draws(
    model: LatentVariableModel, split: Split, size: int, num_samples: int, pieces: range
) -> Iterator[tuple[Draw, dict[str, Tensor]]]:
    """A draw for each of some batches of a size, and its context; a batch's noise does not depend on the others."""
    parts = batches(split, size, seed=0, epoch=0, shuffle=False, first=pieces.start)
    for piece, batch in zip(pieces, parts, strict=False):
        with evaluating(model), forked(seed_of_piece(0, piece)):
            x, context = place(model, batch.x, batch.context)
            yield model.draw(x, context, num_samples=num_samples, path=False), context
