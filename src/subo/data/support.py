"""Whether data match a model's shape and support: checked before training, reported row by row after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from torch.distributions import Distribution, constraints

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, split_of
from subo.distributions.columns import Rows
from subo.errors import DivergedError, InputError
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["check_support", "explained", "in_support", "likelihood_at", "outside_cells", "stand_ins", "support_of"]

_CHUNK, _NUMBERS = 10_000, 4_000_000


def support_of(distribution: Distribution) -> Any:
    """The support of a distribution; None if it declares none, in which case torch's property raises."""
    try:
        return distribution.support
    except NotImplementedError:
        return None


@torch.no_grad()
def likelihood_at(model: LatentVariableModel, split: Split) -> Distribution:
    """p(x|z) for one latent of the prior and the context of the first example."""
    first = replace(split.take(torch.arange(1)), resample=False)
    _, context = place(model, *first.read(torch.arange(1)))
    with evaluating(model), forked(0):
        return model.sample(1, context)[1]


@torch.no_grad()
def check_support(model: LatentVariableModel, split: Split, *, where: str = "the data") -> None:
    """Refuses data of another shape than the model's, or with values outside its support; of rows on disk, some.

    Args:
        model: The model.
        split: The data.
        where: Name of the data in the message.

    Raises:
        InputError: Says which example is wrong and how, and what to do.
    """
    for index, x, support in _parts(model, split, split.looked_at(), where=where):
        outside = ~support.check(x)
        if outside.any():
            row = int(outside.nonzero()[0, 0])
            raise InputError(_message(f"{where}: {_rows(split)} {int(index[row]) + 1}", support, x[row]))


@contextmanager
def explained(model: LatentVariableModel, x: Tensor, context: Context, *, where: str) -> Iterator[None]:
    """Explains a failed calculation by the data, if they are not what the model describes.

    It costs nothing if there is no error.

    Args:
        model: The model.
        x: The data, ``(N, *event)``.
        context: Named context tensors, one row per example.
        where: Name of the data in the message.

    Raises:
        InputError: Replaces another error, which is raised unchanged if nothing is wrong with the data.
    """
    try:
        yield
    except (InputError, DivergedError):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        try:
            check_support(model, split_of(x, context), where=where)
        except InputError as refusal:
            raise refusal from error
        except Exception:
            raise error from None  # the model fails whatever the data are
        raise


@torch.no_grad()
def in_support(model: LatentVariableModel, split: Split, *, where: str = "the data") -> Bool[Tensor, " N"]:
    """Which examples the model gives a density; the log p(x) of the others is -infinity.

    Args:
        model: The model.
        split: The data.
        where: Name of the data in the message.

    Raises:
        InputError: The data have another shape than the model's, or a value is not finite.
    """
    inside = torch.ones(len(split), dtype=torch.bool)
    for index, x, support in _parts(model, split, torch.arange(len(split)), where=where):
        inside[index] = support.check(x)
    return inside


@torch.no_grad()
def outside_cells(model: LatentVariableModel, split: Split, *, where: str = "the data") -> Bool[Tensor, "N D"]:
    """Which observed cells of a table's rows their columns' kinds do not allow; none where there are no columns.

    Args:
        model: The model.
        split: The rows.
        where: Name of the data in the message.

    Raises:
        InputError: The rows have another number of columns than the model's.
    """
    outside = torch.zeros(split.x.shape, dtype=torch.bool)
    for index, x, support in _parts(model, split, torch.arange(len(split)), where=where):
        if isinstance(support, Rows):
            outside[index] = ~support.cells(x).cpu()
    return outside


def stand_ins(split: Split, inside: Bool[Tensor, " N"]) -> Split:
    """The data, with each example outside the support replaced by the first one inside it.

    What a model computes for data outside its support is arbitrary, and may be an error. With stand-ins for them, the
    other examples keep the same positions, batches and noise as without.
    """
    if bool(inside.all()):
        return split
    return split.take(torch.where(inside, torch.arange(len(split)), int(inside.int().argmax())))


def _parts(
    model: LatentVariableModel, split: Split, wanted: Integer[Tensor, " n"], *, where: str
) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Chunks of finite data of the model's shape: their positions, their values, and the model's support."""
    x, _ = replace(split.take(torch.arange(1)), resample=False).read(torch.arange(1))
    p = likelihood_at(model, split)
    if p.event_shape != x.shape[1:]:
        parts = p.batch_shape[1:] + p.event_shape
        if parts == x.shape[1:]:
            raise InputError(
                f"for one latent the likelihood returned batch_shape {tuple(p.batch_shape)}, event_shape "
                f"{tuple(p.event_shape)}; expected (1,), {tuple(parts)}: wrap it in "
                f"Independent(..., {len(p.batch_shape) - 1})"
            )
        raise InputError(
            f"{where}: the model describes data of shape {tuple(p.event_shape)}, but these have the shape "
            f"{tuple(x.shape[1:])}. {_shape_hint(p, x.shape[1:])}"
        )
    support = support_of(p)
    if support is None or (split.resample and not split.dequantize):  # drawn bits are valid
        return
    split = replace(split, resample=False)  # noise keeps a value in its cell: its midpoint suffices
    chunk = min(_CHUNK, _NUMBERS // split.event_shape.numel())  # rows; for sequences, as many steps
    chunk = max(1, chunk * split.event_shape.numel() // split.num_elements)
    for index in wanted.split(chunk):
        x, _ = split.read(index)
        finite = x.isfinite().flatten(1).all(1) | isinstance(support, Rows)  # which allow missing cells
        if split.lengths is not None:  # NaN is a missing value, for which 0 stands in: every family's support has it
            finite, x = ~x.isinf().flatten(1).any(1), x.where(~x.isnan(), 0)
        if not finite.all():
            row = int(index[(~finite).nonzero()[0, 0]])
            raise InputError(
                f"{where}: {_rows(split)} {row + 1} holds NaN or infinity. Usually a value is missing: drop the row or "
                "fill it."
            )
        yield index, x, support


def _shape_hint(p: Distribution, came: torch.Size) -> str:
    wanted = p.event_shape
    if len(wanted) == len(came) == 1:
        return f"It was fitted to {wanted[0]} features, but received {came[0]}: give it the same columns."
    return "Give it data of the shape that it was made for."


def _rows(split: Split) -> str:
    return "row" if split.lengths is None else "sequence"


def _message(where: str, support: constraints.Constraint, x: torch.Tensor) -> str:
    if isinstance(support, Rows):
        column = int((~support.cells(x)).nonzero()[0, 0])
        return (
            f"{where}, column {column + 1} of those that are modeled, holds what its kind does not allow: a number not "
            "above 0 where it is positive, or a fraction or a number below 0 in a count"
        )
    elements: Any = support
    while hasattr(elements, "base_constraint"):
        elements = elements.base_constraint
    outside = ~elements.check(x)
    value = x[outside].flatten()[0].item() if outside.shape == x.shape and outside.any() else None
    what = f"{where} holds {'a value' if value is None else f'{value:g}'}, outside of what the likelihood "
    if elements is constraints.boolean:
        grey = bool(((x >= 0) & (x <= 1)).all())
        remedy = (
            "these are grey values, and a Bernoulli of grey values is not a likelihood: binarize them "
            "(`binarize=dynamic`) or use the likelihood continuous-bernoulli."
            if grey
            else "use the likelihood gaussian for real values, poisson for counts."
        )
        return f"{what}describes, 0 and 1: {remedy}"
    if elements is constraints.unit_interval:
        return f"{what}describes, [0, 1]: scale the data to it, or use the likelihood gaussian."
    if elements is constraints.nonnegative_integer:
        return f"{what}describes, counts 0, 1, 2, ...: use the likelihood gaussian for real values."
    if isinstance(elements, type(constraints.integer_interval(0, 1))):
        last = torch.as_tensor(elements.upper_bound).expand(outside.shape)[outside].flatten()[0].item()
        return f"{what}describes, the classes 0 to {last}: number the classes like this, or increase num_classes."
    return f"{what}describes, {elements}."
