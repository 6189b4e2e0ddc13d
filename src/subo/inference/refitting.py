"""The posterior network of a structured model, trained on a single example: the best q of its form for it."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from subo.core.bounds import ELBO
from subo.core.objective import Objective
from subo.errors import InputError
from subo.gradients import Pathwise, ScoreFunction
from subo.inference.ascent import Ascent
from subo.runtime.devices import evaluating
from subo.runtime.progress import bar
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Measure", "Measured", "measure_refitted", "own_parameters", "refitted"]

Measured = tuple[Tensor, Tensor]
"""Values and their standard errors, one of each per example."""
Measure = Callable[..., Measured]
"""From ``(model, x, context)`` to what is measured for each example."""

_LEARNING_RATE = 1e-2
_NUM_SAMPLES = 16
_COMPARED = 400  # samples for comparing the start and the end, on common random numbers
_SURE = 3.0  # standard errors


def refitted(
    model: Any,
    x: Tensor,
    context: Context | None = None,
    *,
    ascent: Ascent = Ascent(steps=300),
    seed: int = 0,
) -> Any:
    r"""The model with its posterior's parameters phi fitted to one example, everything else held fixed.

    .. math:: \phi_i = \arg\max_\phi L(x_i; q_\phi(z | x_i))

    A posterior over several layers or a path in time is a product of conditionals, ``q(z_1|x) q(z_2|z_1) ...``, with
    parameters that depend on other latents; no row of numbers describes it for an example. With one example a
    network of x is as good as free parameters, and a network of other latents remains a function of them.

    Uses Adam with a step size that falls to 0 along a cosine. The start is kept unless the end is better by three
    standard errors of the difference.

    Args:
        model: A model with a module ``posterior``.
        x: One example, ``(1, ...)``.
        context: Named context tensors, one row.
        ascent: Steps, samples (16 by default), initial step size and gradient; by default along the path, if there is
            one, and otherwise by :class:`~subo.ScoreFunction`.
        seed: Seed for the samples.

    Returns:
        A copy of the model; the model itself if its posterior has no parameters of its own, like an exact one.

    Raises:
        InputError: There is no module ``posterior``, or there are several examples.
    """
    if not isinstance(getattr(model, "posterior", None), nn.Module):
        raise InputError(
            f"the best q is searched for in the posterior's parameters, but {type(model).__name__} has no module "
            "'posterior' that identifies them"
        )
    if len(x) != 1:
        raise InputError(f"a posterior is refitted to one example at a time; received {len(x)}")
    if not own_parameters(model):
        return model
    copy = deepcopy(model)
    copy.requires_grad_(False)
    phi = own_parameters(copy)
    for parameter in phi:
        parameter.requires_grad_(True)
    learning_rate = ascent.learning_rate or _LEARNING_RATE
    optimizer = torch.optim.Adam(phi, lr=learning_rate)
    # cuDNN refuses the backward pass of a recurrent network in evaluation mode.
    with evaluating(copy), forked(seed), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        has_path = all(factor.q.has_rsample for factor in copy.draw(x, context, path=False).factors)
        gradient = ascent.gradient or (Pathwise() if has_path else ScoreFunction())
        objective = Objective(copy, ELBO(), gradient=gradient, num_samples=ascent.num_samples or _NUM_SAMPLES)
        for step in range(ascent.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 + math.cos(math.pi * step / ascent.steps)) / 2
            optimizer.zero_grad()
            objective(x, context).loss.backward()
            optimizer.step()
        before, after = (_log_weights(one, x, context, seed + 1) for one in (model, copy))
    gain = after - before
    sure = gain.mean() > _SURE * gain.std() / math.sqrt(len(gain))  # False for NaN
    return copy if sure else model


def measure_refitted(
    model: Any,
    x: Tensor,
    context: Context,
    ascent: Ascent,
    elbo: Measure,
    log_px: Measure,
    *,
    seed: int,
    progress: bool = False,
) -> tuple[Measured, ...]:
    """Measures each example at the model's posterior and at its best one, with errors.

    Examples are processed one by one, since each has its own posterior.

    Args:
        model: As for :func:`refitted`.
        x: Data.
        context: Named context tensors, one row per example.
        ascent: As for :func:`refitted`.
        elbo: Measured at both posteriors, with the same noise.
        log_px: Measured at the best one.
        seed: Seed for all randomness.
        progress: Whether to show progress.
    """
    found = []
    with bar("fitting q to each example", len(x), show=progress) as advance:
        for row in range(len(x)):
            example = x[row : row + 1], {name: tensor[row : row + 1] for name, tensor in context.items()}
            best = refitted(model, *example, ascent=ascent, seed=seed + 4 * row)
            found.append([])
            for measure, at, noise in ((elbo, model, 2), (elbo, best, 2), (log_px, best, 3)):
                with forked(seed + 4 * row + noise):
                    found[-1] += measure(at, *example)
            advance(1)
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    return tuple(zip(columns[0::2], columns[1::2], strict=True))


def own_parameters(model: Any) -> list[nn.Parameter]:
    """Phi: the posterior's parameters that are not shared with the prior or the likelihood."""
    theta = {
        id(parameter)
        for name in ("prior", "likelihood")
        if isinstance(part := getattr(model, name, None), nn.Module)
        for parameter in part.parameters()
    }
    return [parameter for parameter in model.posterior.parameters() if id(parameter) not in theta]


@torch.no_grad()
def _log_weights(model: Any, x: Tensor, context: Context | None, seed: int) -> Tensor:
    with forked(seed):
        return model.draw(x, context, num_samples=_COMPARED, path=False).log_weight[:, 0].double()
