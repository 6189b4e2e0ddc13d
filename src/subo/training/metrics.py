"""Means of an objective's numbers over data, with equal weight for every example."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

from subo.core.objective import Loss, Objective
from subo.data.batches import batches
from subo.data.splits import Split
from subo.errors import DivergedError
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.training.noise import noise_of
from subo.training.step import REMEDY

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Metrics", "means", "measure", "of_each", "sums"]


@dataclass(frozen=True)
class Metrics:
    """Means over data, in nats per example.

    Attributes:
        bound: Bound on log p(x), regardless of what shaped the gradient.
        objective: The maximized quantity at the KL's full weight: the bound, unless beta or free bits shape it.
        elbo: ``-(rate + distortion)``.
        rate: ``KL(q || p)``, all layers.
        distortion: ``-E_q[log p(x|z)]``.
        rates: The rate of each stochastic layer.
    """

    bound: float
    objective: float
    elbo: float
    rate: float
    distortion: float
    rates: tuple[float, ...]


@torch.no_grad()
def measure(
    objective: Objective, split: Split, *, batch_size: int = 100, seed: int = 0, fabric: "Fabric | None" = None
) -> Metrics:
    """Means of an objective's numbers over data, with equal weight for every example; always with the same noise.

    Args:
        objective: Model, bound and number of samples.
        split: The data.
        batch_size: Number of examples at a time; the result depends on it only through the noise.
        seed: Seed for the noise.
        fabric: Lightning Fabric whose processes share the data; one process by default.

    Raises:
        DivergedError: A number is not finite.
    """
    rank, world_size = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    losses, problem = [], None
    with evaluating(objective), forked(seed):
        for batch in batches(split, batch_size, seed=seed, epoch=0, shuffle=False, rank=rank, world_size=world_size):
            with noise_of(batch, fabric, objective.num_samples):
                loss = objective(*place(objective, batch.x, batch.context))
            problem = problem or loss.nonfinite()
            losses += [loss] * (batch.weight > 0)
    result = means(sums(losses, None, layers=len(loss.rate)), fabric)
    finite = all(map(math.isfinite, (result.bound, result.objective, result.elbo)))
    if problem or not finite:  # in all processes: one that continued would wait forever for the others
        raise DivergedError(f"held-out data: {problem or 'a term is not finite'}. {REMEDY}")
    return result


@torch.no_grad()
def of_each(objective: Objective, split: Split, *, batch_size: int, seed: int) -> Float64[Tensor, " N"]:
    """The objective of each example, with the noise of :func:`measure` in one process."""
    with evaluating(objective), forked(seed):
        parts = batches(split, batch_size, seed=seed, epoch=0, shuffle=False)
        losses = [objective(*place(objective, batch.x, batch.context)) for batch in parts]
    return torch.cat([loss.objective.cpu().double() for loss in losses])


def sums(losses: list[Loss], totals: Tensor | None, *, layers: int) -> Tensor:
    """Adds losses to running sums over data, on the CPU: their number, bound, objective, distortion and rates."""
    if totals is None:
        totals = torch.zeros(4 + layers, dtype=torch.float64)
    if not losses:
        return totals
    bound = torch.cat([loss.bound for loss in losses])
    objective = torch.cat([loss.objective for loss in losses])
    distortion = torch.cat([loss.distortion for loss in losses])
    rate = torch.cat([loss.rate for loss in losses], dim=1)
    values = torch.cat([torch.stack((bound, objective, distortion)), rate]).cpu().double()
    return totals + torch.cat([values.new_tensor([values.shape[1]]), values.sum(1)])


def means(totals: Tensor, fabric: "Fabric | None") -> Metrics:
    """The means of running sums, over all processes."""
    if fabric is not None and fabric.world_size > 1:
        totals = fabric.all_reduce(totals, reduce_op="sum")  # pyright: ignore[reportAssignmentType]
    number, bound, objective, distortion, *rates = totals.tolist()
    rates = tuple(rate / number for rate in rates)
    rate, distortion = sum(rates), distortion / number
    return Metrics(bound / number, objective / number, -(rate + distortion), rate, distortion, rates)
