"""The types that all modules share: latents, contexts, and the letters used for shapes.

Letters in shapes are those of the papers: ``K`` samples of z per example, ``B`` examples in a batch, ``N`` rows of an
ordinary batch (often ``K * B`` folded together), ``D`` elements of a vector, ``L`` stochastic layers.
"""

from collections.abc import Callable, Mapping

from torch import Size, Tensor
from torch.distributions import Distribution

__all__ = ["Context", "Latent", "Path", "leaves", "map_latent"]

Latent = Tensor | dict[str, Tensor]
"""A latent variable: one tensor, or one tensor per node of a graph. Opaque to bounds, gradients and training."""

Context = Mapping[str, Tensor]
"""Tensors that accompany x in a batch, by name: ``label``, ``length``, ``index``. Leading axis B."""


Path = bool | Callable[[Distribution, Size], Tensor]
"""How z is drawn: differentiable in q's parameters (``rsample``) or not (``sample``), or by a function of q and the
sample shape, which gives samples of q with a derivative that q itself lacks."""


def map_latent(function: Callable[[Tensor], Tensor], z: Latent) -> Latent:
    """Applies `function` to every tensor of a latent."""
    if isinstance(z, Tensor):
        return function(z)
    return {name: function(leaf) for name, leaf in z.items()}


def leaves(z: Latent) -> list[Tensor]:
    """The tensors of a latent."""
    return [z] if isinstance(z, Tensor) else list(z.values())
