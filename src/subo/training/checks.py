"""Checks before training: data and settings go together, a step fits into memory, and the estimator has a gradient."""

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

__all__ = ["check_draws", "check_fit"]


def check_fit(
    objective: Objective, training: Split | None, held_out: Mapping[str, Split], config: TrainingConfig
) -> None:
    """Refuses what training could not go through with, before it touches anything.

    Args:
        objective: What is to be trained, on the CPU.
        training: The training data; None where they come in batches, the first of which is checked when it comes.
        held_out: Validation and test data, where there are some, by these names.
        config: The settings.

    Raises:
        InputError: The data are not what the model describes, or an option makes no sense.
    """
    if config.patience is not None and "validation" not in held_out:
        raise InputError(
            "patience counts epochs without a better validation bound, and there are no validation data"
            " (local inference has none: its rows are those of the training data)"
        )
    if training is None and config.updates == "aggressive" and "validation" not in held_out:
        raise InputError(
            "aggressive updates go by the mutual information of data and latents, and batches that are not in memory "
            "have none to measure it on: give `validation`, or use joint updates"
        )
    known = {**({} if training is None else {"training": training}), **held_out}
    for name, split in known.items():  # test data, too: what is measured after training should not be refused then
        check_support(objective.model, split, where=f"the {name} data")
    if not isinstance(config.optimizer, str):
        check_over(config.optimizer, objective)
    if training is not None:
        check_step(objective, training, config.batch_size)
    for name, split in known.items():
        if name != "test":
            check_draws(objective, split)


def check_step(objective: Objective, split: Split, batch_size: int) -> None:
    """Refuses a step of training that memory could not hold, by what autograd keeps of one with an example or two.

    Of B data with K samples it keeps ``c + B (a + b K)``, which three small steps tell. Of sequences the longest is
    taken.

    Args:
        objective: What is trained, on the CPU.
        split: The training data.
        batch_size: B, at the most.

    Raises:
        InputError: There is no room; says how much it would take, and how much is free.
    """
    longest = torch.zeros(1, dtype=torch.long) if split.lengths is None else split.lengths.argmax()[None]

    def kept(num_data: int, num_samples: int) -> int:
        x, context = place(objective, *replace(split, resample=False).read(longest.expand(num_data)))
        with bytes_saved([*objective.parameters(), *objective.buffers()]) as total:
            draw = objective.model.draw(x, context, num_samples=num_samples, path=objective.gradient.path)
            draw.log_weight.sum()
        return total[0]

    size, samples = min(batch_size, len(split)), objective.num_samples
    with evaluating(objective), forked(0), torch.enable_grad():
        few = min(2, samples)  # a lone sample is drawn in another way
        least = kept(1, few)
        needed = least + (size - 1) * (kept(2, few) - least)
        if samples > few:
            needed += size * (samples - few) * (kept(1, few + 1) - least)
    check_room(needed, f"a step of training, with {samples:,} samples of each of {size:,} examples,", _FEWER)


_FEWER = "Lower `batch_size`, `num_samples` or the widths of the networks."


def check_draws(objective: Objective, split: Split) -> None:
    """Draws z for the first two data, as training will, and asks the estimator whether it has a gradient there.

    A posterior without them, a path that is cut, or an estimator that is not for this model are found here.

    Raises:
        InputError: The posterior has no parameters for them, or the gradient estimator's path does not reach z.
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
        estimator.surrogate(draw, objective.bound, place_x, place_context)  # of a copy, since it may remember
