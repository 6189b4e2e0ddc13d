"""The best q of each example within a family, and within a richer one around it, for measuring the gaps."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from subo.gradients import Pathwise, ScoreFunction
from subo.inference.ascent import Ascent
from subo.inference.per_example import infer
from subo.models.vae import VAE
from subo.parts.conditionals import Given
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.families import Family
from subo.typing import Context

__all__ = ["best_posteriors"]

_FLOW_RATE = 0.01  # Adam's first step for the weights of a flow's networks


def best_posteriors(
    model: VAE,
    family: Family,
    richer: Family | Literal["flow"] | None,
    x: Tensor,
    context: Context,
    *,
    ascent: Ascent,
    seed: int,
    progress: bool,
) -> list[Callable[[Tensor], VAE]]:
    """The model with the best q of the family, and with that of the richer family if there is one, for some data.

    Args:
        model: Prior, likelihood and posterior.
        family: Family of q.
        richer: A richer family; ``"flow"`` bends `family`, where it can be bent; None leaves it out.
        x: Data.
        context: Named context tensors, one row per example.
        ascent: Settings of each search; by default its gradient goes along the path, if the family has one.
        seed: Seed for the samples of each search.
        progress: Whether to show progress.

    Returns:
        Functions from rows of x to the model whose posterior is the one found for these rows.
    """
    if ascent.gradient is None:
        has_path = family(x.new_zeros(1, family.num_params)).has_rsample
        ascent = replace(ascent, gradient=Pathwise() if has_path else ScoreFunction())
    search = {"ascent": ascent, "seed": seed, "progress": progress}
    best = _best(model, family, x, context, search)
    flow = _flow(family, best) if richer == "flow" else richer
    posteriors = [_local(model, family, best)]
    if flow is not None:
        posteriors.append(_local(model, flow, _bent(model, flow, family, best, x, context, search)))
    return posteriors


def _best(model: VAE, family: Family, x: Tensor, context: Context, search: dict[str, Any]) -> Float[Tensor, "B P"]:
    """The better parameters of two searches, example by example."""
    found = [infer(model, x, context, family=family, **search)]
    if family is getattr(model.posterior, "family", None) and hasattr(model.posterior, "network"):
        found.append(infer(model, x, context, family=family, start="amortized", **search))
    bounds = torch.stack([one.bound for one in found])
    best = bounds.nan_to_num(nan=-math.inf).argmax(0)
    return torch.stack([one.params for one in found])[best, torch.arange(len(x), device=best.device)]


def _flow(family: Family, params: Tensor) -> CouplingFlow | None:
    """A flow around the family, in its precision, if possible."""
    q: Any = family(params[:1])
    if not q.has_rsample or len(family.event_shape) != 1 or family.event_shape[0] < 2:
        return None
    try:
        _ = q.mean, q.stddev
    except NotImplementedError:  # as for a flow
        return None
    return CouplingFlow(family.event_shape, base=family).to(params)


def _bent(
    model: VAE, flow: Any, family: Family, best: Tensor, x: Tensor, context: Context, search: dict[str, Any]
) -> Float[Tensor, "B Q"]:
    """The best parameters of a richer family; one that bends the first starts from its best, with shorter steps."""
    if getattr(flow, "base", None) is not family:
        return infer(model, x, context, family=flow, **search).params
    ascent = search["ascent"]
    shorter = search | {"ascent": replace(ascent, learning_rate=ascent.learning_rate or _FLOW_RATE)}
    return infer(model, x, context, family=flow, start=flow.around(best), **shorter).params


def _local(model: VAE, family: Family, params: Tensor) -> Callable[[Tensor], VAE]:
    """The model with the posterior that was found, for some of the examples."""
    return lambda rows: VAE(model.prior, model.likelihood, Given(family, params[rows]))
