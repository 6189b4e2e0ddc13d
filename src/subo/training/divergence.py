"""Training that went wrong: whether the model is worse than before, and what is kept when it cannot go on."""

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
from subo.training.loop import Step
from subo.training.metrics import of_each

__all__ = ["default_clip", "keep_best", "level", "noise_of_change", "unwritten", "watched"]

_TRAINING_DATA = 1000  # measured before and after training where there are no validation data
_CLIP = 100.0  # where there are far values; other gradients are rarely as large


def default_clip(training: Split) -> float | None:
    """The largest norm of a gradient, where nobody asks for one: None unless a value lies far from the others."""
    real = training.levels == 1 and training.x.is_floating_point()
    return _CLIP if real and bool(far_rows(training.x).any()) else None


def watched(training: Split | None, validation: Split | None) -> Split | None:
    """The data by which the model is held against what it was before training; None where none are in memory."""
    if validation is not None or training is None:
        return validation
    return training.take(torch.arange(min(len(training), _TRAINING_DATA)))  # the first: local inference has their rows


def level(objective: Objective, split: Split, *, batch_size: int, seed: int) -> Float64[Tensor, " N"]:
    """What is maximized of each example; minus infinity where it is not finite.

    The noise is that of every validation, so that differences are those of the weights. All processes measure all.
    """
    return of_each(objective, split, batch_size=batch_size, seed=seed).nan_to_num(
        nan=-math.inf, posinf=-math.inf, neginf=-math.inf
    )


def noise_of_change(before: Float64[Tensor, " N"], after: Float64[Tensor, " N"]) -> float:
    """How far the mean of the differences may be from 0 by chance: in 1 of 1,000 cases it is lower, by Student's t.

    Data and noise are the same on both sides. Infinite for one example; 0 where a value is not finite, as none is by
    chance.
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
    """Keeps what is good of a training that diverged: the checkpoint of before, and the weights of the best epoch.

    Args:
        state: Where training was.
        last: The last step that was made.
        objective: Is given the weights of the best epoch in validation, where there is one.
        run: Where these are written, too.
        save: Writes a checkpoint, unless a parameter is not finite; None where training is at no place to go on from.

    Returns:
        What is kept, in words.
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
    """What is said when a file of the run could not be written, and the checkpoint, which is tried once more.

    Args:
        error: Why.
        state: Where training was.
        last: The last step that was made.
        run: Where it wrote.
        save: Writes a checkpoint.
    """
    words = in_words(error) if isinstance(error, OSError) else str(error)
    try:
        if state.unsummed:
            state.sum_up(last)
        save()
        kept = f"The checkpoint is written, of step {state.step}"
    except (InputError, OSError, DivergedError):
        if not run.checkpoint.exists():
            return InputError(f"stopped after {state.step} steps: {words}")
        kept = "The last checkpoint that could be written is whole"
    return InputError(f"stopped after {state.step} steps: {words} {kept}: when that is mended, resume the run.")
