r"""Likelihood regret: how much better q fits an example once it is optimized for it alone.

.. math:: R(x) = \max_\lambda L(x; q_\lambda) - L(x; q_\phi(\cdot|x))

(Xiao, Yan and Amit, 2020, equation 5.) The encoder fits what it was trained on; examples of another kind leave more to
gain, also where log p(x) is high, as that of plain images is under a model of busy ones.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.splits import Split, takes_data
from subo.data.support import in_support, stand_ins
from subo.errors import InputError
from subo.evaluation.scores import score
from subo.gradients import Pathwise, ScoreFunction
from subo.inference.ascent import Ascent
from subo.inference.per_example import infer
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional, Local
from subo.runtime.arguments import checked_arguments
from subo.runtime.progress import bar
from subo.runtime.randomness import seed_of_piece
from subo.runtime.shares import in_shares

__all__ = ["likelihood_regret"]

_ROWS = 200  # at a time


@takes_data
@checked_arguments
def likelihood_regret(
    model: VAE,
    split: Split,
    *,
    ascent: Ascent = Ascent(),
    num_samples: int = 100,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
) -> Float[Tensor, " N"]:
    """The regret of each example, in nats; NaN where it has no density, infinite where the encoder's bound is.

    Both bounds are means over the same number of samples with the same seed. The search keeps the encoder's q unless it
    finds a better one, so that a regret below 0 is due to the samples.

    Args:
        model: A VAE with an encoder.
        split: The examples.
        ascent: The search for the best q.
        num_samples: Samples of z for each of the two bounds.
        seed: Seed for all samples.
        processes: Number of processes that share the examples, as in :func:`subo.evaluation.score`.
        progress: Whether to show progress.

    Raises:
        InputError: The model has no encoder.

    Example:
        >>> import subo
        >>> model = subo.make("vae", torch.randn(50, 3), hidden=(8,)).model
        >>> likelihood_regret(model, torch.randn(2, 3), ascent=Ascent(steps=50)).shape
        torch.Size([2])
    """
    posterior: Any = model.posterior
    if not isinstance(posterior, Conditional):
        raise InputError(
            f"the regret is what an encoder leaves to gain, and the posterior of this model, a "
            f"{type(posterior).__name__}, has none of one pass: use a model with amortized inference"
        )
    inside = in_support(model, split)
    if not bool(inside.any()):
        return torch.full((len(split),), torch.nan)
    known = stand_ins(split, inside)
    if ascent.gradient is None:
        has_path = posterior.family(torch.zeros(1, posterior.family.num_params)).has_rsample
        ascent = replace(ascent, gradient=Pathwise() if has_path else ScoreFunction())
    with bar("fitting q to each example", len(known), show=progress) as advance:
        work = partial(_of_pieces, model, known, ascent, num_samples, seed, advance if processes == 1 else None)
        pieces = math.ceil(len(known) / _ROWS)
        regrets = in_shares(
            work, pieces, processes=processes, advance=lambda done: advance(min(len(done) * _ROWS, len(known)))
        )
    return torch.cat(regrets).masked_fill(~inside, torch.nan)


def _of_pieces(
    model: Any,
    known: Split,
    ascent: Ascent,
    num_samples: int,
    seed: int,
    advance: Callable[[float], object] | None,
    pieces: range,
) -> list[Tensor]:
    """The regrets of some rows at a time, each time with noise of its own."""
    regrets = []
    for piece in pieces:
        rows = known.take(torch.arange(piece * _ROWS, min((piece + 1) * _ROWS, len(known))))
        regrets.append(_of_rows(model, rows, ascent, num_samples, seed_of_piece(seed, piece)))
        if advance is not None:
            advance(len(rows))
    return regrets


def _of_rows(model: Any, rows: Split, ascent: Ascent, num_samples: int, seed: int) -> Float[Tensor, " n"]:
    """The regrets of some rows."""
    of_encoder = score(model, rows, num_samples=num_samples, seed=seed).elbo
    begun = of_encoder > -torch.inf
    if not bool(begun.any()):
        return torch.full_like(of_encoder, torch.inf)
    rows = stand_ins(rows, begun)
    x, context = replace(rows, resample=False).read(torch.arange(len(rows)))
    found = infer(model, x, context, start="amortized", ascent=ascent, seed=seed)
    of_each = Local(model.posterior.family, len(rows), first=rows.first).to(found.params)
    of_each.params.data.copy_(found.params)
    best = VAE(model.prior, model.likelihood, of_each)
    of_best = score(best, rows, num_samples=num_samples, seed=seed).elbo
    return torch.where(begun, of_best - of_encoder, torch.inf)
