"""A step of training: forward pass, backward pass, update; what it did, and what is said of one that cannot be made."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.core.objective import Loss, Objective
from subo.core.offers import Tempered
from subo.data.batches import Batch, batch_of
from subo.data.on_device import Places
from subo.data.support import explained
from subo.errors import DivergedError, InputError
from subo.training.fused_adam import direct_step
from subo.training.noise import noise_of
from subo.training.optimizers import clip_gradients
from subo.training.updates import Updates, at_rest
from subo.training.windows import Follow, Update, allow_unused, check_windows, in_windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["REMEDY", "PlainSteps", "Stage", "Step", "diverged"]

Stage = Mapping[str, Any]
"""What an objective is called with at a step, beside the batch: the weight of its KL, and whether it is an ELBO."""

REMEDY = (
    "Usual causes: a learning rate too high, or data of very different scales. Try a smaller `learning_rate`, "
    "`clip=10`, a learning-rate or KL warm-up, a larger min_scale, or standardized data."
)


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
        settled: Whether the parameters are those after this step. Recorded steps are looked at some at a time: when
            one of them is yielded, others may already have been made.
    """

    number: int
    loss: Loss
    weight: float
    learning_rate: float
    kl_weight: float
    gradient_norm: float | None
    settled: bool = True


def diverged(number: int, loss: Loss, value: float, norm: float | None = None) -> DivergedError:
    """The error of a step whose loss, or the norm of whose gradient, is not finite.

    Args:
        number: Number of the step.
        loss: Its loss.
        value: The loss as a number.
        norm: The gradient's norm, if it is known.
    """
    if math.isfinite(value) and norm is not None:
        return DivergedError(f"step {number}: the gradient's norm is {norm}, at a finite loss. {REMEDY}")
    what = loss.nonfinite() or (
        "the gradient's surrogate is not finite, though the bound is"
        if not math.isfinite(value)
        else "another process's share of the batch has a loss that is not finite"
    )
    return DivergedError(f"step {number}: {what}. {REMEDY}")


class PlainSteps:
    """Steps as Python makes them, one operation after the other, each looked at before the parameters change.

    Args:
        objective: Objective to train.
        optimizer: Optimizer over its parameters.
        fabric: Lightning Fabric to train with.
        updates: Which parameters a batch updates.
        clip: Largest norm of the gradient, or None.
        window: Largest number of time steps in an update of sequences, or None.
        compiled: Whether torch compiles the forward and the backward pass.
        warms_up: Whether the weight of the KL changes: compiled code then takes it as a tensor.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        fabric: "Fabric",
        updates: Updates,
        *,
        clip: float | None,
        window: int | None = None,
        compiled: bool = False,
        warms_up: bool = False,
    ):
        self._objective, self._optimizer, self._fabric, self._updates = objective, optimizer, fabric, updates
        self._clip, self._weight_as_tensor = clip, compiled and warms_up
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._resting = at_rest(objective, updates)
        self._follow: Follow = self._update if window is None else in_windows(self._update, window)
        if window is not None:
            check_windows(objective)
            allow_unused(fabric)
        self._module, self._stepper, self._step, self._backward = _prepared(objective, optimizer, fabric)
        if compiled:
            self._module = _compiled(self._module)
        self._scaled = fabric.strategy.precision.precision == "16-mixed"

    def make(self, number: int, item: Any, rate: float, stage: Stage) -> Iterator[Step]:
        """Makes a step, or as many as the updates want on a batch.

        Args:
            number: Its number, from 1.
            item: A batch.
            rate: The first parameter group's learning rate, which is set.
            stage: What the objective is called with.

        Yields:
            The record of it.

        Raises:
            DivergedError: The loss, or the gradient's norm, is not finite; the parameters are those before.
        """
        batch = item.read() if isinstance(item, Places) else batch_of(item)
        x, context = _placed(batch, self._parameters[0])
        *before, last = self._updates.turns()
        given = dict(stage)
        tempered = "as_elbo" in stage or isinstance(self._objective.bound, Tempered)
        if self._weight_as_tensor and tempered:  # torch compiles anew for each float
            given["kl_weight"] = torch.tensor(stage["kl_weight"], dtype=torch.float32)
        try:
            with noise_of(batch, self._fabric, 1 if "as_elbo" in stage else self._objective.num_samples):
                for part in before:
                    self._follow(Update(number, x, context, batch.weight, given, self._resting[part]))
                loss, norm = self._follow(Update(number, x, context, batch.weight, given, self._resting[last]))
        except (RuntimeError, ValueError, IndexError, TypeError):
            with explained(self._objective.model, x, context, where=f"batch {number}"):
                raise
        self._updates.watch(loss, batch.weight, self._fabric)
        yield Step(number, loss, batch.weight, rate, stage["kl_weight"], norm)

    def rest(self) -> Iterator[Step]:
        """The steps that were made and not yielded: none."""
        return iter(())

    def _update(self, update: Update) -> tuple[Loss, float | None]:
        """One update with fresh noise; its loss, and the gradient's norm if it is clipped."""
        number, x, context, weight, stage, resting = update
        loss: Loss = self._module(x, context, **stage)
        value = loss.loss.item()
        if not _finite_everywhere(value, self._fabric):
            raise diverged(number, loss, value)
        for parameter in self._parameters:
            parameter.grad = None
        self._backward(loss.loss if weight == 1 else weight * loss.loss)
        for parameter in resting:  # without a gradient, moments and weight decay leave them alone, too
            parameter.grad = None
        norm = None
        if self._clip is not None:
            norm = clip_gradients(self._fabric, self._objective, self._stepper, self._clip)
            if not math.isfinite(norm) and not self._scaled:  # a loss scaler skips such a step, and lowers its scale
                raise diverged(number, loss, value, norm)
        self._step()
        return loss._replace(loss=loss.loss.detach()), norm


def _placed(batch: Batch, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch on a parameter's device, with real numbers in its precision."""
    context = {
        name: tensor.to(like if tensor.is_floating_point() else like.device, non_blocking=True)
        for name, tensor in batch.context.items()
    }
    return batch.x.to(like, non_blocking=True), context


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


def _compiled(module: nn.Module) -> Callable[..., Loss]:
    """The module compiled by torch at its first call, with the noise that it draws otherwise."""
    compiled = torch.compile(module, options={"fallback_random": True})

    def call(*args: Any, **kwargs: Any) -> Loss:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # of no effect
                return compiled(*args, **kwargs)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise InputError(
                f"compile torch: torch could not compile the model ({error}). On a CPU it needs a C++ compiler, such "
                "as g++. Leave it out"
            ) from error

    return call
