"""What a fit has before training begins, and what it has afterwards."""

import math
from dataclasses import dataclass

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.evaluation.effort import caution_of_samples
from subo.evaluation.latents.predicted_units import predict_active_units
from subo.experiments.experiment import Experiment
from subo.runs.config import RunConfig
from subo.runtime.wording import counted
from subo.training.divergence import default_clip
from subo.training.history import History
from subo.training.settings import training_settings

__all__ = ["Fitted", "Start"]

_FEW = 5  # times fewer epochs than by default


@dataclass(frozen=True)
class Start:
    """What was read and chosen, before training begins.

    Attributes:
        config: Config of the run.
        objective: The model and its gradient estimator.
        data: Data that it is fitted to.
        chosen: Whether the likelihood was chosen from the data.
        noisy: Whether integers are dequantized by default rather than on request.
    """

    config: RunConfig
    objective: Objective
    data: Data
    chosen: bool
    noisy: bool

    @property
    def clip(self) -> float | None:
        """The default largest norm of a gradient, set if some values are far from the others."""
        return default_clip(self.data.train) if self.config.training.clip is None else None

    def unused_latents(self) -> str:
        """How many latents a linear model would leave unused, in words; empty if none, or if it is not known."""
        return str(predict_active_units(self.objective, self.data.train) or "")

    def few_epochs(self) -> str:
        """What to know where epochs were asked for and are far fewer than suit the number of examples; else empty."""
        asked = self.config.training
        usual = training_settings(self.objective, self.data, batch_size=asked.batch_size).get("epochs")
        if asked.epochs is None or asked.minutes is not None or usual is None or asked.epochs * _FEW > usual:
            return ""
        steps = math.ceil(len(self.data.train) / asked.batch_size)
        return (
            f"{counted(asked.epochs, 'epoch')} of {counted(steps, 'step')}: few for {len(self.data.train):,} examples, "
            f"which get up to {usual:,} epochs by default"
        )

    def caution(self, num_samples: int | None) -> str:
        """How long log p(x) of the test data will take with this many samples, if it is long; empty if q is local."""
        if num_samples is None or self.config.is_local:
            return ""
        return caution_of_samples(self.objective.model, self.data.test, num_samples, option="evaluation_samples")


@dataclass(frozen=True)
class Fitted:
    """A run after training.

    Attributes:
        experiment: The run with its model.
        history: What training did, over all sittings.
        data: Data that it was fitted to.
        trained: Whether there was anything left to do in this sitting.
        processes: Number of processes of this machine among which its measurement can be shared.
    """

    experiment: Experiment
    history: History
    data: Data
    trained: bool
    processes: int = 1
