"""Draws of what grey values and integers stand for: bits, and noise within a level."""

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from subo.data.content_noise import uniform_by_content

__all__ = ["NOISE_STEPS", "bits", "bits_by_content", "noisy", "noisy_by_content"]

NOISE_STEPS = 2**16
"""Bits of u in [0, 1) that float32 holds beside 8 bits."""


def bits(x: Shaped[Tensor, "N ..."], levels: int, generator: torch.Generator) -> Bool[Tensor, "N ..."]:
    """Draws 1 with probability x / levels: of `levels` equally likely integers, x are below x."""
    if x.is_floating_point():  # rand is in [0, 1), so 0 and 1 are never flipped here either
        return torch.rand(x.shape, generator=generator, device=x.device) * levels < x
    return torch.randint(levels, x.shape, generator=generator, dtype=x.dtype, device=x.device) < x


def bits_by_content(
    x: Shaped[Tensor, " N *event"], levels: int, key: tuple[str | int, ...]
) -> UInt8[Tensor, " N *event"]:
    """Draws 1 with probability x / levels, by numbers that depend on the example and the key alone."""
    return (uniform_by_content(x, *key) < x.double() / levels).to(torch.uint8)


def noisy_by_content(x: Shaped[Tensor, " N *event"], key: tuple[str | int, ...]) -> Float[Tensor, " N *event"]:
    """Adds u from [0, 1), in steps, by numbers that depend on the example and the key alone."""
    return x + ((uniform_by_content(x, *key) * NOISE_STEPS).floor() / NOISE_STEPS).float()


def noisy(x: Shaped[Tensor, "N ..."], generator: torch.Generator) -> Float[Tensor, "N ..."]:
    """Adds u from [0, 1), in steps: `torch.rand` would round some x + u to x + 1."""
    steps = torch.randint(NOISE_STEPS, x.shape, generator=generator, dtype=torch.float32, device=x.device)
    return x + steps / NOISE_STEPS
