"""Inference without an encoder: parameters of q(z|x) for given data, the model held fixed."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.core.bounds import ELBO, Bound
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.gradients import Pathwise
from subo.inference.ascent import Ascent
from subo.inference.local_bound import LocalBound
from subo.models.vae import VAE
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.progress import bar
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Inferred", "infer"]

_NUM_SAMPLES = 4  # K per step


@dataclass(frozen=True, eq=False)
class Inferred:
    """What :func:`infer` found for N data.

    Attributes:
        q: The fitted posterior, batch shape ``(N,)``.
        params: Parameters of q.
        bound: Bound in nats, from samples not used in the search.
        trace: Bound at the best parameters so far, at the start and every 50 steps, each from its own samples; an
            example that has stopped keeps its last value.
        steps: Number of steps that each example took.
    """

    q: Distribution
    params: Float[Tensor, "N P"]
    bound: Float[Tensor, " N"]
    trace: Float[Tensor, "T N"]
    steps: Integer[Tensor, " N"]


@takes_data
@checked_arguments
def infer(
    model: VAE,
    x: Float[Tensor, "N ..."],
    context: Context | None = None,
    *,
    family: Family | None = None,
    start: Tensor | Literal["amortized"] | None = None,
    bound: Bound = ELBO(),
    ascent: Ascent = Ascent(),
    batch_size: int = 500,
    seed: int = 0,
    progress: bool = False,
) -> Inferred:
    r"""Fits q(z|x) to examples one by one, with everything else held fixed: the first step of black-box inference.

    .. math:: \lambda_i \leftarrow \arg\max_\lambda L(x_i; q_\lambda)

    by Adam on noisy gradients (Ranganath et al., 2014, algorithm 1, there with the score function's), see
    :class:`Ascent`. At the end the best is compared with the start on fresh samples; the start is kept unless the best
    is better by three standard errors: the result is no worse than the start, except by chance for about one example in
    a thousand, and then only slightly. The remaining gain is proportional to the gradient's variance: more samples,
    or an estimator with lower variance, come closer.

    The model, and what the examples share in the family (a flow's maps), stay fixed and get no gradient.

    Args:
        model: The prior and the likelihood; its posterior is used at most for a family and a start.
        x: Data, seen in training or not.
        context: Named context tensors, one row per example.
        family: Family of q; that of the model's posterior by default.
        start: Initial parameters ``(N, P)``, or ``"amortized"``, the encoder's; zeros by default, the family's
            plainest member, which is the standard normal.
        bound: Bound to be maximized, in nats.
        ascent: The search: its steps, samples and gradient.
        batch_size: Number of examples at a time.
        seed: Seed for the samples.
        progress: Whether to show progress.

    Returns:
        The fitted q, its parameters, and the trace of the bound.

    Raises:
        InputError: A number is invalid, the start, the context or the family does not fit, or the bound is not
            finite at the start.

    Example:
        >>> from subo import Gaussian, probabilistic_pca
        >>> model, x = probabilistic_pca(5, 2), torch.zeros(3, 5)
        >>> fitted = infer(model, x, family=Gaussian((2,)), ascent=Ascent(steps=40))
        >>> fitted.q.mean.shape, bool((fitted.bound >= fitted.trace[0] - 1).all())
        (torch.Size([3, 2]), True)
    """
    contexts.check_rows(context, len(x))
    family = family or _family(model)
    if isinstance(start, Tensor) and start.shape != (len(x), family.num_params):
        raise InputError(
            f"start must have one row of parameters per example, shape {(len(x), family.num_params)}, but has "
            f"{tuple(start.shape)}. A {type(family).__name__} over events of shape {tuple(family.event_shape)} takes "
            f"{family.num_params}; without a start all of them are 0."
        )
    gradient = deepcopy(ascent.gradient or Pathwise())  # it may have state
    local = LocalBound(model, family, bound, gradient, ascent.num_samples or _NUM_SAMPLES)
    parts = []
    with evaluating(model), forked(seed), bar("fitting q to each example", len(x), show=progress) as advance:
        for rows in torch.arange(len(x)).split(batch_size):
            batch = place(model, x[rows], {name: tensor[rows] for name, tensor in (context or {}).items()})
            first = _first(model, family, start[rows] if isinstance(start, Tensor) else start, *batch)
            local.check(first, *batch, rows=rows)
            parts.append(ascent.run(local, first, *batch))
            advance(len(rows))
    params, values, traces, taken = zip(*parts, strict=True)
    length = max(len(trace) for trace in traces)
    whole = [torch.cat([trace, trace[-1:].expand(length - len(trace), -1)]) for trace in traces]
    found = torch.cat(params)
    with torch.no_grad():
        return Inferred(family(found), found, torch.cat(values), torch.cat(whole, 1), torch.cat(taken))


def _family(model: VAE) -> Family:
    """The family of the model's posterior."""
    family = getattr(model.posterior, "family", None)
    if family is None:
        raise InputError(
            f"the model's posterior, {type(model.posterior).__name__}, has no family to reuse: give one, such as "
            "family=Gaussian((latent_dim,))"
        )
    return family


def _first(
    model: VAE, family: Family, start: Tensor | Literal["amortized"] | None, x: Tensor, context: Context
) -> Float[Tensor, "B P"]:
    """The parameters at which the search starts."""
    if start is None:
        return x.new_zeros(len(x), family.num_params)
    if isinstance(start, Tensor):
        return start.detach().to(x)
    network = getattr(model.posterior, "network", None)
    if start != "amortized" or network is None:
        raise InputError(
            f"start is a tensor, 'amortized' or None, and 'amortized' needs an encoder: got {start!r} for a "
            f"{type(model.posterior).__name__}"
        )
    with torch.no_grad():
        params = contexts.call(network, x, context=context).flatten(1)
    if params.shape[1] != family.num_params:
        raise InputError(
            f"the encoder gives {params.shape[1]} parameters per example, but the family takes {family.num_params}: "
            "an amortized start needs the posterior's own family"
        )
    return params
