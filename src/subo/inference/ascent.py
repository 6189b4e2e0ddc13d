"""The search for the best q of each example: Adam on noisy gradients, with a check every 50 steps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from subo.gradients import GradientEstimator
from subo.inference.local_bound import SAMPLES, LocalBound
from subo.inference.row_adam import adam_step
from subo.runtime.arguments import check_fields
from subo.typing import Context

__all__ = ["LOOK_EVERY", "Ascent"]

LOOK_EVERY = 50
"""Steps between two checks of the bound."""
_LEARNING_RATE = 0.05
_SHRINK = 0.3  # factor on an example's step size after a check without a gain
_SURE = 3.0  # standard errors by which the end must beat the start


@dataclass(frozen=True)
class Ascent:
    """How the best q of each example is searched for: Adam on noisy gradients of the bound.

    Every 50 steps the mean of an example's last 50 parameters is compared with its best so far, on common random
    numbers. If less than `tolerance` was gained, the example continues from its best with shorter steps; after
    `patience` such checks in a row it stops and costs nothing any more.

    Args:
        steps: Maximum number of steps for any example.
        num_samples: Samples K per step; by default 4, and 64 in :func:`~subo.evaluation.gaps`.
        learning_rate: Adam's initial step size; by default 0.05, and 0.01 for the weights of networks.
        gradient: Estimator of the bound's gradient; by default along the path through z.
            :class:`~subo.ScoreFunction` needs no path, and works for likelihoods that cannot be differentiated.
        tolerance: Nats that 50 steps must gain for an example to continue.
        patience: Consecutive checks without such a gain after which an example stops.

    Raises:
        InputError: A setting is invalid.
    """

    steps: int = 1000
    num_samples: int | None = None
    learning_rate: float | None = None
    gradient: GradientEstimator | None = None
    tolerance: float = 1e-3
    patience: int = 3

    def __post_init__(self):
        check_fields(self)

    def run(
        self, local: LocalBound, start: Tensor, x: Tensor, context: Context
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Parameters ``(B, P)``, bound ``(B,)``, trace ``(T, B)`` and number of steps ``(B,)``."""
        found, trace, taken = self._ascend(local, start, x, context)
        noise = _seed()
        before, after = (local.values(params, x, context, seed=noise, samples=4 * SAMPLES) for params in (start, found))
        gain = after - before
        sure = gain.mean(0) > _SURE * gain.std(0) / math.sqrt(len(gain))
        params = torch.where(sure.unsqueeze(1), found, start)
        return params, torch.where(sure, after.mean(0), before.mean(0)), trace, taken

    def _ascend(self, local: LocalBound, start: Tensor, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The best parameters, the trace and the numbers of steps."""
        found, taken = start.clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)
        trace = [local.values(start, x, context, seed=_seed()).mean(0)]
        going = torch.arange(len(x), device=x.device)  # the examples that have not stopped: one row each below
        params, best, rate = (
            start.clone(),
            start.clone(),
            torch.full_like(start[:, :1], self.learning_rate or _LEARNING_RATE),
        )
        total, mean, square = torch.zeros_like(start), torch.zeros_like(start), torch.zeros_like(start)
        idle = torch.zeros_like(going)
        since = 0
        for step in range(1, self.steps + 1):
            adam_step(params, -local.slope(params, x, context), mean, square, step, lr=rate)
            total, since = total + params, since + 1
            if since < LOOK_EVERY and step < self.steps:
                continue
            average, noise = total / since, _seed()  # steps are noisy; their mean is less so
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
            if not on.all():  # stopped examples leave the batch
                rows = (going, params, best, rate, total, mean, square, idle, x)
                going, params, best, rate, total, mean, square, idle, x = (tensor[on] for tensor in rows)
                context = {name: tensor[on] for name, tensor in context.items()}
        return found, torch.stack(trace), taken


def _seed() -> int:
    """A seed for noise that is used twice."""
    return int(torch.randint(2**31, ()))
