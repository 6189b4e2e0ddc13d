"""Means of an objective's numbers over data, every datum counting the same."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from subo.batches import batches
from subo.data import Split
from subo.devices import evaluating, place
from subo.objective import Loss, Objective
from subo.randomness import forked

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Metrics", "means", "measure", "sums"]


@dataclass(frozen=True)
class Metrics:
    """Means over data, in nats per datum.

    Attributes:
        bound: The bound on log p(x), whatever shaped the gradient.
        elbo: ``-(rate + distortion)``.
        rate: ``KL(q || p)``, all layers.
        distortion: ``-E_q[log p(x|z)]``.
        rates: The rate of each stochastic layer.
    """

    bound: float
    elbo: float
    rate: float
    distortion: float
    rates: tuple[float, ...]


@torch.no_grad()
def measure(
    objective: Objective, split: Split, *, batch_size: int = 100, seed: int = 0, fabric: "Fabric | None" = None
) -> Metrics:
    """Means of an objective's numbers over data, every datum counting the same; always with the same noise.

    Args:
        objective: The model, bound and number of samples.
        split: The data.
        batch_size: Data at a time; the result does not depend on it but through the noise.
        seed: Of the noise.
        fabric: Shares the data between its processes; one process by default.
    """
    rank, world_size = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    totals = None
    with evaluating(objective), forked(seed):
        for batch in batches(split, batch_size, seed=seed, epoch=0, shuffle=False, rank=rank, world_size=world_size):
            loss = objective(*place(objective, batch.x, batch.context))
            totals = sums([loss] if batch.weight else [], totals, like=loss)
    assert totals is not None  # a split has at least one datum
    return means(totals, fabric)


def sums(losses: list[Loss], totals: Tensor | None, *, like: Loss) -> Tensor:
    """Adds losses to running sums over data: their number, bound, distortion and rates."""
    if totals is None:
        totals = torch.zeros(3 + len(like.rate), dtype=torch.float64, device=like.bound.device)
    if not losses:
        return totals
    columns = [torch.stack((loss.bound, loss.distortion, *loss.rate)) for loss in losses]
    values = torch.cat(columns, dim=1).double()
    return totals + torch.cat([values.new_tensor([values.shape[1]]), values.sum(1)])


def means(totals: Tensor, fabric: "Fabric | None") -> Metrics:
    """The means that running sums stand for, over all processes."""
    if fabric is not None and fabric.world_size > 1:
        totals = fabric.all_reduce(totals, reduce_op="sum")  # pyright: ignore[reportAssignmentType]
    number, bound, distortion, *rates = totals.tolist()
    rates = tuple(rate / number for rate in rates)
    rate, distortion = sum(rates), distortion / number
    return Metrics(bound / number, -(rate + distortion), rate, distortion, rates)
