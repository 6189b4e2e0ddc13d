"""Data from latents: reconstructions and decoded points."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core import context as contexts
from subo.data.splits import Split, takes_data
from subo.evaluation.latents.usage import draws, is_compound, posterior_mean
from subo.runtime.devices import evaluating, place
from subo.typing import Context, leaves, map_latent

__all__ = ["decode", "reconstruct"]


@torch.no_grad()
def decode(
    model: Any, z: Float[Tensor, "N ..."], context: Context | None = None, *, batch_size: int = 1000
) -> Float[Tensor, "N ..."]:
    """``E[x | z]`` for given latents.

    Args:
        model: The model.
        z: Latents, on any device.
        context: Named context tensors, one row per latent.
        batch_size: Number of latents at a time.

    Returns:
        Means on the CPU, ``(N, *event)``.
    """
    contexts.check_rows(context, len(z))
    parts = []
    with evaluating(model):
        for rows in torch.arange(len(z)).split(batch_size):
            known = {name: tensor[rows] for name, tensor in (context or {}).items()}
            parts.append(model.decode(*place(model, z[rows], known)).mean.cpu())
    return torch.cat(parts)


@takes_data
@torch.no_grad()
def reconstruct(model: Any, split: Split, *, batch_size: int = 1000) -> Float[Tensor, "N ..."]:
    """``E[x | z]`` for every example at the posterior mean; the same at every call.

    For several layers, or a chain in time, where the means together need not be likely, it is ``E_q[ E[x | z] ]``: the
    mean over samples of the posterior.

    Args:
        model: A model that decodes given latents.
        split: The data.
        batch_size: Number of examples at a time.

    Returns:
        Means on the CPU, ``(N, *event)``, in the data's order; for sequences ``(all their steps, *event)``.
    """
    parts = []
    for draw, context in draws(model, split, batch_size=batch_size):
        if is_compound(draw):
            rows = map_latent(lambda leaf: leaf.flatten(0, 1), draw.z)
            num_samples = len(leaves(draw.z)[0])
            means = model.decode(rows, contexts.repeat(context, num_samples)).mean
            means = means.unflatten(0, (num_samples, -1)).mean(0)
            parts.append((means if split.lengths is None else means[context["mask"]]).cpu())
        else:
            parts.append(model.decode(posterior_mean(draw.q), context).mean.cpu())
    return torch.cat(parts)
