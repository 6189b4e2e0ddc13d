"""The sizes and data of a small VAE."""

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

B, D, d = 3, 6, 2


def data(*shape: int) -> Tensor:
    return torch.randint(2, shape or (B, D)).float()


def normal(loc: Tensor, scale: float = 1.0) -> Independent:
    return Independent(Normal(loc, torch.full_like(loc, scale)), 1)
