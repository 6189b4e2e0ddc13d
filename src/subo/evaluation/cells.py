r"""How likely each cell of a row is given the others, by the weights of the row's own importance samples.

.. math:: p(x_j | x_{-j}) = \frac{p(x)}{p(x_{-j})} \approx \frac{\sum_k w_k}{\sum_k w_k / p(x_j | z_k)}, \qquad
          w_k = \frac{p(x, z_k)}{q(z_k | x)}

since columns are independent given z, so that dividing a weight by p(x_j | z_k) leaves that of the other cells
(importance sampling leave-one-out; Gelfand, Dey and Chang, 1992, section 3). Where a cell is very odd, few weights
decide the denominator: its probability is then estimated as too high more often than too low.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.batches import batches, num_batches
from subo.data.splits import Split, takes_data
from subo.data.support import outside_cells
from subo.errors import InputError
from subo.evaluation.conformal import conformal_p_values
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, seed_of_piece
from subo.runtime.shares import in_shares
from subo.typing import map_latent

__all__ = ["cell_p_values", "cell_scores"]

_NUMBERS = 200_000  # log-probabilities of cells at a time, so that tensors stay in the cache,
_ROWS = 100  # and rows, so that processes have something to share
_LOWEST = -1e9  # of a cell given some z, beside its best one: a weight of 0, from which others can be subtracted


@takes_data
@checked_arguments
@torch.no_grad()
def cell_scores(
    model: LatentVariableModel,
    split: Split,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    processes: int = 1,
    advance: Callable[[float], object] | None = None,
) -> Float[Tensor, "N D"]:
    """``log p(x_j | x_-j)`` of every cell, in nats; NaN where it is missing.

    A cell that its column's kind does not allow, such as -1 in a column of counts, has -infinity. The others of its row
    are scored as if it were missing, since given it no x has a density.

    Args:
        model: A model whose likelihood describes single columns, as that of mixed tables does.
        split: Rows, coded as the model's data were.
        num_samples: K.
        seed: Seed for the samples.
        processes: Number of processes that share the rows, as in :func:`subo.evaluation.score`.
        advance: Called with the number of rows done, as they finish.

    Raises:
        InputError: The likelihood does not describe single columns.
    """
    outside = outside_cells(model, split)
    split = replace(split, x=split.x.masked_fill(outside, torch.nan)) if bool(outside.any()) else split
    size = max(1, min(_ROWS, _NUMBERS // (num_samples * split.event_shape.numel())))
    here = advance if processes == 1 else None
    work = partial(_of_pieces, model, split, size, num_samples, seed, here)

    def done(pieces: range) -> None:
        if advance is not None:
            advance(min(pieces.stop * size, len(split)) - pieces.start * size)

    scores = torch.cat(in_shares(work, num_batches(split, size), processes=processes, advance=done))
    return scores.masked_fill(split.x.isnan(), torch.nan).masked_fill(outside, -torch.inf)


def cell_p_values(
    cells: Float[Tensor, "N D"], held_out: Float[Tensor, "n D"], *, own: Integer[Tensor, " N"] | None = None
) -> Float[Tensor, "N D"]:
    """The p-value of each cell's score among those of its column in held-out rows; 1 where there is nothing to rank.

    Args:
        cells: Scores of cells, see :func:`cell_scores`; NaN where a cell is missing.
        held_out: The same of other rows.
        own: Position in `held_out` of each row that is one of them, see :func:`conformal_p_values`.
    """
    return torch.stack([conformal_p_values(*column, own=own) for column in zip(cells.T, held_out.T, strict=True)], 1)


@torch.no_grad()
def _of_pieces(
    model: Any, split: Split, size: int, num_samples: int, seed: int, advance: Any, pieces: range
) -> list[Tensor]:
    """The cells of some batches of a size, each with noise of its own."""
    known = []
    parts = batches(split, size, seed=seed, epoch=0, shuffle=False, first=pieces.start)
    for piece, batch in zip(pieces, parts, strict=False):
        with evaluating(model), forked(seed_of_piece(seed, piece)):
            known.append(_of_batch(model, *place(model, batch.x, batch.context), num_samples).cpu())
        if advance is not None:
            advance(len(batch))
    return known


def _of_batch(model: Any, x: Tensor, context: dict[str, Tensor], num_samples: int) -> Tensor:
    """The cells of some rows."""
    draw = model.draw(x, context, num_samples=num_samples, path=False)
    repeated = {name: tensor.repeat(num_samples, *[1] * (tensor.ndim - 1)) for name, tensor in context.items()}
    p = model.decode(map_latent(lambda leaf: leaf.flatten(0, 1), draw.z), repeated)
    if not hasattr(p, "log_prob_of_columns"):
        raise InputError(
            f"the likelihood is a {type(p).__name__}, which has no columns: cells are scored by the likelihood columns"
        )
    of_cells = p.unflatten((num_samples, len(x))).log_prob_of_columns(x).double()
    impossible = of_cells.isneginf().all(0)  # a density that no float holds; the others are scored without it
    of_cells = of_cells.masked_fill(impossible, 0)
    most = of_cells.amax(0)  # without which sums of a cell that is 1e16 and of others would be of this one alone
    beside = (of_cells - most).clamp(min=_LOWEST)
    log_ratio = (draw.log_prior - draw.log_posterior).double().unsqueeze(-1)
    log_weight = log_ratio + beside.sum(-1, keepdim=True)  # log p(x|z) is their sum: z is decoded once
    scores = most + log_weight.logsumexp(0) - (log_weight - beside).logsumexp(0)
    return scores.masked_fill(impossible, -torch.inf).float()
