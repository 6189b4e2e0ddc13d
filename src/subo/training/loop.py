"""The training loop: a generator that yields one record per step."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.core.objective import Loss, Objective
from subo.data.batches import Batch, batch_of, check_batch
from subo.data.support import explained
from subo.errors import DivergedError
from subo.runtime.arguments import check_fields, checked_arguments
from subo.runtime.devices import as_fabric
from subo.training.fused_adam import direct_step
from subo.training.noise import noise_of
from subo.training.optimizers import check_over, clip_gradients, make_optimizer
from subo.training.updates import Joint, Updates, at_rest
from subo.training.windows import Follow, allow_unused, check_windows, in_windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["REMEDY", "Schedule", "Step", "train"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate and the KL's weight change over the steps.

    Args:
        warmup: Steps over which the learning rate rises linearly from 0.
        decay: ``constant``, or ``cosine``: down to 0 at the end (Loshchilov and Hutter, 2017, equation 5).
        kl_warmup: Steps over which the KL's weight rises linearly from 0 to 1 (Sonderby et al., 2016).
        elbo: Steps at the start that follow the ELBO with one sample, whatever the objective's bound.
        by_clock: Whether time alone ends training: the KL's weight is then 1 after half of it at the latest.
    """

    warmup: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    kl_warmup: int = 0
    elbo: int = 0
    by_clock: bool = False

    def __post_init__(self):
        check_fields(self)

    def learning_rate(self, step: int, progress: float) -> float:
        """The factor on the learning rate at a step (from 0), when a fraction `progress` of training is done."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rise * (0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if self.decay == "cosine" else 1.0)

    def kl_weight(self, step: int, progress: float) -> float:
        """The factor on the KL's weight at a step (from 0), when a fraction `progress` of training is done."""
        rise = (step + 1) / self.kl_warmup if self.kl_warmup else 1.0
        return min(1.0, max(rise, 2 * progress) if self.by_clock else rise)

    def stage(self, step: int, progress: float) -> dict[str, Any]:
        """What an objective is called with at a step (from 0), when a fraction `progress` of training is done."""
        return {"kl_weight": self.kl_weight(step, progress), **({"as_elbo": True} if step < self.elbo else {})}


@dataclass(frozen=True)
class Step:
    """What one step of training did.

    Attributes:
        number: Number of the step, from 1.
        loss: Loss of this process's share of the batch, before the step was made; detached. In windows it is the sum
            over them, of each before its own update.
        weight: Weight of the batch: 0 for a share that only keeps processes synchronized.
        learning_rate: Learning rate of the first parameter group.
        kl_weight: The factor on the KL's weight.
        gradient_norm: Norm of the gradient before clipping, in windows the largest; None if gradients are not clipped.
    """

    number: int
    loss: Loss
    weight: float
    learning_rate: float
    kl_weight: float
    gradient_norm: float | None


@checked_arguments
def train(
    objective: Objective,
    batches: Iterable[object],
    *,
    steps: int | None = None,
    fabric: "Fabric | None" = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    updates: Updates | None = None,
    window: int | None = None,
    progress: Callable[[int], float] | None = None,
    clip: float | None = None,
    first: int = 0,
) -> Iterator[Step]:
    """Trains, and yields after every step.

    The caller decides what to do with the steps: show them, keep them, or stop asking for more.

    Args:
        objective: Objective to train, in place.
        batches: A ``DataLoader``, or any other iterable of batches: ``x``, ``(x, label)`` with the numbers of the
            classes, ``(x, context)`` with tensors by name, or :class:`~subo.data.Batch`. Repeated until `steps` are
            done, or used once without `steps`.
        steps: Number of the last step.
        fabric: Lightning Fabric to train with; this process's CPU or accelerator by default.
        optimizer: Optimizer over the objective's parameters; Adam at 1e-3 by default.
        schedule: Schedule of learning rate and KL weight; constant by default.
        updates: Which parameters a batch updates; all of them at once by default.
        window: Largest number of time steps in an update of sequences, see :mod:`subo.training.windows`.
        progress: Maps the number of steps made to the fraction of training that is done; by default, of `steps`.
        clip: Largest norm of the gradient; longer ones are scaled down to it.
        first: Number of steps already made, when training resumes.

    Yields:
        One record per step.

    Raises:
        DivergedError: The loss, or the gradient's norm, is not finite. The parameters are those before that step.
        InputError: `updates` alternate between theta and phi, but the model does not separate them.

    Example:
        >>> from subo import probabilistic_pca
        >>> objective, x = Objective(probabilistic_pca(5, 2)), torch.randn(10, 5)
        >>> [step.number for step in train(objective, [x], steps=3)]
        [1, 2, 3]
    """
    fabric = as_fabric(fabric)
    schedule, updates = schedule or Schedule(), updates or Joint()
    progress = progress or (lambda step: step / steps if steps else 0.0)
    optimizer = optimizer or make_optimizer(objective)
    check_over(optimizer, objective)
    rates = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    like = optimizer.param_groups[0]["params"][0]
    follow = _follower(objective, optimizer, fabric, clip=clip, window=window)
    resting = at_rest(objective, updates)
    objective.train()
    number = first
    for item in _cycle(batches, forever=steps is not None):
        if steps is not None and number >= steps:
            return
        batch = batch_of(item)
        if number == first:
            check_batch(batch)
        done = progress(number)
        factor, stage = schedule.learning_rate(number, done), schedule.stage(number, done)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        x, context = _placed(batch, like)
        number += 1
        *before, last = updates.turns()
        try:
            with noise_of(batch, fabric, 1 if "as_elbo" in stage else objective.num_samples):
                for part in before:
                    follow(number, x, context, batch.weight, stage, resting[part])
                loss, norm = follow(number, x, context, batch.weight, stage, resting[last])
        except (RuntimeError, ValueError, IndexError, TypeError):
            with explained(objective.model, x, context, where=f"batch {number}"):
                raise
        updates.watch(loss, batch.weight, fabric)
        yield Step(number, loss, batch.weight, optimizer.param_groups[0]["lr"], stage["kl_weight"], norm)


def _placed(batch: Batch, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch on a parameter's device, with real numbers in its precision."""
    context = {
        name: tensor.to(like if tensor.is_floating_point() else like.device, non_blocking=True)
        for name, tensor in batch.context.items()
    }
    return batch.x.to(like, non_blocking=True), context


def _follower(
    objective: Objective, optimizer: Optimizer, fabric: "Fabric", *, clip: float | None, window: int | None
) -> Follow:
    """Makes the function that takes one optimizer step with fresh noise, or one for each window of sequences."""
    if window is not None:
        check_windows(objective)
        allow_unused(fabric)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    module, stepper, make_step, backward = _prepared(objective, optimizer, fabric)
    scaled = fabric.strategy.precision.precision == "16-mixed"

    def follow(
        number: int,
        x: Tensor,
        context: dict[str, Tensor],
        weight: float,
        stage: dict[str, Any],
        resting: list[nn.Parameter],
    ) -> tuple[Loss, float | None]:
        loss: Loss = module(x, context, **stage)
        if not _finite_everywhere(loss.loss.item(), fabric):
            what = loss.nonfinite() or (
                "the gradient's surrogate is not finite, though the bound is"
                if not math.isfinite(loss.loss.item())
                else "another process's share of the batch has a loss that is not finite"
            )
            raise DivergedError(f"step {number}: {what}. {REMEDY}")
        for parameter in parameters:
            parameter.grad = None
        backward(loss.loss if weight == 1 else weight * loss.loss)
        for parameter in resting:  # without a gradient, moments and weight decay leave them alone, too
            parameter.grad = None
        norm = None
        if clip is not None:
            norm = clip_gradients(fabric, objective, stepper, clip)
            if not math.isfinite(norm) and not scaled:  # a loss scaler skips such a step, and lowers its scale
                raise DivergedError(f"step {number}: the gradient's norm is {norm}, at a finite loss. {REMEDY}")
        make_step()
        return loss._replace(loss=loss.loss.detach()), norm

    return follow if window is None else in_windows(follow, window)


def _finite_everywhere(loss: float, fabric: "Fabric") -> bool:
    """Whether all processes' losses are finite: they stop together, since each would wait forever for the others."""
    if fabric.world_size == 1:
        return math.isfinite(loss)
    broken = torch.tensor(float(not math.isfinite(loss)), device=fabric.device)
    return not fabric.all_reduce(broken, reduce_op="max").item()  # pyright: ignore[reportAttributeAccessIssue]


def _prepared(objective: Objective, optimizer: Optimizer, fabric: "Fabric") -> tuple[Any, Any, Callable, Callable]:
    """The module, optimizer, step and backward pass as set up by Fabric; the plain ones if it would only wrap them.

    On one device in full precision Fabric's wrappers change nothing and cost 80 microseconds a step.
    """
    if fabric.world_size == 1 and fabric.strategy.precision.precision == "32-true":
        return fabric.to_device(objective), optimizer, direct_step(optimizer), Tensor.backward
    module, wrapped = fabric.setup(objective, optimizer)
    return module, wrapped, wrapped.step, fabric.backward


def _cycle(batches: Iterable[Any], *, forever: bool) -> Iterator[Any]:
    yield from batches
    while forever:
        came = False
        for item in batches:
            came = True
            yield item
        if not came:  # an exhausted iterator, or an empty collection
            return


REMEDY = (
    "Usual causes: a learning rate too high, or data of very different scales. Try a smaller `learning_rate`, "
    "`clip=10`, a learning-rate or KL warm-up, a larger min_scale, or standardized data."
)
