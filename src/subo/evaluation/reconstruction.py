"""Data from latents: reconstructions and decoded points."""

import torch
from jaxtyping import Float
from torch import Tensor

from subo.batches import batches
from subo.context import call
from subo.data import Split
from subo.devices import evaluating, place
from subo.evaluation.usage import posterior_mean
from subo.model import VAE
from subo.randomness import forked

__all__ = ["decode", "reconstruct"]


@torch.no_grad()
def decode(model: VAE, z: Float[Tensor, "N ..."], *, batch_size: int = 1000) -> Float[Tensor, "N ..."]:
    """``E[x | z]`` of given latents.

    Args:
        model: The model.
        z: Latents, on any device.
        batch_size: Latents at a time.

    Returns:
        Means on the CPU, ``(N, *event)``.
    """
    with evaluating(model):
        return torch.cat([call(model.likelihood, place(model, part, {})[0]).mean.cpu() for part in z.split(batch_size)])


@torch.no_grad()
def reconstruct(model: VAE, split: Split, *, batch_size: int = 1000) -> Float[Tensor, "N ..."]:
    """``E[x | z]`` at the posterior mean of every datum; the same at every call.

    Args:
        model: The model.
        split: The data.
        batch_size: Data at a time.

    Returns:
        Means on the CPU, ``(N, *event)``, in the data's order.
    """
    parts = []
    with evaluating(model), forked(0):
        for batch in batches(split, batch_size, seed=0, epoch=0, shuffle=False):
            x, context = place(model, batch.x, batch.context)
            z = posterior_mean(model.draw(x, context, path=False).q)
            parts.append(call(model.likelihood, z, context=context).mean.cpu())
    return torch.cat(parts)
