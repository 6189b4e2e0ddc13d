"""The settings of a training, and what follows from them alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer

from subo.core.objective import Objective
from subo.training.checkpoints import TrainingState
from subo.training.loop import Schedule
from subo.training.optimizers import make_optimizer
from subo.training.updates import UpdatesName

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Plan"]


@dataclass(frozen=True, eq=False)
class Plan:
    """The settings of a training, as :func:`subo.fit` was given them and as a run's config keeps them."""

    epochs: int | None
    minutes: float | None
    batch_size: int
    optimizer: str | Optimizer
    learning_rate: float
    rows_learning_rate: float
    warmup_epochs: float
    decay: Literal["constant", "cosine"]
    kl_warmup_epochs: float
    clip: float | None
    updates: UpdatesName
    posterior_steps: int
    patience: int | None
    seed: int
    checkpoint_minutes: float
    keep_weights: bool | None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Plan":
        """The settings among arguments by name."""
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def limit(self) -> int | None:
        """Epochs at the most; None where the clock decides."""
        return self.epochs if self.epochs or self.minutes else 100

    def out_of_time(self, seconds: float) -> bool:
        """Whether the clock ends training."""
        return self.minutes is not None and seconds >= 60 * self.minutes

    def share_done(self, step: int, seconds: float, *, steps_per_epoch: int) -> float:
        """The share of the whole training that is over, by steps or by the clock."""
        by_steps = step / (self.limit * steps_per_epoch) if self.limit else 0.0
        return max(by_steps, seconds / (60 * self.minutes) if self.minutes else 0.0)

    def reason_to_end(self, state: TrainingState) -> Literal["epochs", "minutes", "patience"] | None:
        """Why training is over, if it is."""
        best = state.best_epoch
        if self.patience is not None and best is not None and state.epoch - best >= self.patience:
            return "patience"
        if self.limit is not None and state.epoch >= self.limit:
            return "epochs"
        return "minutes" if self.out_of_time(state.seconds) else None

    def schedule(self, steps_per_epoch: int) -> Schedule:
        """How learning rate and KL weight go over the steps."""
        warmup, kl_warmup = (round(epochs * steps_per_epoch) for epochs in (self.warmup_epochs, self.kl_warmup_epochs))
        return Schedule(warmup, self.decay, kl_warmup)

    def optimizer_of(self, objective: Objective, fabric: "Fabric", *, clip: float | None) -> Optimizer:
        """The optimizer, made where it is only named; of the objective as it is by now on its device."""
        if not isinstance(self.optimizer, str):
            return self.optimizer
        scaled = fabric.strategy.precision.precision == "16-mixed"  # whose gradients Fabric cannot clip when fused
        options = {"fused": False} if scaled and clip else {}
        rates = {"learning_rate": self.learning_rate, "rows_learning_rate": self.rows_learning_rate}
        return make_optimizer(objective, self.optimizer, **rates, **options)
