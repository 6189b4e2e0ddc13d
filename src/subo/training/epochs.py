"""Epochs of training: their batches, and what their end brings."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING

import torch

from subo.core.objective import Objective
from subo.data.batches import Batch, batches
from subo.data.splits import Split
from subo.errors import DivergedError
from subo.evaluation.latents.information import mutual_information
from subo.training.checkpoints import TrainingState
from subo.training.history import Epoch
from subo.training.loop import Step
from subo.training.metrics import means, measure
from subo.training.updates import Updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["agreed", "close_epoch", "stream_of"]


def stream_of(split: Split, batch_size: int, seed: int, state: TrainingState, fabric: "Fabric") -> Iterator[Batch]:
    """All batches from where the state is, for ever."""
    first = state.batch
    for epoch in count(state.epoch):
        rank, world_size = fabric.global_rank, fabric.world_size
        yield from batches(split, batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size, first=first)
        first = 0


def agreed(fabric: "Fabric", seconds: float, signal: int, due: bool) -> tuple[float, int, bool]:
    """What all processes take as the time, the signal that came and whether to save: the largest of each one's."""
    if fabric.world_size == 1:
        return seconds, signal, due
    values = torch.tensor([seconds, float(signal), float(due)], dtype=torch.float64, device=fabric.device)
    values = fabric.all_reduce(values, reduce_op="max")
    return float(values[0]), int(values[1]), bool(values[2])


def close_epoch(
    state: TrainingState,
    step: Step,
    objective: Objective,
    updates: Updates,
    training: Split | None,
    validation: Split | None,
    batch_size: int,
    seed: int,
    fabric: "Fabric",
) -> Epoch:
    """Ends an epoch: means, validation, best weights, mutual information, record."""
    assert state.totals is not None
    held_out = None
    if validation is not None:
        try:
            held_out = measure(objective, validation, batch_size=batch_size, seed=seed, fabric=fabric)
        except DivergedError as error:
            raise DivergedError(f"step {state.step}, {error}") from error
    state.epoch += 1
    state.batch = 0
    if held_out is not None and held_out.objective > state.best_objective:
        state.best_objective, state.best_epoch = held_out.objective, state.epoch
        state.best_weights = {name: tensor.cpu().clone() for name, tensor in objective.state_dict().items()}
    done = updates.now
    information = _informed(updates, objective, validation or training, seed, fabric)
    epoch = Epoch(
        epoch=state.epoch,
        step=state.step,
        seconds=state.seconds,
        learning_rate=step.learning_rate,
        kl_weight=step.kl_weight,
        train=means(state.totals, fabric),
        validation=held_out,
        updates=done,
        mutual_information=information,
    )
    state.totals = None
    state.records.append(asdict(epoch))
    return epoch


def _informed(updates: Updates, objective: Objective, split: Split | None, seed: int, fabric: "Fabric") -> float | None:
    """The mutual information at an epoch's end, by which aggressive updates go; None for others."""
    if updates.now != "aggressive" or split is None:
        return None
    information = mutual_information(objective.model, split, num_samples=1, seed=seed).value
    information = fabric.broadcast(information)  # all processes have the same, but for rounding
    updates.inform(information)
    return information
