"""What z tells of x: the mutual information under q, and the aggregate posterior that it is measured against."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.data import Split, stream
from subo.devices import evaluating, place
from subo.errors import InputError
from subo.model import Draw, LatentVariableModel
from subo.randomness import forked

__all__ = ["MutualInformation", "mutual_information"]

_ENCODED = 1000  # data a pass
_NUMBERS = 200_000  # in one tensor of latents against data: it stays in the cache


@dataclass(frozen=True)
class MutualInformation:
    """The rate, cut in two: ``rate = mutual information + KL(q(z) || p(z))``, in nats per datum.

    All three are means over the same samples, so that the identity holds of the estimates, too. Standard errors are
    those of the samples, for these data; infinite for one sample a datum, which tells nothing of it.

    Attributes:
        value: ``I(x; z)`` under q. It cannot exceed :attr:`ceiling`: where it is near, q tells all of these data apart,
            and of more data it would be larger.
        standard_error: Of `value`.
        marginal_kl: ``KL(q(z) || p(z))``: how far the aggregate posterior is from the prior.
        marginal_kl_se: Its standard error.
        rate: ``E_q[log q(z|x) - log p(z)]``, all by samples.
        num_data: N.
        num_samples: K, for each datum.
    """

    value: float
    standard_error: float
    marginal_kl: float
    marginal_kl_se: float
    rate: float
    num_data: int
    num_samples: int

    @property
    def ceiling(self) -> float:
        """``log N``: to tell N data apart takes no more."""
        return math.log(self.num_data)


@torch.no_grad()
def mutual_information(
    model: LatentVariableModel, split: Split, *, max_data: int = 1000, num_samples: int = 4, seed: int = 0
) -> MutualInformation:
    r"""Estimates the mutual information of x and z under q, and how far the aggregate posterior is from the prior.

    .. math:: I(x; z) = \frac1N \sum_i E_{q(z|x_i)} \left[ \log \frac{q(z|x_i)}{q(z)} \right],
              \qquad q(z) = \frac1N \sum_j q(z|x_j)

    where the aggregate posterior is the mixture over the same N data, so that nothing but the samples of z is random.
    With the prior in its place the mean is the rate, hence ``rate = I + KL(q(z) || p(z))`` (Hoffman and Johnson,
    2016). Each of the N K samples is held against all N posteriors, some samples at a time; memory does not grow with
    N^2. Where prior and posterior are given a context, it counts as a part of x, and the second term is the mean of
    ``log q(z) - log p(z|c)``, which may be less than 0.

    Args:
        model: The model; its latent is one tensor, and the ``log_prob`` of its posterior broadcasts.
        split: The data.
        max_data: Largest N; of more data as many are taken at random, the same at every call with the same seed.
        num_samples: K.
        seed: Of the data that are taken, their bits and the samples.

    Raises:
        InputError: There are no data, `max_data` or `num_samples` is below 1, or the latent is no single tensor.

    Example:
        >>> from subo import probabilistic_pca
        >>> information = mutual_information(probabilistic_pca(5, 2), Split(torch.randn(100, 5)))
        >>> information.value < information.ceiling
        True
    """
    if max_data < 1 or num_samples < 1:
        raise InputError(f"max_data and num_samples must be at least 1: got {max_data} and {num_samples}")
    if len(split) == 0:
        raise InputError("there are no data to measure the mutual information on")
    with evaluating(model), forked(seed):
        draws = _draws(model, split, max_data, num_samples, seed)
        samples: list[Any] = [draw.z for draw in draws]
        z = torch.cat(samples, dim=1)
        log_prior = torch.cat([draw.log_prior for draw in draws], dim=1).cpu().double()
        log_posterior, log_aggregate = _log_densities([draw.q for draw in draws], z)
    information, marginal = log_posterior - log_aggregate, log_aggregate - log_prior
    return MutualInformation(
        value=information.mean().item(),
        standard_error=_standard_error(information),
        marginal_kl=marginal.mean().item(),
        marginal_kl_se=_standard_error(marginal),
        rate=(log_posterior - log_prior).mean().item(),
        num_data=z.shape[1],
        num_samples=num_samples,
    )


def _draws(model: Any, split: Split, max_data: int, num_samples: int, seed: int) -> list[Draw]:
    """Draws of some data, which keep their index in the split: a posterior may hold a row for each."""
    chosen = torch.arange(len(split))
    if len(split) > max_data:
        chosen = torch.randperm(len(split), generator=stream("information data", seed))[:max_data]
    bits = stream("information bits", seed)
    draws = []
    for index in chosen.split(_ENCODED):
        x, context = split.read(index, generator=bits)
        draw = model.draw(*place(model, x, context), num_samples=num_samples, path=False)
        if not isinstance(draw.z, Tensor) or len(draw.factors) > 1:
            raise InputError(
                f"the mutual information is measured of one tensor of latents, and this model has {len(draw.factors)} "
                "stochastic layers: there is no density of q for all of z at once. Use the rate of each layer."
            )
        draws.append(draw)
    return draws


def _log_densities(
    posteriors: list[Any], z: Float[Tensor, "K N *event"]
) -> tuple[Float[Tensor, "K N"], Float[Tensor, "K N"]]:
    """``log q(z | x)`` of each latent's own datum, and ``log q(z)``, the mean of q over all data; float64, on the CPU.

    Both are of the same densities, so that their difference never exceeds log N.
    """
    num_samples, num_data = z.shape[:2]
    rows = z.flatten(0, 1)
    at_a_time = max(1, _NUMBERS // (num_data * max(1, rows[0].numel())))
    own, aggregate = [], []
    for part, datum in zip(rows.split(at_a_time), _data_of(num_samples, num_data).split(at_a_time), strict=True):
        # Every row against every datum, (rows, data, *event): expanded, since not every density broadcasts by itself.
        densities = [q.log_prob(part.unsqueeze(1).expand(-1, *q.batch_shape, *part.shape[1:])) for q in posteriors]
        table = torch.cat(densities, dim=1).cpu().double()
        own.append(table.gather(1, datum.unsqueeze(1)).squeeze(1))
        aggregate.append(table.logsumexp(1) - math.log(num_data))
    return torch.cat(own).view(num_samples, num_data), torch.cat(aggregate).view(num_samples, num_data)


def _data_of(num_samples: int, num_data: int) -> Tensor:
    """Which datum each latent is of, sample-major."""
    return torch.arange(num_data).repeat(num_samples)


def _standard_error(values: Float[Tensor, "K N"]) -> float:
    """Of the mean over samples and data, by the spread over the samples of each datum: the data are as they are."""
    num_samples, num_data = values.shape
    if num_samples == 1:
        return math.inf
    return math.sqrt(values.var(0).mean().item() / (num_samples * num_data))
