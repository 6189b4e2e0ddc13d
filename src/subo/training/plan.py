"""What the settings imply for training: when it ends, how its rates change, which optimizer it uses."""

from typing import TYPE_CHECKING, Literal

from torch.optim import Optimizer

from subo.core.objective import Objective
from subo.runs.config import TrainingConfig
from subo.training.checkpoints import TrainingState
from subo.training.loop import Schedule
from subo.training.optimizers import make_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["optimizer_of", "reason_to_end", "schedule_of"]


def reason_to_end(config: TrainingConfig, state: TrainingState) -> Literal["epochs", "minutes", "patience"] | None:
    """Why training is over, if it is."""
    best = state.best_epoch
    if config.patience is not None and best is not None and state.epoch - best >= config.patience:
        return "patience"
    if config.limit is not None and state.epoch >= config.limit:
        return "epochs"
    return "minutes" if config.out_of_time(state.seconds) else None


def schedule_of(config: TrainingConfig, steps_per_epoch: int, *, epoch_began: int = 0) -> Schedule:
    """How learning rate and KL weight change over the steps.

    Args:
        config: The settings.
        steps_per_epoch: Number of steps of an epoch.
        epoch_began: Number of the step before the current epoch's first: one that ran out of time was shorter.
    """
    epochs = config.warmup_epochs, config.kl_warmup_epochs, config.elbo_epochs
    warmup, kl_warmup, elbo = (round(number * steps_per_epoch) for number in epochs)
    ends = {"by_clock": config.limit is None, "look_every": steps_per_epoch, "look_from": epoch_began}
    return Schedule(warmup, config.decay, kl_warmup, elbo, **ends)


def optimizer_of(config: TrainingConfig, objective: Objective, fabric: "Fabric", *, clip: float | None) -> Optimizer:
    """The optimizer, made here if only named; over the objective's parameters once they are on their device."""
    if not isinstance(config.optimizer, str):
        return config.optimizer
    scaled = fabric.strategy.precision.precision == "16-mixed"  # Fabric cannot clip these if fused
    options = {"fused": False} if scaled and clip else {}
    rates = {"learning_rate": config.learning_rate, "rows_learning_rate": config.rows_learning_rate}
    return make_optimizer(objective, config.optimizer, **rates, **options)
