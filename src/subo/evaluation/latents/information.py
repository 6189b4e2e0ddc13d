"""The information in z about x: the mutual information under q, and the aggregate posterior it is measured against."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.draw import Draw, LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.evaluation.latents.classes import Classes, prior_classes, received
from subo.evaluation.numbers import ALONE, CARRIED, Beside, Number
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream

__all__ = ["Encoded", "MutualInformation", "encode", "log_densities", "mutual_information", "standard_error"]

_ENCODED = 1000  # examples per pass
_NUMBERS = 200_000  # in one tensor of latents against examples: it stays in the cache


@dataclass(frozen=True)
class MutualInformation:
    """The rate, split in two: ``rate = mutual information + KL(q(z) || p(z))``, in nats per example.

    All three are means over the same samples, so that the identity also holds for the estimates. Standard errors are
    those over samples, for these data; infinite with one sample per example, where they are unknown.

    Attributes:
        value: ``I(x; z)`` under q; ``I(x; z | c)`` if the prior receives a class c (see `given`), and ``I((x, c); z)``
            if only other parts receive context (see `received`). It cannot exceed `ceiling`: near it, q distinguishes
            all of these examples, and with more data it would be larger.
        standard_error: Standard error of `value`.
        marginal_kl: ``KL(q(z) || p(z))``: how far the aggregate posterior is from the prior; within classes, the mean
            of ``KL(q(z|c) || p(z|c))``. None if nearly every example has a different prior: then there is no aggregate
            posterior to compare it with.
        marginal_kl_se: Standard error of `marginal_kl`.
        rate: ``E_q[log q(z|x) - log p(z)]``, from samples.
        rate_se: Standard error of `rate`.
        num_data: N.
        num_samples: K, for each example.
        ceiling: ``log N``: distinguishing N examples takes no more; within classes, the mean of ``log N_c`` over the
            data.
        given: Names of the context that the prior receives, which defines the classes for all terms; empty if it
            receives none.
        received: Names of the context that any part of the model receives.
    """

    value: float
    standard_error: float
    marginal_kl: float | None
    marginal_kl_se: float | None
    rate: float
    rate_se: float
    num_data: int
    num_samples: int
    ceiling: float
    given: tuple[str, ...] = ()
    received: tuple[str, ...] = ()

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The rate in its parts; if the prior receives the class c, within classes and named accordingly."""
        information, marginal = "mutual information I(x; z)", "marginal KL(q(z) || p(z))"
        if self.received:
            information = "mutual information I((x, c); z)"
        if self.given:
            information, marginal = "I(x; z | c) within classes", "KL(q(z|c) || p(z|c)) within classes"
        how = f"below the truth; <= {'E log N_c' if self.given else 'log N'} = {self.ceiling:.2f}"
        same, counts = "the same samples", (self.num_samples, self.num_data)
        yield Number(CARRIED, information, self.value, self.standard_error, "nats", how, *counts)
        rate = "the rate by these samples"
        if self.marginal_kl is not None:
            yield Number(CARRIED, marginal, self.marginal_kl, self.marginal_kl_se, "nats", same, *counts)
            rate = f"  their sum, {rate}"
        yield Number(CARRIED, rate, self.rate, self.rate_se, "nats", same, *counts)


@takes_data
@torch.no_grad()
def mutual_information(
    model: LatentVariableModel, split: Split, *, max_data: int = 1000, num_samples: int = 4, seed: int = 0
) -> MutualInformation:
    r"""Estimates the mutual information of x and z under q, and how far the aggregate posterior is from the prior.

    .. math:: I(x; z) = \frac1N \sum_i E_{q(z|x_i)} \left[ \log \frac{q(z|x_i)}{q(z)} \right],
              \qquad q(z) = \frac1N \sum_j q(z|x_j)

    where the aggregate posterior is the mixture over the same N examples, so that only the samples of z are random.
    With the prior in its place the mean is the rate, so ``rate = I + KL(q(z) || p(z))`` (Hoffman and Johnson, 2016).
    Each of the N K samples is compared with all N posteriors, some samples at a time: the time grows with N^2 K, memory
    does not. With `max_data` as large as the split, q(z) is the aggregate posterior of all its data.

    A prior that receives the class c of an example, p(z|c), cannot be compared with q(z) of all classes: the mean of
    ``log q(z) - log p(z|c)`` is not a divergence, and can be negative. The same step within each class is valid,

    .. math:: E_c E_{x|c} \mathrm{KL}\big(q(z|x, c) \,\|\, p(z|c)\big)
              = I(x; z | c) + E_c \mathrm{KL}\big(q(z|c) \,\|\, p(z|c)\big),
              \qquad q(z|c) = \frac{1}{N_c} \sum_{j : c_j = c} q(z|x_j, c)

    since within a class ``log q(z|x, c) - log p(z|c)`` is the sum of ``log q(z|x, c) - log q(z|c)``, whose mean over
    the class is the information there, and ``log q(z|c) - log p(z|c)``, whose mean is a divergence. A class is a set of
    examples with the same context for the prior. If most examples have a context of their own (a real number), I((x,
    c); z) over all data is reported, and no divergence.

    Args:
        model: A model with a single tensor as latent and a posterior whose ``log_prob`` broadcasts.
        split: The data.
        max_data: Largest N; if there are more examples, N are chosen at random, the same at every call with the same
            seed.
        num_samples: K.
        seed: Seed for the choice of examples, their bits and the samples.

    Raises:
        InputError: There are no data, `max_data` or `num_samples` is below 1, or the latent is not a single tensor.

    Example:
        >>> from subo import probabilistic_pca
        >>> information = mutual_information(probabilistic_pca(5, 2), Split(torch.randn(100, 5)))
        >>> information.value < information.ceiling
        True
    """
    with evaluating(model), forked(seed):
        encoded = encode(model, split, max_data=max_data, num_samples=num_samples, seed=seed)
        log_posterior, log_aggregate = log_densities([draw.q for draw in encoded.draws], encoded.z, encoded.classes)
    information, marginal = log_posterior - log_aggregate, log_aggregate - encoded.log_prior
    num_data, classes = encoded.z.shape[1], encoded.classes
    return MutualInformation(
        value=information.mean().item(),
        standard_error=standard_error(information),
        marginal_kl=marginal.mean().item() if encoded.comparable else None,
        marginal_kl_se=standard_error(marginal) if encoded.comparable else None,
        rate=(log_posterior - encoded.log_prior).mean().item(),
        rate_se=standard_error(log_posterior - encoded.log_prior),
        num_data=num_data,
        num_samples=num_samples,
        ceiling=math.log(num_data) if classes is None else classes.sizes.double().log().mean().item(),
        given=() if classes is None else classes.names,
        received=received(model, split),
    )


@dataclass(frozen=True, eq=False)
class Encoded:
    """Draws for some examples, and all their latents.

    Attributes:
        draws: Draws for consecutive examples.
        z: Latents of all of them.
        log_prior: ``log p(z)`` of each latent under its own example's prior; float64, on the CPU.
        classes: Classes of the data, if each class has its own prior; None if all data share one prior, or there are no
            classes.
        comparable: Whether all examples of a class have the same prior.
    """

    draws: list[Draw]
    z: Float[Tensor, "K N *event"]
    log_prior: Float[Tensor, "K N"]
    classes: Classes | None
    comparable: bool


def encode(model: Any, split: Split, *, max_data: int, num_samples: int, seed: int) -> Encoded:
    """Draws for some examples; they keep their index, since a posterior may have one row per example.

    Args:
        model: The model, already in the desired mode and random state.
        split: The data.
        max_data: Largest N.
        num_samples: K.
        seed: Seed for the choice of examples and their bits.

    Raises:
        InputError: There are no data, a number is below 1, or the latent is not a single tensor.
    """
    if max_data < 1 or num_samples < 1:
        raise InputError(f"max_data and num_samples must be at least 1: got {max_data} and {num_samples}")
    if len(split) == 0:
        raise InputError("there are no data to measure the information of the latents on")
    chosen = torch.arange(len(split))
    if len(split) > max_data:
        chosen = torch.randperm(len(split), generator=stream("information data", seed))[:max_data]
    bits = stream("information bits", seed)
    draws: list[Draw] = []
    for index in chosen.split(_ENCODED):
        x, context = split.read(index, generator=bits)
        draw = model.draw(*place(model, x, context), num_samples=num_samples, path=False)
        if not isinstance(draw.z, Tensor) or len(draw.factors) > 1:
            raise InputError(
                f"information is measured for one tensor of latents, but this model has {len(draw.factors)} stochastic "
                "layers: there is no density of q for all of z at once. Use the rate of each layer."
            )
        if "mask" in context:
            raise InputError(
                "information compares each example's q with those of the others, but sequences of different lengths "
                "have latents of different shapes. Use the rate, per sequence or per step."
            )
        draws.append(draw)
    shared = all(len(draw.factors[0].p.batch_shape) == 0 for draw in draws)
    classes = None if shared else prior_classes(model, split, chosen)
    latents: list[Any] = [draw.z for draw in draws]
    log_prior = torch.cat([draw.log_prior for draw in draws], dim=1).cpu().double()
    return Encoded(draws, torch.cat(latents, dim=1), log_prior, classes, shared or classes is not None)


def log_densities(
    posteriors: list[Any], z: Float[Tensor, "K N *event"], classes: Classes | None = None
) -> tuple[Float[Tensor, "K N *D"], Float[Tensor, "K N *D"]]:
    """``log q(z | x)`` for each latent's own example, and ``log q(z)``, the mean of q over all data.

    In float64, on the CPU. Both use the same densities, so that their difference never exceeds log N.

    Args:
        posteriors: Posteriors of consecutive examples, batch shape ``(B,)``; with ``(B, *D)`` they are D densities of
            parts of z, each with its own aggregate.
        z: Latents.
        classes: Classes; the mean is then over the examples of the latent's class instead of all data.
    """
    num_samples, num_data = z.shape[:2]
    rows = z.flatten(0, 1)
    at_a_time = max(1, _NUMBERS // (num_data * max(1, rows[0].numel())))
    counts = torch.full((num_data,), num_data) if classes is None else classes.sizes
    own, aggregate = [], []
    for part, example in zip(rows.split(at_a_time), _data_of(num_samples, num_data).split(at_a_time), strict=True):
        # Every row against every example, (rows, data, *event): expanded, since not every density broadcasts.
        densities = [q.log_prob(part.unsqueeze(1).expand(-1, q.batch_shape[0], *part.shape[1:])) for q in posteriors]
        table = torch.cat(densities, dim=1).cpu().double()
        own.append(table[torch.arange(len(part)), example])
        if classes is not None:
            others = classes.of_data != classes.of_data[example].unsqueeze(1)
            table = table.masked_fill(others.view(others.shape + (1,) * (table.ndim - 2)), -math.inf)
        log_counts = counts[example].to(table).log().view(-1, *[1] * (table.ndim - 2))
        aggregate.append(table.logsumexp(1) - log_counts)
    shape = (num_samples, num_data)
    return torch.cat(own).unflatten(0, shape), torch.cat(aggregate).unflatten(0, shape)


def _data_of(num_samples: int, num_data: int) -> Tensor:
    """Which example each latent belongs to, sample-major."""
    return torch.arange(num_data).repeat(num_samples)


def standard_error(values: Float[Tensor, "K N"]) -> float:
    """The error of the mean over samples and data, from the spread over each example's samples: the data are fixed."""
    num_samples, num_data = values.shape
    if num_samples == 1:
        return math.inf
    return math.sqrt(values.var(0).mean().item() / (num_samples * num_data))
