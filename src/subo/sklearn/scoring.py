r"""Scores of single rows, their ranks among held-out rows, and the thresholds of outliers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from subo.data.splits import Split
from subo.data.support import in_support
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.scores import latents_at_a_time
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream

__all__ = ["HeldOut", "conformal_threshold", "own_seed", "quantile_threshold", "row_scores"]


@torch.no_grad()
def row_scores(model: Any, split: Split, *, num_samples: int, seed: int) -> Float[Tensor, " N"]:
    """log p(x) of each row by noise of its own, so that it does not depend on the rows beside it.

    Args:
        model: The model.
        split: Rows, and perhaps their sizes.
        num_samples: K.
        seed: What the noise of a row is made of, with the row.
    """
    inside = in_support(model, split, where="X")
    scores = torch.full((len(split),), -torch.inf, dtype=torch.float64)
    options: Any = {"max_rows": latents_at_a_time(model, split), "pareto": False}
    with evaluating(model):
        for number in inside.nonzero()[:, 0].tolist():
            row, _ = split.read(torch.tensor([number]))
            known = {name: tensor[number : number + 1] for name, tensor in split.context.items()}
            with forked(own_seed(row, seed)):
                estimate = log_marginal(model, *place(model, row, known), num_samples=num_samples, **options)
            scores[number] = estimate.log_px.item()
    return scores


def own_seed(row: Tensor, seed: int) -> int:
    """The seed of a row's noise, from its contents; 0 and -0 are the same number, and so is every NaN."""
    same = torch.where(row.isnan(), torch.nan, row + 0.0)
    return stream("row", same.numpy().tobytes().hex(), seed).initial_seed()


class HeldOut:
    """Rows that were held out, and their scores, which are computed when they are first asked for.

    Args:
        split: The rows.
    """

    def __init__(self, split: Split):
        self.split = split
        self._scores: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.split)

    def scores(self, of: Callable[[Split], Tensor], num_samples: int) -> Float[Tensor, " n"]:
        """Their scores, in float64.

        Args:
            of: Rows to scores, by this number of samples.
            num_samples: K.
        """
        if num_samples not in self._scores:
            self._scores[num_samples] = of(self.split)
        return self._scores[num_samples]


def conformal_threshold(held_out: Float[Tensor, " n"], rate: float) -> float:
    r"""The score below which p-values are at most `rate`; -infinity if none can be.

    :math:`p = (1 + \#\{i: s_i \le s\}) / (n + 1) \le \alpha` where s is below the k-th smallest of the :math:`s_i`, for
    the largest k with :math:`k / (n + 1) \le \alpha`.

    Example:
        >>> scores = torch.arange(19.0, dtype=torch.float64)
        >>> conformal_threshold(scores, 0.1), conformal_threshold(scores, 0.04)
        (1.0, -inf)
    """
    possible = np.arange(1, len(held_out) + 1) / (len(held_out) + 1)
    count = int(np.searchsorted(possible, rate, side="right"))
    return held_out.sort().values[count - 1].item() if count else -math.inf


def quantile_threshold(held_out: Float[Tensor, " n"], share: float) -> float:
    """The score below which a share of the held-out rows lies, rounded up to whole rows.

    Example:
        >>> quantile_threshold(torch.arange(20.0, dtype=torch.float64), 0.1)
        2.0
    """
    return float(np.quantile(held_out.numpy(), share, method="higher"))
