"""Forecasts: the distribution of a sequence's next steps, given those observed."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core import context as contexts
from subo.data.batches import batches
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.models.markov import MarkovDistribution
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked

__all__ = ["Forecast", "forecast"]

_ROWS = 20_000  # states at a time


@dataclass(frozen=True)
class Forecast:
    """The next S steps of N sequences.

    Attributes:
        mean: ``E[x_{T+s} | x_1 ... x_T]``, ``(N, S, *event)``.
        lower: Value below which a fraction ``(1 - coverage) / 2`` of each number's draws lies, ``(N, S, *event)``.
        upper: Value above which the same fraction lies.
        coverage: Coverage of the interval, number by number.
        effective_sample_size: Effective sample size of the weights that correct q, ``(N,)``; near 1, the forecast
            starts from one state.
        num_samples: K.
    """

    mean: Float[Tensor, "N S ..."]
    lower: Float[Tensor, "N S ..."]
    upper: Float[Tensor, "N S ..."]
    coverage: float
    effective_sample_size: Float[Tensor, " N"]
    num_samples: int


@takes_data
@torch.no_grad()
def forecast(
    model: Any,
    split: Split,
    *,
    steps: int,
    num_samples: int = 1000,
    coverage: float = 0.9,
    seed: int = 0,
) -> Forecast:
    r"""Forecasts sequences by simulation: states from the posterior, steps from the model.

    .. math:: p(x_{T+1:T+S} | x_{1:T}) = \int p(z_T | x_{1:T}) \, p(z_{T+1:T+S} | z_T) \, p(x_{T+1:T+S} | z_{T+1:T+S})

    States z_T come from q(z|x), K per sequence, resampled in proportion to their importance weights
    ``p(x, z) / q(z|x)``, so that they follow the model's own posterior as K grows.

    Args:
        model: A model with a chain as prior that decodes given states.
        split: Sequences.
        steps: S.
        num_samples: K.
        coverage: Fraction of the draws between `lower` and `upper`.
        seed: Seed for the draws.

    Raises:
        InputError: The data are not sequences, the prior is not a chain, or a setting makes no sense.

    Example:
        >>> from subo.recipes import deep_markov
        >>> model = deep_markov((3,), likelihood="gaussian", latent_dim=2).model
        >>> split = Split(torch.zeros(6, 3), lengths=torch.tensor([4, 2]))
        >>> forecast(model, split, steps=5, num_samples=10).mean.shape
        torch.Size([2, 5, 3])
    """
    if split.lengths is None:
        raise InputError("a forecast continues sequences, but these data have no order in time")
    if steps < 1 or num_samples < 1:
        raise InputError(f"steps and num_samples must be at least 1: got {steps} and {num_samples}")
    if not 0 < coverage < 1:
        raise InputError(f"coverage must be a fraction between 0 and 1, such as 0.9, not {coverage}")
    parts = []
    at_once = max(1, _ROWS // (num_samples * max(steps, int(split.lengths.max()))))
    with evaluating(model), forked(seed):
        for batch in batches(split, min(at_once, len(split)), seed=seed, epoch=0, shuffle=False):
            x, context = place(model, batch.x, batch.context)
            parts.append(_of_batch(model, x, context, steps, num_samples, coverage))
    mean, lower, upper, size = (torch.cat(column) for column in zip(*parts, strict=True))
    return Forecast(mean, lower, upper, coverage, size, num_samples)


def _of_batch(
    model: Any, x: Tensor, context: dict[str, Tensor], steps: int, num_samples: int, coverage: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    prior = contexts.call(model.prior, context=context)
    if not isinstance(prior, MarkovDistribution):
        raise InputError(
            f"a forecast continues a chain, but the model's prior is a {type(prior).__name__}: it has no next step. "
            "Use Markov(initial, transition) as prior."
        )
    draw = model.draw(x, context, num_samples=num_samples, path=False)
    weights = draw.log_weight.double().softmax(0)  # (K, B)
    chosen = torch.multinomial(weights.mT, num_samples, replacement=True).mT
    last = context["mask"].sum(1) - 1
    states = draw.z[chosen, torch.arange(len(x), device=x.device), last]  # (K, B, *event)
    rows, path = states.flatten(0, 1), []
    for _ in range(steps):
        rows = prior.transition(rows).sample()
        path.append(rows)
    known = {name: tensor for name, tensor in context.items() if name != "mask"}  # no future step is padding
    p = model.decode(torch.stack(path, dim=1), contexts.repeat(known, num_samples))
    mean = p.mean.unflatten(0, (num_samples, len(x))).mean(0)
    mean = mean.to(torch.promote_types(mean.dtype, torch.float32))  # quantiles need at least float32
    draws = p.sample().unflatten(0, (num_samples, len(x))).to(mean.dtype)
    tails = torch.tensor([(1 - coverage) / 2, (1 + coverage) / 2], dtype=mean.dtype, device=mean.device)
    lower, upper = draws.quantile(tails, dim=0)
    return mean.cpu(), lower.cpu(), upper.cpu(), (1 / weights.square().sum(0)).cpu()
