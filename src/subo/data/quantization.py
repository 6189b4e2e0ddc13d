"""Turns values with few levels into what models describe: bits drawn from grey values, integers with uniform noise.

Integers y have probabilities, and a density at them is not a meaningful number: it grows without bound as it narrows
onto them. With noise u uniform on [0, 1)^D the two are linked. A density p gives y the probability
``P(y) = integral of p over y + [0, 1)^D = E_u[p(y + u)]``, and by Jensen's inequality
``E_u[log p(y + u)] <= log P(y)``. In the levels' own units a cell has volume 1, so that log p(y + u) needs no further
constant; for the same data divided by L, the volume is ``L^-D`` and the constant ``-D log L``.
"""

from dataclasses import replace
from functools import partial
from typing import get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from subo.data.dataset import Data
from subo.data.draws import bits_by_content, noisy_by_content
from subo.data.splits import Binarize, Split
from subo.data.stored_rows import changed, stored
from subo.data.values import Kind, kind_of
from subo.errors import InputError
from subo.runtime.randomness import stream

__all__ = ["MOST_LEVELS", "binarized", "check_policies", "dequantized", "drawn_rows", "quantized"]

MOST_LEVELS = 255
"""The largest level for which float32 holds x + u."""


def check_policies(binarize: str, *, dequantize: bool) -> None:
    """Refuses unknown or mutually exclusive policies.

    Raises:
        InputError: There is no such binarization, or data are to become both bits and real numbers.
    """
    if binarize not in get_args(Binarize):
        raise InputError(f"binarize must be one of {', '.join(get_args(Binarize))}; got {binarize!r}")
    if dequantize and binarize != "none":
        raise InputError(
            f"binarize {binarize} turns grey values into bits, and dequantize into real numbers: use one of the two"
        )


def binarized(data: Data, policy: Binarize, *, seed: int) -> Data:
    """Turns grey values into bits, each 1 with probability x; so 0 and 1 are never flipped.

    Args:
        data: Data to binarize.
        policy: `none`: the data unchanged. `static`: all three splits are drawn once. `dynamic`: train is
            drawn again at every read, validation and test once, with the same draws as `static`.
        seed: Seed for the draws that are made once.

    Raises:
        InputError: The values aren't grey, so that a Bernoulli draw has no meaning.
    """
    check_policies(policy, dequantize=data.dequantize)
    if policy == "none":
        return data
    _refuse_sequences(data)
    _check_grey(data.kind, where=data.name)
    train = data.train.drawn(stream("bits", seed, "train"))
    return replace(
        data,
        train=train if policy == "static" else replace(data.train, resample=True),
        validation=data.validation.drawn(stream("bits", seed, "validation")),
        test=data.test.drawn(stream("bits", seed, "test")),
        kind="binary",
        binarize=policy,
        seed=seed,
        decided=data.meaning,
    )


def dequantized(data: Data, *, seed: int, once: bool = False) -> Data:
    r"""Adds uniform noise to integers: ``y + u`` with ``u ~ U[0, 1)^D``, real numbers in the levels' own units.

    For any density p, ``E_u[log p(y + u)] <= log P(y)``, ``P(y) = \int p(y + u) du`` over the unit cube: what a model
    of the noisy data reports as log p(x) bounds the log-probability of the integers from below, in nats with the cells'
    volume, which is 1. Validation and test are drawn once: the mean over them estimates the bound without bias, and a
    example's own value is one draw's.

    Theis, van den Oord and Bethge (2016), "A note on the evaluation of generative models", section 3.1; the noise is
    that of Uria, Murray and Larochelle (2013), "RNADE".

    Args:
        data: Integers of up to 8 bits.
        seed: Seed for the draws that are made once.
        once: Whether train is drawn once, too; else it is drawn again at every read.

    Raises:
        InputError: The values aren't integers with levels.

    Example:
        >>> from subo import load_data
        >>> data = dequantized(load_data("digits"), seed=0)
        >>> data.kind, data.test.x.floor().max()  # 17 levels
        ('real', tensor(16.))
    """
    check_policies(data.binarize, dequantize=True)
    if data.dequantize:
        raise InputError(f"{data.name}: the data are dequantized already")
    _refuse_sequences(data)
    _check_levels(data)
    train, validation, test = (replace(s, dequantize=True) for s in (data.train, data.validation, data.test))
    return replace(
        data,
        train=train.drawn(stream("noise", seed, "train")) if once else replace(train, resample=True),
        validation=validation.drawn(stream("noise", seed, "validation")),
        test=test.drawn(stream("noise", seed, "test")),
        kind="real",
        dequantize=True,
        seed=seed,
        decided=replace(data.meaning, whole=True),
    )


def drawn_rows(rows: Split, *, binarize: Binarize, dequantize: bool, seed: int, where: str) -> Split:
    """Binarizes or dequantizes rows that are not a data set, with one draw per row that is independent of other rows.

    A few rows of grey or 8-bit data may well be bits: these are left unchanged, and are dequantized as integers.

    Raises:
        InputError: The rows can be neither.
    """
    if dequantize:
        if rows.x.is_floating_point():
            raise InputError(
                f"{where}: the run was fitted to dequantized integers, but these are {kind_of(rows.x)} numbers: give "
                "8-bit pixels, as images or an array of bytes (N, H, W)"
            )
        noisy = partial(noisy_by_content, key=("noise", seed, "rows"))
        return replace(rows, dequantize=True, x=changed(rows.x, noisy))
    if binarize == "none":
        return rows
    some = stored(rows.x)
    if some.min() < 0 or some.max() > rows.levels:
        _check_grey(kind_of(rows.x, levels=rows.levels), where=where)
    bits = partial(bits_by_content, levels=rows.levels, key=("bits", seed, "rows"))
    return replace(rows, x=changed(rows.x, bits), levels=1)


def quantized(x: Float[Tensor, "..."], *, levels: int) -> UInt8[Tensor, "..."]:
    """The levels, 0 .. `levels`, of the cells that hold real numbers: the inverse of adding noise, clipped at the ends.

    For a mean ``E[x]`` it is the level nearest to ``E[x] - 1/2``, the mean level if u is uniform within each.

    Example:
        >>> quantized(torch.tensor([-3.0, 0.0, 7.99, 16.5, 20.0]), levels=16)
        tensor([ 0,  0,  7, 16, 16], dtype=torch.uint8)
    """
    return x.floor().clamp_(0, levels).to(torch.uint8)


def _check_grey(kind: Kind, *, where: str) -> None:
    """Refuses to binarize anything but grey values."""
    if kind == "binary":
        raise InputError(f"{where}: the data are binary already: use binarize none")
    if kind != "grey":
        raise InputError(
            f"{where}: only grey values, in [0, 1] or 8-bit pixels, can be binarized, but these are {kind}: "
            "use binarize none, with a likelihood for such values"
        )


def _refuse_sequences(data: Data) -> None:
    """Refuses to binarize or dequantize sequences."""
    if data.sequential:
        raise InputError(f"{data.name}: sequences are neither binarized nor dequantized: leave both out")


def _check_levels(data: Data) -> None:
    """Refuses to dequantize anything but integers of up to 8 bits."""
    if data.kind == "binary":
        raise InputError(
            f"{data.name}: the data are bits, which already have probabilities: leave dequantize out, and use the "
            "likelihood bernoulli"
        )
    levels = data.train.levels
    if data.train.x.is_floating_point() or not 1 < levels <= MOST_LEVELS:
        found = f"{data.kind} values" if levels == 1 or data.train.x.is_floating_point() else f"integers up to {levels}"
        raise InputError(
            f"{data.name}: only integers with levels, up to 8 bits, can be dequantized, such as images or an array of "
            f"bytes (N, H, W), but these are {found}: leave dequantize out, with a likelihood for such values"
        )
