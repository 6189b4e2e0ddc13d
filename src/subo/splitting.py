"""How data become three splits where they come in one piece: at random, the same at every call with the same seed."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Integer, Shaped
from torch import Tensor

from subo.data import Split, stream
from subo.errors import InputError

__all__ = ["divided", "split"]


def split(
    x: Shaped[Tensor, " M *event"],
    *,
    labels: Integer[Tensor, " N"] | None = None,
    levels: int = 1,
    lengths: Integer[Tensor, " N"] | None = None,
    context: Mapping[str, Shaped[Tensor, "N ..."]] | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    where: str = "the data",
) -> tuple[Split, Split, Split]:
    """Splits data at random into train, validation and test, with at least one datum each.

    Args:
        x: `(N, *event)`, as stored.
        labels: `(N,)`, or None.
        levels: The stored value that means 1.0.
        lengths: `(N,)`, of sequences, whose steps lie in `x` one after the other.
        context: What else is known of each datum, by name, `(N, ...)`.
        seed: Which permutation.
        fractions: The shares of train, validation and test; they sum to 1. The last two are rounded down.
        where: What the data are called in a message.

    Raises:
        InputError: There are fewer than three rows, the fractions are no shares of a whole, or labels or context are
            not one a datum.
    """
    whole = Split(x, levels=levels, labels=labels, lengths=lengths, context=context or {})
    return divided(whole, seed=seed, fractions=fractions, where=where)


def divided(
    whole: Split, *, seed: int = 0, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), where: str = "the data"
) -> tuple[Split, Split, Split]:
    """Splits what is a split already, as :func:`split` does."""
    n = len(whole)
    if n < 3:
        kind, hint = "sequence", ""
        if whole.lengths is None:
            kind, hint = "row", "; usually an axis is missing or swapped: rows are data"
        found = {0: f"no {kind}s", 1: f"one {kind}"}.get(n, f"{n} {kind}s")
        raise InputError(
            f"{where}: at least three {kind}s are needed, one each to train, validate and test on, and there "
            f"{'is' if n == 1 else 'are'} {found}{hint}"
        )
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"fractions must be three shares that sum to 1, such as 0.8, 0.1, 0.1; got {fractions}")
    num_test = min(max(math.floor(n * fractions[2] + 1e-6), 1), n - 2)
    num_validation = min(max(math.floor(n * fractions[1] + 1e-6), 1), n - 1 - num_test)
    sizes = [n - num_validation - num_test, num_validation, num_test]
    order = torch.randperm(n, generator=stream("split", seed))
    train, validation, test = (whole.take(index) for index in order.split(sizes))
    return train, validation, test
