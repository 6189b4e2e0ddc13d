"""Checkpoints: everything that training needs to resume as if it had never stopped, in plain values and tensors.

Also the weights after some epochs, kept to study training afterwards.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.core.objective import Loss, Objective
from subo.errors import DivergedError, InputError
from subo.files.records import EPOCH, check_record
from subo.runs.run import Run
from subo.training.metrics import sums
from subo.training.step import Step
from subo.training.updates import Updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["KeptWeights", "TrainingState", "check_finite", "content", "restore"]

_SMALL = 20_000_000  # bytes: weights up to this size are kept by default


@dataclass
class TrainingState:
    """Where training is: together with weights, optimizer and random state, everything in a checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    totals: Tensor | None = None  # sums over the current epoch's data, see subo.training.metrics.sums
    unsummed: list[Loss] = field(default_factory=list)  # of the latest steps: summed on demand
    records: list[dict[str, Any]] = field(default_factory=list)
    best_objective: float = -math.inf
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] | None = None
    before: Tensor | None = None  # the objective of each example before the first step; see subo.training.divergence

    def count(self, step: Step) -> None:
        """Counts a step and collects its loss."""
        self.step = step.number
        self.batch += 1
        if step.weight:  # a share of weight 0 stands for no data
            self.unsummed.append(step.loss)

    def sum_up(self, step: Step) -> None:
        """Updates the running sums; called rarely, since even small operations add up over the steps."""
        self.totals = sums(self.unsummed, self.totals, layers=len(step.loss.rate))
        self.unsummed = []

    def close_epoch(self, objective: Objective, on_validation: float | None) -> None:
        """Counts an epoch, and keeps its weights if the validation objective is the best so far."""
        self.epoch += 1
        self.batch = 0
        if on_validation is not None and on_validation > self.best_objective:
            self.best_objective, self.best_epoch = on_validation, self.epoch
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in objective.state_dict().items()}


@dataclass(frozen=True, eq=False)
class KeptWeights:
    """The model's weights after the epochs 1, 2, 3, 5, 8, 13, ... and the last one, in the run's ``snapshots/``.

    The choice depends only on the epoch's number, so that a run that is stopped and resumed keeps the same ones; for E
    epochs there are ``log(E) / log(1.618) + 2`` of them, 11 for 100 and 16 for 1,000.

    Args:
        run: Run folder to write to.
        model: Model whose weights are kept.
        wanted: Whether to keep them; by default for models of at most 20 MB.
    """

    run: Run
    model: nn.Module
    wanted: bool | None = None

    def begin(self, epoch: int) -> None:
        """Removes weights that training after this epoch will rewrite, and the last ones of a run that now resumes."""
        for kept in self.run.kept_epochs():
            if kept > epoch or not _is_kept(kept):
                self.run.weights_after(kept).unlink(missing_ok=True)

    def keep(self, epoch: int, *, last: bool = False) -> None:
        """Writes the weights after an epoch, if it is one of those kept."""
        if (last or _is_kept(epoch)) and self._is_wanted() and not self.run.weights_after(epoch).exists():
            self.run.save_weights(self.model, epoch=epoch)

    def _is_wanted(self) -> bool:
        if self.wanted is not None:
            return self.wanted
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.state_dict().values()) <= _SMALL


def _is_kept(epoch: int) -> bool:
    """Whether an epoch's number is a Fibonacci number."""
    a, b = 1, 2
    while a < epoch:
        a, b = b, a + b
    return a == epoch


def check_finite(objective: Objective, step: int) -> None:
    """Keeps a checkpoint from being replaced by a broken one."""
    for name, parameter in objective.named_parameters():
        if parameter.numel() == 0:  # such as the steps between the thresholds of two levels
            continue
        if not torch.stack(parameter.detach().aminmax()).isfinite().all():  # without copying a local posterior's rows
            raise DivergedError(
                f"step {step}: the parameter {name} is no longer finite: its gradient was not finite, although the "
                "loss was. The last checkpoint is from before that. Try a smaller `learning_rate`, or `clip=10`."
            )


def content(
    state: TrainingState,
    objective: Objective,
    optimizer: Optimizer,
    updates: Updates,
    settings: dict[str, Any],
    fabric: "Fabric",
) -> dict[str, Any]:
    """The contents of a checkpoint: plain values and tensors only."""
    random = [torch.get_rng_state(), *([torch.cuda.get_rng_state(fabric.device)] if _on_cuda(fabric) else [])]
    return {
        **vars(state),
        "totals": None if state.totals is None else _of_each(state.totals, fabric),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "updates": updates.state_dict(),
        "random": [_of_each(own, fabric) for own in random],
        "precision": fabric.strategy.precision.state_dict(),
        "settings": settings,
    }


def restore(
    saved: dict[str, Any],
    objective: Objective,
    optimizer: Optimizer,
    updates: Updates,
    settings: dict[str, Any],
    fabric: "Fabric",
) -> TrainingState:
    """Restores objective, optimizer, updates and random state from a checkpoint.

    Raises:
        InputError: The checkpoint was made with other settings or of another model, or is damaged.
    """
    _check(saved)
    for name, value in settings.items():
        made_with = saved["settings"].get(name, value)  # missing if the setting is newer
        if made_with != value:
            raise InputError(
                f"the checkpoint was made with {name} = {made_with}, and continuing with {value} would be a different "
                "run. Resume with the same value, or start again with `overwrite`."
            )
    try:
        objective.load_state_dict(saved.pop("objective"))
    except RuntimeError as error:
        raise InputError(f"the checkpoint is of a different model: {str(error).splitlines()[-1].strip()}") from error
    try:
        optimizer.load_state_dict(saved.pop("optimizer"))
        updates.load_state_dict(saved.pop("updates", {}))
        fabric.strategy.precision.load_state_dict(saved.pop("precision"))
        states = [_own(of_each, fabric, equal=True) for of_each in saved.pop("random")]
        torch.set_rng_state(states[0])
        if _on_cuda(fabric) and len(states) > 1:
            torch.cuda.set_rng_state(states[1], fabric.device)
        totals = saved.pop("totals")
        saved.pop("settings")
        return TrainingState(**saved, totals=None if totals is None else _own(totals, fabric, equal=False))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{_DAMAGED} ({type(error).__name__}: {error}). {_REMEDY}") from error


_DAMAGED = "the checkpoint was damaged, or is not one of subo's"
_REMEDY = "Restore it from a copy, or start again with `overwrite`."
_HELD = {
    **dict.fromkeys(("step", "epoch", "batch"), int),
    **dict.fromkeys(("seconds", "best_objective"), float),
    **dict.fromkeys(("objective", "optimizer", "precision", "settings"), dict),
    **dict.fromkeys(("random", "records"), list),
}


def _check(saved: Any) -> None:
    """Refuses a checkpoint with missing parts, since defaults would make training a different one."""
    missing = [name for name in (*_HELD, "totals", "best_epoch", "best_weights") if name not in saved]
    if missing:
        raise InputError(f"{_DAMAGED}: it lacks {', '.join(missing)}. {_REMEDY}")
    for name, kind in _HELD.items():
        if not isinstance(saved[name], kind):
            raise InputError(f"{_DAMAGED}: {name} is {type(saved[name]).__name__}, not {kind.__name__}. {_REMEDY}")
    for record in saved["records"]:
        check_record(record, EPOCH, where=f"{_DAMAGED}: the record of an epoch", remedy=_REMEDY)
    best = saved["best_weights"]
    if (best is None) != (saved["best_epoch"] is None):
        raise InputError(f"{_DAMAGED}: it has only one of best_epoch and best_weights. {_REMEDY}")
    if best is not None and _shapes(best) != _shapes(saved["objective"]):
        raise InputError(f"{_DAMAGED}: its best weights are those of a different model. {_REMEDY}")


def _shapes(state: Any) -> dict[str, Any] | None:
    try:
        return {name: tensor.shape for name, tensor in state.items()}
    except AttributeError:
        return None


def _of_each(own: Shaped[Tensor, " N"], fabric: "Fabric") -> Shaped[Tensor, "P N"]:
    """The tensors of all P processes, gathered in each of them."""
    if fabric.world_size == 1:
        return own[None]
    own = own.to(fabric.device)
    gathered = [torch.empty_like(own) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(gathered, own)
    return torch.stack(gathered).cpu()


def _own(of_each: Shaped[Tensor, "*P N"], fabric: "Fabric", *, equal: bool) -> Shaped[Tensor, " N"]:
    """This process's part; a copy, since torch reads a random state from the start of its storage.

    With another number of processes than before: the first's if they are `equal`, or else their sum, in the first one.
    The sums in a checkpoint of version 0.1 have no process axis.
    """
    of_each = of_each if of_each.ndim > 1 else of_each[None]
    if len(of_each) == fabric.world_size:
        return of_each[fabric.global_rank].clone()
    return of_each[0].clone() if equal else of_each.sum(0) * fabric.is_global_zero


def _on_cuda(fabric: "Fabric") -> bool:
    return fabric.device.type == "cuda"
