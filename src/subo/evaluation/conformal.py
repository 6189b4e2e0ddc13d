r"""Conformal p-values: how rare a score is among held-out examples, exactly valid whatever the model is.

For a score s and scores :math:`s_1 .. s_n` of held-out examples that the model was not fitted to, lower for odder ones,

.. math:: p = \frac{1 + \#\{i: s_i \le s\}}{n + 1}

If the new example comes from the same distribution, all n + 1 scores are exchangeable, and p is at most alpha with a
probability of at most alpha, in samples of any size (Vovk, Gammerman and Shafer, 2005, proposition 2.4; Bates et al.,
2023, equation 3).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = ["conformal_p_values", "marked"]


@checked_arguments
def conformal_p_values(scores: Float[Tensor, " N"], held_out: Float[Tensor, " n"]) -> Float[Tensor, " N"]:
    """The p-value of each score.

    Args:
        scores: Scores of new examples, such as log p(x); lower is odder.
        held_out: Scores of examples of the kind that the model was fitted to, which it was not fitted to.

    Example:
        >>> conformal_p_values(torch.tensor([-9.0, 0.0]), torch.tensor([-1.0, 1.0, 2.0]))
        tensor([0.2500, 0.5000])
    """
    lower = torch.searchsorted(held_out.sort().values, scores.to(held_out), right=True)
    return (1 + lower).to(scores) / (len(held_out) + 1)  # in float32, 0.05 would be above 0.05


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
    ranks = torch.arange(1, len(ordered) + 1, device=ordered.device)
    below = (ordered <= alpha * ranks / len(ordered)).nonzero()
    return p_values <= ordered[below[-1, 0]] if len(below) else torch.zeros_like(p_values, dtype=torch.bool)
