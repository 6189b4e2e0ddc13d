"""The training loop: a generator of steps, which whoever trains consumes."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.batches import Batch
from subo.devices import make_fabric
from subo.errors import DivergedError, InputError
from subo.objective import Loss, Objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["REMEDY", "Schedule", "Step", "make_optimizer", "train"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate and the KL's weight go over the steps.

    Args:
        warmup: Steps over which the learning rate rises linearly from 0.
        decay: ``constant``, or ``cosine``: down to 0 at the end (Loshchilov and Hutter, 2017, equation 5).
        kl_warmup: Steps over which the KL's weight rises linearly from 0 to 1 (Sonderby et al., 2016).
    """

    warmup: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    kl_warmup: int = 0

    def __post_init__(self):
        if self.warmup < 0 or self.kl_warmup < 0:
            raise InputError(f"warm-ups must not be negative: got {self.warmup} and {self.kl_warmup}")
        if self.decay not in ("constant", "cosine"):
            raise InputError(f"decay must be 'constant' or 'cosine', not '{self.decay}'")

    def learning_rate(self, step: int, progress: float) -> float:
        """The factor on the learning rate at a step (from 0), at a share `progress` of the whole."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rise * (0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if self.decay == "cosine" else 1.0)

    def kl_weight(self, step: int) -> float:
        """The factor on the KL's weight at a step (from 0)."""
        return min(1.0, (step + 1) / self.kl_warmup) if self.kl_warmup else 1.0


@dataclass(frozen=True)
class Step:
    """What one step of training did.

    Attributes:
        number: Counts from 1.
        loss: The numbers of this process's share of the batch, before the step was made; detached.
        weight: As of the batch: 0 for a share that only keeps processes in step.
        learning_rate: Of the first parameter group.
        kl_weight: The factor on the KL's weight.
        gradient_norm: Before clipping; None where nothing is clipped.
    """

    number: int
    loss: Loss
    weight: float
    learning_rate: float
    kl_weight: float
    gradient_norm: float | None


def make_optimizer(module: nn.Module, name: str = "Adam", *, learning_rate: float = 1e-3, **options: Any) -> Optimizer:
    """Makes any of torch's optimisers by name, fused where it can be.

    Args:
        module: Whose parameters.
        name: A class of ``torch.optim``, in any case.
        learning_rate: Its step size.
        **options: Its other arguments.

    Raises:
        InputError: There is no such optimiser, or it does not take such arguments.
    """
    known = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    unfit = {"lbfgs": "it asks for the loss again and again", "sparseadam": "it needs sparse gradients"}
    if name.lower() in unfit:
        raise InputError(f"{name} cannot train here, since {unfit[name.lower()]}: use Adam or AdamW")
    if name.lower() not in known:
        names = ", ".join(sorted(kind.__name__ for kind in known.values()))
        raise InputError(f"torch has no optimiser '{name}'; it has {names}")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise InputError(f"the learning rate must be positive, not {learning_rate}")
    kind: Any = known[name.lower()]
    if "fused" in inspect.signature(kind).parameters:
        options.setdefault("fused", True)
    try:
        return kind(module.parameters(), lr=learning_rate, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{kind.__name__} cannot be made with {options or 'these parameters'}: {error}") from error


def train(
    objective: Objective,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    fabric: "Fabric | None" = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int], float] | None = None,
    clip: float | None = None,
    first: int = 0,
) -> Iterator[Step]:
    """Trains, and yields after every step.

    The caller decides what to do with the steps: show them, keep them, or stop asking for more.

    Args:
        objective: What is trained, in place.
        batches: Of data: ``x``, ``(x, context)`` or :class:`~subo.data.Batch`. Gone through again and again until
            `steps` are done, or once without them.
        steps: The number of the last step.
        fabric: Where to train; this process's CPU or accelerator by default.
        optimizer: Over the objective's parameters; Adam at 1e-3 by default.
        schedule: Of learning rate and KL weight; constant by default.
        progress: The share of the whole training that is over, from the number of steps made; by default that of
            `steps`.
        clip: Largest norm of the gradient; longer ones are shortened to it.
        first: Number of steps made before, when training goes on.

    Yields:
        One record a step.

    Raises:
        DivergedError: The loss, or the gradient's norm, is not finite. The parameters are as before that step.

    Example:
        >>> from subo import probabilistic_pca
        >>> objective, x = Objective(probabilistic_pca(5, 2)), torch.randn(10, 5)
        >>> [step.number for step in train(objective, [x], steps=3)]
        [1, 2, 3]
    """
    fabric = fabric or make_fabric()
    schedule = schedule or Schedule()
    progress = progress or (lambda step: step / steps if steps else 0.0)
    optimizer = optimizer or make_optimizer(objective)
    rates = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    module, stepper, backward = _prepared(objective, optimizer, fabric)
    scaled = fabric.strategy.precision.precision == "16-mixed"
    objective.train()
    number = first
    for item in _cycle(batches, forever=steps is not None):
        if steps is not None and number >= steps:
            return
        batch = _as_batch(item)
        factor, kl_weight = schedule.learning_rate(number, progress(number)), schedule.kl_weight(number)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        x = batch.x.to(parameters[0], non_blocking=True)
        context = {name: tensor.to(fabric.device, non_blocking=True) for name, tensor in batch.context.items()}
        loss: Loss = module(x, context, kl_weight=kl_weight)
        number += 1
        if not math.isfinite(loss.loss.item()):
            what = loss.nonfinite() or "the gradient's surrogate is not finite, though the bound is"
            raise DivergedError(f"step {number}: {what}. {REMEDY}")
        for parameter in parameters:
            parameter.grad = None
        backward(loss.loss if batch.weight == 1 else batch.weight * loss.loss)
        norm = None
        if clip is not None:
            clipped: Any = fabric.clip_gradients(objective, stepper, max_norm=clip, error_if_nonfinite=False)
            norm = float(clipped)
            if not math.isfinite(norm) and not scaled:  # a loss scaler skips such a step, and lowers its scale
                raise DivergedError(f"step {number}: the gradient's norm is {norm}, at a finite loss. {REMEDY}")
        stepper.step()
        loss = loss._replace(loss=loss.loss.detach())
        yield Step(number, loss, batch.weight, optimizer.param_groups[0]["lr"], kl_weight, norm)


def _prepared(objective: Objective, optimizer: Optimizer, fabric: "Fabric") -> tuple[Any, Any, Callable]:
    """The module, optimiser and backward pass that Fabric makes of these; themselves where it would only wrap them.

    On one device in full precision Fabric's wrappers change nothing and cost 80 microseconds a step.
    """
    if fabric.world_size == 1 and fabric.strategy.precision.precision == "32-true":
        return fabric.to_device(objective), optimizer, Tensor.backward
    module, wrapped = fabric.setup(objective, optimizer)
    return module, wrapped, fabric.backward


def _cycle(batches: Iterable[Any], *, forever: bool) -> Iterator[Any]:
    yield from batches
    while forever:
        came = False
        for item in batches:
            came = True
            yield item
        if not came:  # an iterator that is used up, or an empty collection
            return


def _as_batch(item: Any) -> Batch:
    """Accepts x, (x, context) or a Batch."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Tensor):
        return Batch(item, {}, 1.0)
    match item:
        case [Tensor() as x]:
            return Batch(x, {}, 1.0)
        case [Tensor() as x, dict() as context]:
            return Batch(x, context, 1.0)
    raise InputError(
        f"a batch is x, or (x, context) with the context a dict of tensors by name; got {type(item).__name__}"
    )


REMEDY = (
    "Usual causes: a learning rate too high, or data of very different scales. Try a smaller --learning-rate, "
    "--clip 10, a learning-rate or KL warm-up, a larger min_scale, or standardised data."
)
