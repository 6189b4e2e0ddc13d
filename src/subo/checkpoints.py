"""Checkpoints: all that training needs to go on as if it had never stopped, in plain values and tensors."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from subo.errors import DivergedError, InputError
from subo.objective import Loss, Objective
from subo.updates import Updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["TrainingState", "check_finite", "content", "restore"]


@dataclass
class TrainingState:
    """Where training is: with the weights, the optimiser and the random state, all that a checkpoint holds."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    totals: Tensor | None = None  # sums over the running epoch's data, see subo.metrics.sums
    unsummed: list[Loss] = field(default_factory=list)  # of the latest steps: summed when somebody asks
    records: list[dict[str, Any]] = field(default_factory=list)
    best_objective: float = -math.inf
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] | None = None


def check_finite(objective: Objective, step: int) -> None:
    """Keeps a checkpoint from being replaced by a broken one."""
    for name, parameter in objective.named_parameters():
        if not torch.stack(parameter.detach().aminmax()).isfinite().all():  # without a copy of a local posterior's rows
            raise DivergedError(
                f"step {step}: the parameter {name} is not finite any more: its gradient was not, at a finite loss. "
                "The last checkpoint is from before. Try a smaller --learning-rate, or --clip 10."
            )


def content(
    state: TrainingState,
    objective: Objective,
    optimizer: Optimizer,
    updates: Updates,
    settings: dict[str, Any],
    fabric: "Fabric",
) -> dict[str, Any]:
    """A checkpoint: plain values and tensors only."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(fabric.device)] if _on_cuda(fabric) else [])]
    gathered = [fabric.all_gather(s).cpu() if fabric.world_size > 1 else s[None] for s in states]  # pyright: ignore
    return {
        **vars(state),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "updates": updates.state_dict(),
        "random": gathered,
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
    """Puts objective, optimiser, updates and random state back to where a checkpoint was made.

    Raises:
        InputError: It was made with other settings or of another model.
    """
    for name, value in settings.items():
        made_with = saved["settings"].get(name, value)  # nothing: before there was that setting
        if made_with != value:
            raise InputError(
                f"the checkpoint was made with {name} = {made_with}, and going on with {value} would "
                "be another run. Resume with the same, or start again with --overwrite."
            )
    try:
        objective.load_state_dict(saved.pop("objective"))
    except RuntimeError as error:
        raise InputError(f"the checkpoint is of another model: {str(error).splitlines()[-1].strip()}") from error
    optimizer.load_state_dict(saved.pop("optimizer"))
    updates.load_state_dict(saved.pop("updates", {}))
    fabric.strategy.precision.load_state_dict(saved.pop("precision"))
    states = [state[fabric.global_rank] for state in saved.pop("random")]
    torch.set_rng_state(states[0])
    if _on_cuda(fabric) and len(states) > 1:
        torch.cuda.set_rng_state(states[1], fabric.device)
    saved.pop("settings")
    return TrainingState(**saved)


def _on_cuda(fabric: "Fabric") -> bool:
    return fabric.device.type == "cuda"
