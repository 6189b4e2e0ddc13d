"""Whether data are what a model describes: checked once, at the door."""

from dataclasses import replace

import torch
from torch.distributions import Distribution, constraints

from subo.data import Split
from subo.devices import evaluating, place
from subo.errors import InputError
from subo.gradients import check_path
from subo.model import LatentVariableModel
from subo.objective import Objective
from subo.randomness import forked

__all__ = ["check_draws", "check_support"]

_CHUNK = 10_000


@torch.no_grad()
def check_support(model: LatentVariableModel, split: Split, *, where: str = "the data") -> None:
    """Refuses data of another shape than the model's, or with values to which it gives no density.

    Args:
        model: The model.
        split: The data.
        where: What the data are called in the message.

    Raises:
        InputError: Says which datum is wrong and how, and what to do.
    """
    first = replace(split.take(torch.arange(1)), resample=False)
    x, context = place(model, *first.read(torch.arange(1)))
    with evaluating(model), forked(0):
        _, p = model.sample(1, context)
    if p.event_shape != x.shape[1:]:
        raise InputError(
            f"{where}: the model describes data of shape {tuple(p.event_shape)}, and these have the shape "
            f"{tuple(x.shape[1:])}. {_shape_hint(p, x.shape[1:])}"
        )
    support = _support(p)
    if support is None or (split.resample and not split.dequantize):  # bits that are drawn are bits
        return
    split = replace(split, resample=False)  # noise leaves a value in its cell: that of its middle tells
    for start in range(0, len(split), _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, len(split)))
        x, _ = split.read(index)
        finite = x.isfinite().flatten(1).all(1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0, 0])
            raise InputError(
                f"{where}: row {row + 1} holds NaN or infinity. Usually a value is missing: drop the row or fill it."
            )
        inside = support.check(x)
        if not inside.all():
            row = int((~inside).nonzero()[0, 0])
            raise InputError(_message(where, support, x[row], start + row))


def _support(p: Distribution) -> constraints.Constraint | None:
    try:
        return p.support
    except NotImplementedError:
        return None


def _shape_hint(p: Distribution, came: torch.Size) -> str:
    wanted = p.event_shape
    if len(wanted) == len(came) == 1:
        return f"It was fitted to {wanted[0]} features, and {came[0]} came: give it the same columns."
    return "Give it data of the same shape as it was made for."


def _message(where: str, support: constraints.Constraint, x: torch.Tensor, row: int) -> str:
    elements = getattr(support, "base_constraint", support)
    outside = ~elements.check(x)
    value = x[outside].flatten()[0].item() if outside.shape == x.shape and outside.any() else None
    what = (
        f"{where}: row {row + 1} holds {'a value' if value is None else f'{value:g}'}, outside of what the likelihood "
    )
    if elements is constraints.boolean:
        grey = bool(((x >= 0) & (x <= 1)).all())
        mend = (
            "these are grey values, and a Bernoulli of grey values is not a likelihood: binarise them (--binarize "
            "dynamic) or use the likelihood continuous-bernoulli."
            if grey
            else "use the likelihood gaussian for real values, poisson for counts."
        )
        return f"{what}describes, 0 and 1: {mend}"
    if elements is constraints.unit_interval:
        return f"{what}describes, [0, 1]: scale the data to it, or use the likelihood gaussian."
    if elements is constraints.nonnegative_integer:
        return f"{what}describes, counts 0, 1, 2, ...: use the likelihood gaussian for real values."
    if isinstance(elements, type(constraints.integer_interval(0, 1))):
        return (
            f"{what}describes, the classes {elements.lower_bound} to {elements.upper_bound}: number the classes so, or "
            "raise num_classes."
        )
    return f"{what}describes, {elements}."


def check_draws(objective: Objective, split: Split) -> None:
    """Draws z for the first two data, as training will: a posterior without them or a path that is cut is found here.

    Raises:
        InputError: The posterior has no parameters for them, or the gradient estimator's path does not reach z.
    """
    index = torch.arange(min(2, len(split)))
    x, context = replace(split, resample=False).read(index)
    with evaluating(objective), forked(0), torch.enable_grad():
        place_x, place_context = place(objective, x, context)
        check_path(
            objective.model.draw(
                place_x, place_context, num_samples=max(2, objective.num_samples), path=objective.gradient.path
            )
        )
