"""The inference gap over training: surprisal and error, where a loss curve shows only their sum."""

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.evaluation.evidence.annealed import Annealing, ais, few_chains
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.gaps import mean_log_weight
from subo.evaluation.inference_gaps import larger
from subo.runs.run import Run
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["TrainingGap", "gap_over_training", "models_over_training"]


@dataclass(frozen=True)
class TrainingGap:
    """Where the loss was at one point of training, in nats per example: ``SUBO = surprisal + error``.

    Standard errors are from the spread over the data; infinite for one example.

    Attributes:
        epoch: Epoch after which it was measured.
        step: Number of steps after which it was measured.
        surprisal: ``-log p(x)``: what the model does not know about the data.
        surprisal_se: Standard error of `surprisal`.
        error: ``log p(x) - ELBO``: what the posterior adds.
        error_se: Standard error of `error`, from the differences example by example, so much smaller than that of
            either.
        elbo_se: Standard error of the ELBO.
        num_data: Number of examples.
    """

    epoch: int
    step: int
    surprisal: float
    surprisal_se: float
    error: float
    error_se: float
    elbo_se: float
    num_data: int

    @property
    def subo(self) -> float:
        """The surprisal's upper bound, which training minimizes."""
        return self.surprisal + self.error

    @property
    def elbo(self) -> float:
        """``-subo``."""
        return -self.subo

    @property
    def log_px(self) -> float:
        """``-surprisal``."""
        return -self.surprisal


@takes_data
def gap_over_training(
    checkpoints: Iterable[tuple[int, int, LatentVariableModel]],
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    num_samples: int = 1000,
    annealing: Annealing | None = None,
    max_rows: int = 5000,
    seed: int = 0,
) -> tuple[TrainingGap, ...]:
    """Measures surprisal and error on the same data, with the same noise, at every checkpoint.

    log p(x) is estimated by importance sampling from the posterior at that time. If that is bad, as early in training,
    the estimate is low, and some of the error is reported as surprisal: more samples, or annealing, correct this.

    Args:
        checkpoints: Epoch, step and model, in the order of training; each model is finished before the next is
            requested, so that all may be one module whose weights are exchanged.
        x: Data.
        context: Named context tensors, one row per example.
        num_samples: Number of samples for each importance estimate and ELBO.
        annealing: If given, log p(x) is the larger of that estimate and annealed importance sampling, as in
            :func:`~subo.evaluation.gaps`.
        max_rows: Number of latents decoded at a time; bounds memory.
        seed: Seed for the samples, the same at every checkpoint.

    Raises:
        InputError: There are no checkpoints or no data, or a number makes no sense.

    Example:
        >>> from subo import probabilistic_pca
        >>> points = gap_over_training([(1, 10, probabilistic_pca(5, 2))], torch.randn(20, 5))
        >>> points[0].subo == points[0].surprisal + points[0].error, abs(points[0].error) < 1e-4
        (True, True)
    """
    points = []
    for epoch, step, model in checkpoints:
        rows, placed = place(model, x, context or {})
        with evaluating(model), forked(seed):
            estimate = log_marginal(model, rows, placed, num_samples=num_samples, max_rows=max_rows)
            elbo, _ = mean_log_weight(model, rows, placed, num_samples=num_samples, max_rows=max_rows)
        log_px = estimate.log_px
        if annealing is not None:
            by_chains = ais(model, rows, placed, annealing=annealing, max_rows=max_rows, seed=seed)
            doubtful, errors = few_chains(by_chains.effective_sample_size), by_chains.standard_error
            log_px, _, _ = larger(log_px, estimate.standard_error, by_chains.log_px, errors, doubtful=doubtful)
        points.append(_point(epoch, step, log_px, elbo))
    if not points:
        raise InputError(
            "there are no checkpoints to measure. Weights are kept in a run folder during training with fit(..., "
            "run_dir=..., keep_weights=True), and by default if the model is small."
        )
    return tuple(points)


def models_over_training(run: Run, model: Any) -> Iterator[tuple[int, int, Any]]:
    """Epoch, step and model, for all weights that a run has kept.

    Args:
        run: The run.
        model: The model as trained by :func:`subo.fit`; it is not changed: the weights are loaded into a copy, one
            after the other.

    Raises:
        InputError: Weights cannot be read, or belong to another model.
    """
    copy = deepcopy(model)
    steps = {record["epoch"]: record["step"] for record in run.read_metrics()}
    for epoch in run.kept_epochs():
        if epoch in steps:
            run.load_weights(copy, epoch=epoch)
            yield epoch, steps[epoch], copy


def _point(epoch: int, step: int, log_px: Tensor, elbo: Tensor) -> TrainingGap:
    root = math.sqrt(len(elbo))

    def error(values: Tensor) -> float:
        return values.std().item() / root if len(values) > 1 else math.inf

    return TrainingGap(
        epoch=epoch,
        step=step,
        surprisal=-log_px.mean().item(),
        surprisal_se=error(log_px),
        error=(log_px - elbo).mean().item(),
        error_se=error(log_px - elbo),
        elbo_se=error(elbo),
        num_data=len(elbo),
    )
