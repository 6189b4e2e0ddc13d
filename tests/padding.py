"""Masks of padded sequences."""

import torch
from jaxtyping import Bool
from torch import Tensor


def mask_of(*lengths: int) -> Bool[Tensor, "B T"]:
    """Which steps are real, of sequences of these lengths."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
