"""The training loop: a generator that yields one record per step."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer

from subo.core.objective import Objective
from subo.data.batches import batch_of, check_batch
from subo.data.on_device import Places
from subo.runs.config import CompileName
from subo.runtime.arguments import check_fields, checked_arguments
from subo.runtime.devices import as_fabric
from subo.training.compiling import steps_of
from subo.training.optimizers import check_over, make_optimizer, set_rate
from subo.training.step import Step
from subo.training.updates import Joint, Updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Schedule", "train"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate and the KL's weight change over the steps.

    Args:
        warmup: Steps over which the learning rate rises linearly from 0.
        decay: ``constant``, or ``cosine``: down to 0 at the end (Loshchilov and Hutter, 2017, equation 5).
        kl_warmup: Steps over which the KL's weight rises linearly from 0 to 1 (Sonderby et al., 2016).
        elbo: Steps at the start that follow the ELBO with one sample, whatever the objective's bound.
        by_clock: Whether time alone ends training: the KL's weight is then 1 after half of it at the latest.
        look_every: Recorded steps are looked at after each multiple of this number, and after 100 at the latest.
        look_from: Number of the step from which these are counted.
    """

    warmup: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    kl_warmup: int = 0
    elbo: int = 0
    by_clock: bool = False
    look_every: int = 100
    look_from: int = 0

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
    progress: Callable[[int], float] | None = None,
    clip: float | None = None,
    window: int | None = None,
    compile: CompileName = "none",
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
        progress: Maps the number of steps made to the fraction of training that is done; by default relative to
            `steps`.
        clip: Largest norm of the gradient; longer ones are scaled down to it.
        window: Largest number of time steps in an update of sequences, see :mod:`subo.training.windows`.
        compile: How a step is carried out, as for :func:`subo.fit`.
        first: Number of steps already made, when training resumes.

    Yields:
        One record per step.

    Raises:
        DivergedError: The loss, or the gradient's norm, is not finite. The parameters are those before that step; in
            windows, those before that window.
        InputError: `updates` alternate between theta and phi, but the model does not separate them; or steps cannot be
            compiled or recorded as asked.

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
    rates = [float(group.setdefault("initial_lr", group["lr"])) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])  # of a checkpoint of recorded steps it is a tensor
    how: dict[str, Any] = {"clip": clip, "window": window}
    how |= {"warms_up": schedule.kl_warmup > 0, "look_every": schedule.look_every, "look_from": schedule.look_from}
    objective.train()
    number = first
    with steps_of(compile, objective, optimizer, fabric, updates, **how) as making:
        for item in _cycle(batches, forever=steps is not None):
            if steps is not None and number >= steps:
                break
            if number == first:
                check_batch(item.read() if isinstance(item, Places) else batch_of(item))
            done = progress(number)
            factor, stage = schedule.learning_rate(number, done), schedule.stage(number, done)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                set_rate(group, rate * factor)
            number += 1
            yield from making.make(number, item, rates[0] * factor, stage)
        yield from making.rest()


def _cycle(batches: Iterable[Any], *, forever: bool) -> Iterator[Any]:
    yield from batches
    while forever:
        came = False
        for item in batches:
            came = True
            yield item
        if not came:  # an exhausted iterator, or an empty collection
            return
