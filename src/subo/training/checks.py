"""Checks before training: data and settings match, a step fits into memory, and the estimator has a gradient."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch

from subo.core.objective import Objective
from subo.data.splits import Split
from subo.data.support import check_support
from subo.errors import InputError
from subo.gradients import check_path
from subo.runs.config import TrainingConfig
from subo.runtime.devices import evaluating, place
from subo.runtime.memory import check_room
from subo.runtime.randomness import forked
from subo.runtime.room import bytes_saved
from subo.training.optimizers import check_over
from subo.training.windows import check_windows

__all__ = ["check_draws", "check_fit"]


def check_fit(
    objective: Objective, training: Split | None, held_out: Mapping[str, Split], config: TrainingConfig
) -> None:
    """Refuses what training could not complete, before anything is changed.

    Args:
        objective: Objective to train, on the CPU.
        training: Training data; None if they come in batches, the first of which is checked when it arrives.
        held_out: Validation and test data, if any, by these names.
        config: Training settings.

    Raises:
        InputError: The data do not match the model, or an option makes no sense.
    """
    if config.patience is not None and "validation" not in held_out:
        raise InputError(
            "patience counts epochs without a better validation bound, but there are no validation data (local "
            "inference has none: its rows are those of the training data)"
        )
    if training is None and config.updates == "aggressive" and "validation" not in held_out:
        raise InputError(
            "aggressive updates depend on the mutual information of data and latents, which cannot be measured on "
            "batches that are not in memory: give `validation`, or use joint updates"
        )
    known = {**({} if training is None else {"training": training}), **held_out}
    for name, split in known.items():  # also test data, which should not be refused only after training
        check_support(objective.model, split, where=f"the {name} data")
    if not isinstance(config.optimizer, str):
        check_over(config.optimizer, objective)
    if config.window is not None:
        check_windows(objective, training)
    if training is not None:
        check_step(objective, training, config.batch_size, window=config.window)
    for name, split in known.items():
        if name != "test":
            check_draws(objective, split)


def check_step(objective: Objective, split: Split, batch_size: int, *, window: int | None = None) -> None:
    """Refuses a training step that does not fit into memory, judged by what autograd keeps for one or two examples.

    For B examples with K samples it keeps ``c + B (a + b K)``, which three small steps determine. For sequences the
    longest is used, or the first window of it.

    Args:
        objective: Objective to train, on the CPU.
        split: Training data.
        batch_size: The largest B.
        window: Largest number of time steps in an update.

    Raises:
        InputError: There is not enough memory; the message says how much is needed and how much is free.
    """
    longest = torch.zeros(1, dtype=torch.long) if split.lengths is None else split.lengths.argmax()[None]

    def kept(num_data: int, num_samples: int) -> int:
        x, context = place(objective, *replace(split, resample=False).read(longest.expand(num_data)))
        if window is not None:
            x, context = x[:, :window], {**context, "mask": context["mask"][:, :window]}
        with bytes_saved([*objective.parameters(), *objective.buffers()]) as total:
            draw = objective.model.draw(x, context, num_samples=num_samples, path=objective.gradient.path)
            draw.log_weight.sum()
        return total[0]

    size, samples = min(batch_size, len(split)), objective.num_samples
    with evaluating(objective), forked(0), torch.enable_grad():
        few = min(2, samples)  # a single sample is drawn differently
        least = kept(1, few)
        needed = least + (size - 1) * (kept(2, few) - least)
        if samples > few:
            needed += size * (samples - few) * (kept(1, few + 1) - least)
    remedy = _FEWER if split.lengths is None else f"{_FEWER} Or train in windows of so many time steps: `window=100`."
    check_room(needed, f"a training step, with {samples:,} samples of each of {size:,} examples,", remedy)


_FEWER = "Lower `batch_size`, `num_samples` or the widths of the networks."


def check_draws(objective: Objective, split: Split) -> None:
    """Draws z for the first two examples, as training will, and checks that the estimator has a gradient there.

    This finds a posterior without parameters for them, a broken path, or an estimator that does not suit the model.

    Raises:
        InputError: The posterior has no parameters for these examples, or the gradient estimator's path does not reach
            z.
    """
    index = torch.arange(min(2, len(split)))
    x, context = replace(split, resample=False).read(index)
    with evaluating(objective), forked(0), torch.enable_grad():
        place_x, place_context = place(objective, x, context)
        options = {"num_samples": objective.num_samples, "path": objective.gradient.path}
        check_path(
            objective.model.draw(place_x, place_context, **options | {"num_samples": max(2, objective.num_samples)})
        )
        draw, estimator = objective.model.draw(place_x, place_context, **options), deepcopy(objective.gradient)
        estimator.check(draw.q, objective.bound, num_samples=objective.num_samples)
        estimator.surrogate(draw, objective.bound, place_x, place_context)  # on a copy, since it may keep state
