r"""Conformal p-values: how rare a score is among held-out examples, exactly valid whatever the model is.

For a score s and scores :math:`s_1 .. s_n` of held-out examples that the model was not fitted to, lower for odder ones,

.. math:: p = \frac{1 + \#\{i: s_i \le s\}}{n + 1}

If the new example comes from the same distribution, all n + 1 scores are exchangeable, and p is at most alpha with a
probability of at most alpha, in samples of any size (Vovk, Gammerman and Shafer, 2005, proposition 2.4; Bates et al.,
2023, equation 3).
"""

import math

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = ["conformal_p_values", "marked", "too_few_held_out"]


@checked_arguments
def conformal_p_values(
    scores: Float[Tensor, " N"], held_out: Float[Tensor, " n"], *, own: Integer[Tensor, " N"] | None = None
) -> Float[Tensor, " N"]:
    """The p-value of each score.

    Args:
        scores: Scores of new examples, such as log p(x); lower is odder. NaN where there is nothing to rank: its
            p-value is 1.
        held_out: Scores of examples of the kind that the model was fitted to, which it was not fitted to; NaN are left
            out.
        own: Position in `held_out` of each example that is one of them, -1 for others. It keeps the score that it has
            there, and is ranked among the n - 1 others, with which it is exchangeable.

    Example:
        >>> conformal_p_values(torch.tensor([-9.0, 0.0]), torch.tensor([-1.0, 1.0, 2.0]))
        tensor([0.2500, 0.5000])
        >>> conformal_p_values(torch.tensor([1.0]), torch.tensor([-1.0, 1.0, 2.0]), own=torch.tensor([1]))
        tensor([0.6667])
    """
    known, of = ~held_out.isnan(), scores.to(held_out)
    is_own = torch.zeros_like(scores, dtype=torch.bool)
    if own is not None:
        is_own = (own >= 0) & known[own.clamp(min=0)]
        of = torch.where(is_own, held_out[own.clamp(min=0)], of)
    others = int(known.sum()) - is_own.long()
    lower = torch.searchsorted(held_out[known].sort().values, of.contiguous(), right=True) - is_own.long()
    ranks = torch.where(scores.isnan(), others, lower)
    return (1 + ranks).to(scores) / (others + 1)  # in float32, 0.05 would be above 0.05


def too_few_held_out(num_held_out: int, alpha: float, *, fixes: str) -> str:
    """Why no p-value can be as small as alpha, and what to do; empty if one can.

    Args:
        num_held_out: Number n of held-out examples; the smallest p-value is 1 / (n + 1).
        alpha: The largest p-value of an odd example.
        fixes: What to change, which ends with more held-out examples; their least number follows.

    Example:
        >>> too_few_held_out(15, 0.05, fixes="hold out more")[:76]
        'with 15 held-out examples the smallest possible p-value is 1/16 = 0.062, abo'
        >>> too_few_held_out(19, 0.05, fixes="hold out more")
        ''
    """
    lowest = 1 / (num_held_out + 1)
    if lowest <= alpha:
        return ""
    least = math.ceil(1 / alpha - 1e-9) - 1
    return (
        f"with {num_held_out:,} held-out examples the smallest possible p-value is 1/{num_held_out + 1:,} = "
        f"{lowest:.2g}, above {alpha:g}, so that none can be marked: {fixes} (at least {least:,})"
    )


@checked_arguments
def marked(
    p_values: Float[Tensor, " N"], *, alpha: float = 0.05, false_discovery_rate: bool = False
) -> Bool[Tensor, " N"]:
    r"""Which examples are odd: at most a share alpha of ordinary ones, or alpha of those that are marked, by mistake.

    Args:
        p_values: Their p-values.
        alpha: The largest share of mistakes.
        false_discovery_rate: Whether it is the expected share among the marked ones (Benjamini and Hochberg, 1995): the
            k smallest p-values, for the largest k with :math:`p_{(k)} \le \alpha k / N`. Conformal p-values depend on
            each other only such that this holds (Bates et al., 2023, theorem 2).

    Example:
        >>> marked(torch.tensor([0.01, 0.04, 0.5]), alpha=0.05, false_discovery_rate=True)
        tensor([ True, False, False])
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a share between 0 and 1, such as 0.05, and not {alpha}")
    if not false_discovery_rate:
        return p_values <= alpha
    ordered = p_values.sort().values
    ranks = torch.arange(1, len(ordered) + 1, device=ordered.device, dtype=torch.float64)
    below = (ordered <= (alpha * ranks / len(ordered)).to(ordered.dtype)).nonzero()
    return p_values <= ordered[below[-1, 0]] if len(below) else torch.zeros_like(p_values, dtype=torch.bool)
