"""Training that went wrong: whether the model is worse than before, and what is kept when training cannot continue."""

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from jaxtyping import Float64
from torch import Tensor

from subo.core.objective import Objective
from subo.data.splits import Split
from subo.data.spread import far_rows
from subo.errors import DivergedError, InputError, in_words
from subo.runs.run import Run
from subo.training.checkpoints import TrainingState
from subo.training.metrics import of_each
from subo.training.step import Step

__all__ = ["default_clip", "keep_best", "level", "noise_of_change", "unwritten", "watched"]

_TRAINING_DATA = 1000  # measured before and after training without validation data
_CLIP = 100.0  # if there are outliers; other gradients are rarely as large


def default_clip(training: Split) -> float | None:
    """The default largest norm of a gradient: None unless a value lies far from the others."""
    real = training.levels == 1 and training.x.is_floating_point()
    return _CLIP if real and bool(far_rows(training.x).any()) else None


def watched(training: Split | None, validation: Split | None) -> Split | None:
    """The data on which the model is compared before and after training; None if none are in memory."""
    if validation is not None or training is None:
        return validation
    return training.take(torch.arange(min(len(training), _TRAINING_DATA)))  # the first: local inference has their rows


def level(objective: Objective, split: Split, *, batch_size: int, seed: int) -> Float64[Tensor, " N"]:
    """The objective of each example; minus infinity where it is not finite.

    The noise is the same in every validation, so that differences come from the weights. Every process measures all
    examples.
    """
    return of_each(objective, split, batch_size=batch_size, seed=seed).nan_to_num(
        nan=-math.inf, posinf=-math.inf, neginf=-math.inf
    )


def noise_of_change(before: Float64[Tensor, " N"], after: Float64[Tensor, " N"]) -> float:
    """How far the mean difference may fall below 0 by chance: it is lower in 1 of 1,000 cases, by Student's t.

    Data and noise are the same on both sides. Infinite for one example; 0 if a value is not finite, which never happens
    by chance.
    """
    from scipy.special import stdtrit

    change = after - before
    if not bool(change.isfinite().all()):
        return 0.0
    if len(change) == 1:
        return math.inf
    return float(stdtrit(len(change) - 1, 0.999)) * change.std().item() / math.sqrt(len(change))


def keep_best(
    state: TrainingState, last: Step | None, objective: Objective, run: Run | None, *, save: Callable[[], None] | None
) -> str:
    """Saves what is usable after training diverged: the checkpoint from before, and the weights of the best epoch.

    Args:
        state: State of training.
        last: Last step made.
        objective: Receives the weights of the best validation epoch, if there is one.
        run: Run to which they are also written.
        save: Writes a checkpoint, unless a parameter is not finite; None if training cannot resume from this point.

    Returns:
        A sentence that says what was kept.
    """
    saved = False
    if save is not None and last is not None:
        with suppress(DivergedError):
            state.sum_up(last)
            save()
            saved = run is not None
    checkpoint = f" The checkpoint is that of step {state.step}." if saved else ""
    if state.best_weights is None:
        return f"No weights are kept: no epoch with validation data had ended before.{checkpoint}"
    objective.load_state_dict(state.best_weights)
    where = "" if run is None else f", in {run.model}"
    if run is not None:
        caution = f"training diverged, and these are the weights of epoch {state.best_epoch}, the best until then."
        run.save_weights(objective.model, caution=caution)
    return f"The weights kept are those of epoch {state.best_epoch}, the best in validation{where}.{checkpoint}"


def unwritten(
    error: InputError | OSError, state: TrainingState, last: Step, run: Run, *, save: Callable[[], None]
) -> InputError:
    """The error for a file of the run that could not be written; tries once more to write the checkpoint.

    Args:
        error: The cause.
        state: State of training.
        last: Last step made.
        run: Run that was being written.
        save: Writes a checkpoint.
    """
    words = in_words(error) if isinstance(error, OSError) else str(error)
    try:
        if state.unsummed:
            state.sum_up(last)
        save()
        kept = f"The checkpoint of step {state.step} is written"
    except (InputError, OSError, DivergedError):
        if not run.checkpoint.exists():
            return InputError(f"stopped after {state.step} steps: {words}")
        kept = "The last checkpoint that could be written is whole"
    return InputError(f"stopped after {state.step} steps: {words} {kept}: once that is fixed, resume the run.")
