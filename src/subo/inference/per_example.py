"""Inference without an encoder: parameters of q(z|x) for given data, the model held fixed."""

import math
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
from subo.gradients import GradientEstimator, Pathwise, check_path
from subo.inference.row_adam import adam_step
from subo.models.vae import VAE
from subo.parts.conditionals import Given
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Inferred", "infer", "slope"]

LOOK_EVERY = 50
"""Steps between two looks at the bound."""
_SHRINK = 0.3  # of an example's step size, at a look that finds nothing gained
_SAMPLES = 64  # of z per example by which a look judges; four times as many at the end
_NUMBERS = 20_000_000  # in one tensor of data: 80 MB of float32
_SURE = 3.0  # standard errors by which the end must be better than the start


@dataclass(frozen=True, eq=False)
class Inferred:
    """What :func:`infer` found for N data.

    Attributes:
        q: The fitted posterior, batch shape ``(N,)``.
        params: Its parameters.
        bound: In nats, by samples that took no part in the search.
        trace: That of the best parameters so far, at the start and every 50 steps, each by samples of its own; an
            example that has stopped keeps its last.
        steps: How many each example took.
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
    steps: int = 1000,
    learning_rate: float = 0.05,
    bound: Bound = ELBO(),
    gradient: GradientEstimator | None = None,
    num_samples: int = 4,
    tolerance: float = 1e-3,
    patience: int = 3,
    batch_size: int = 500,
    seed: int = 0,
    progress: bool = False,
) -> Inferred:
    r"""Fits q(z|x) to data one by one, with everything else held fixed: the first step of black-box inference.

    .. math:: \lambda_i \leftarrow \arg\max_\lambda L(x_i; q_\lambda)

    by Adam on noisy gradients (Ranganath et al., 2014, algorithm 1, there with the score function's). Every 50 steps
    the mean of an example's last 50 parameters is compared with its best so far, on common random numbers. Where less
    than `tolerance` was gained, the example goes on from its best with shorter steps; after `patience` such looks in a
    row it has stopped, and costs nothing any more. At the end the best is compared with the start on fresh samples, and
    the start kept unless the best is better by three standard errors: what is returned is no worse than what was given,
    but for one example in a thousand, by chance and by little.
    What is left to gain is in proportion to the gradient's variance: more samples, or an estimator of lower variance,
    come closer.

    The model, and what the data share of the family (a flow's maps), stay as they are and get no gradient.

    Args:
        model: The prior and the likelihood; its posterior is asked for a family and a start, at the most.
        x: Data, seen in training or not.
        context: What is known beside x, by name.
        family: Of q; that of the model's posterior by default.
        start: First parameters ``(N, P)``, or ``"amortized"``, the encoder's; zeros by default, the family's
            plainest member, which is the standard normal.
        steps: The most for any example.
        learning_rate: Adam's first step size.
        bound: What is maximized, in nats.
        gradient: How its gradient is estimated; :class:`~subo.Pathwise` by default. One that needs no path
            through z serves likelihoods that cannot be differentiated.
        num_samples: K of each step.
        tolerance: Nats that 50 steps must gain, for an example to go on.
        patience: Looks in a row without such a gain, after which an example stops.
        batch_size: Data at a time.
        seed: Of the samples.
        progress: Whether to show progress.

    Returns:
        The fitted q, its parameters, and how the bound rose.

    Raises:
        InputError: A number makes no sense, the start, the context or the family does not fit, or the bound is not
            finite at the start.

    Example:
        >>> from subo import Gaussian, probabilistic_pca
        >>> model, x = probabilistic_pca(5, 2), torch.zeros(3, 5)
        >>> fitted = infer(model, x, family=Gaussian((2,)), steps=40)
        >>> fitted.q.mean.shape, bool((fitted.bound >= fitted.trace[0] - 1).all())
        (torch.Size([3, 2]), True)
    """
    contexts.check_rows(context, len(x))
    family = family or _family(model)
    if isinstance(start, Tensor) and start.shape != (len(x), family.num_params):
        raise InputError(
            f"start must have a row of parameters for each example, shape {(len(x), family.num_params)}, and has "
            f"{tuple(start.shape)}. A {type(family).__name__} over events of shape {tuple(family.event_shape)} takes "
            f"{family.num_params}; without a start all of them are 0."
        )
    local = _Local(model, family, bound, deepcopy(gradient or Pathwise()), num_samples)  # it may remember
    search = _Search(steps, learning_rate, tolerance, patience)
    from subo.runtime.progress import bar  # rich, which draws Python random numbers where it is imported

    shown, task = bar("fitting q to each example", len(x), show=progress)
    parts = []
    with evaluating(model), forked(seed), shown:
        for rows in torch.arange(len(x)).split(batch_size):
            batch = place(model, x[rows], {name: tensor[rows] for name, tensor in (context or {}).items()})
            first = _first(model, family, start[rows] if isinstance(start, Tensor) else start, *batch)
            local.check(first, *batch, rows=rows)
            parts.append(search.run(local, first, *batch))
            shown.advance(task, len(rows))
    params, values, traces, taken = zip(*parts, strict=True)
    length = max(len(trace) for trace in traces)
    whole = [torch.cat([trace, trace[-1:].expand(length - len(trace), -1)]) for trace in traces]
    found = torch.cat(params)
    with torch.no_grad():
        return Inferred(family(found), found, torch.cat(values), torch.cat(whole, 1), torch.cat(taken))


def slope(
    model: VAE,
    family: Family,
    params: Float[Tensor, "B P"],
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    bound: Bound = ELBO(),
    gradient: GradientEstimator | None = None,
    num_samples: int = 1,
    create_graph: bool = False,
) -> Float[Tensor, "B P"]:
    """The gradient of each example's bound in the parameters of its q; of nothing else, and nothing keeps it.

    Args:
        model: The prior and the likelihood.
        family: Of q.
        params: Where; they require a gradient.
        x: Data.
        context: What is known beside x.
        bound: Of which.
        gradient: How it is estimated.
        num_samples: K.
        create_graph: Whether it can be differentiated in its turn.
    """
    gradient = gradient or Pathwise()
    local = VAE(model.prior, model.likelihood, Given(family, params))
    draw = local.draw(x, context, num_samples=num_samples, path=gradient.path)
    surrogate = gradient.surrogate(draw, bound, x, context)
    (found,) = torch.autograd.grad(surrogate.sum(), params, create_graph=create_graph)
    return found


@dataclass(frozen=True, eq=False)
class _Local:
    """What is maximized for each example, and its noisy gradient."""

    model: VAE
    family: Family
    bound: Bound
    gradient: GradientEstimator
    num_samples: int

    @torch.enable_grad()
    def slope(self, params: Tensor, x: Tensor, context: Context) -> Tensor:
        """Upwards; 0 where it is not finite, which is no step."""
        found = slope(
            self.model,
            self.family,
            params.detach().requires_grad_(),
            x,
            context,
            bound=self.bound,
            gradient=self.gradient,
            num_samples=self.num_samples,
        )
        return found.nan_to_num(0.0, 0.0, 0.0)

    @torch.no_grad()
    def values(self, params: Tensor, x: Tensor, context: Context, *, seed: int, samples: int = _SAMPLES) -> Tensor:
        """The bound R times over, ``(R, B)``; for as many data by the same seed, with the same noise."""
        times = max(8, samples // self.num_samples, samples // 8)
        at_once = max(1, _NUMBERS // (self.num_samples * x.numel()))
        counts = [min(at_once, times - done) for done in range(0, times, at_once)]
        with forked(seed):
            return torch.cat([self._repeated(params, x, context, count) for count in counts])

    def _repeated(self, params: Tensor, x: Tensor, context: Context, times: int) -> Tensor:
        q = Given(self.family, params.repeat(times, 1))
        local = VAE(self.model.prior, self.model.likelihood, q)
        rows = x.repeat(times, *[1] * (x.ndim - 1))
        draw = local.draw(rows, contexts.repeat(context, times), num_samples=self.num_samples, path=False)
        return self.bound(draw).unflatten(0, (times, len(x)))

    def check(self, params: Tensor, x: Tensor, context: Context, *, rows: Tensor) -> None:
        """Refuses a family that is not over z, a gradient that does not fit it, and data without a finite bound."""
        wanted = contexts.call(self.model.prior, context=context).event_shape
        if self.family.event_shape != wanted:
            raise InputError(
                f"the family is over events of shape {tuple(self.family.event_shape)}, and the model's z has the shape "
                f"{tuple(wanted)}. Give a family over {tuple(wanted)}."
            )
        self.gradient.check(self.family(params), self.bound, num_samples=self.num_samples)
        with torch.enable_grad():
            local = VAE(self.model.prior, self.model.likelihood, Given(self.family, params.detach().requires_grad_()))
            check_path(local.draw(x, context, num_samples=max(2, self.num_samples), path=self.gradient.path))
        values = self.values(params, x, context, seed=0).mean(0)
        bad = ~values.isfinite()
        if bad.any():
            raise InputError(
                f"the bound is {values[bad][0].item()} at the start for {int(bad.sum())} of {len(x)} examples, of "
                f"which example {int(rows[bad.cpu()][0])} is the first. Usually such data are not what the likelihood "
                "describes (NaN, values outside of its support), or the start is far off: try start=None."
            )


@dataclass(frozen=True)
class _Search:
    """Adam for each of B data, which stop one by one."""

    steps: int
    learning_rate: float
    tolerance: float
    patience: int

    def run(self, local: _Local, start: Tensor, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Parameters ``(B, P)``, bound ``(B,)``, trace ``(T, B)`` and number of steps ``(B,)``."""
        found, trace, taken = self._ascend(local, start, x, context)
        noise = _seed()
        before, after = (
            local.values(params, x, context, seed=noise, samples=4 * _SAMPLES) for params in (start, found)
        )
        gain = after - before
        sure = gain.mean(0) > _SURE * gain.std(0) / math.sqrt(len(gain))
        params = torch.where(sure.unsqueeze(1), found, start)
        return params, torch.where(sure, after.mean(0), before.mean(0)), trace, taken

    def _ascend(self, local: _Local, start: Tensor, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The best parameters, the trace and the numbers of steps."""
        found, taken = start.clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)
        trace = [local.values(start, x, context, seed=_seed()).mean(0)]
        going = torch.arange(len(x), device=x.device)  # the data that have not stopped: a row each in what follows
        params, best, rate = start.clone(), start.clone(), torch.full_like(start[:, :1], self.learning_rate)
        total, mean, square = torch.zeros_like(start), torch.zeros_like(start), torch.zeros_like(start)
        idle = torch.zeros_like(going)
        since = 0
        for step in range(1, self.steps + 1):
            adam_step(params, -local.slope(params, x, context), mean, square, step, lr=rate)
            total, since = total + params, since + 1
            if since < LOOK_EVERY and step < self.steps:
                continue
            average, noise = total / since, _seed()  # steps are noisy, their mean is less so
            old, new = (local.values(rows, x, context, seed=noise).mean(0) for rows in (best, average))
            better, stuck = new > old, ~(new - old > self.tolerance)  # the second also where it is NaN
            best[better] = average[better]
            params[stuck] = best[stuck]
            rate[stuck] *= _SHRINK
            idle = torch.where(stuck, idle + 1, 0)
            found[going], taken[going] = best, step
            trace.append(trace[-1].index_copy(0, going, torch.where(better, new, old)))
            total, since = torch.zeros_like(params), 0
            on = idle < self.patience
            if not on.any():
                break
            if not on.all():  # those that have stopped leave the batch
                rows = (going, params, best, rate, total, mean, square, idle, x)
                going, params, best, rate, total, mean, square, idle, x = (tensor[on] for tensor in rows)
                context = {name: tensor[on] for name, tensor in context.items()}
        return found, torch.stack(trace), taken


def _seed() -> int:
    """Of noise that is to be met twice."""
    return int(torch.randint(2**31, ()))


def _family(model: VAE) -> Family:
    """That of the model's posterior."""
    family = getattr(model.posterior, "family", None)
    if family is None:
        raise InputError(
            f"the model's posterior, {type(model.posterior).__name__}, has no family to take over: give one, such as "
            "family=Gaussian((latent_dim,))"
        )
    return family


def _first(
    model: VAE, family: Family, start: Tensor | Literal["amortized"] | None, x: Tensor, context: Context
) -> Float[Tensor, "B P"]:
    """Where the search begins."""
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
            f"the encoder gives {params.shape[1]} parameters per example, and the family takes {family.num_params}: "
            "an amortized start needs the posterior's own family"
        )
    return params
