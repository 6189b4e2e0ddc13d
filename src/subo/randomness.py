"""Reproducible numbers without touching anybody's random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["forked"]


@contextmanager
def forked(seed: int) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they are as they were before.

    Example:
        >>> with forked(0):
        ...     a = torch.randn(3)
        >>> with forked(0):
        ...     b = torch.randn(3)
        >>> torch.equal(a, b)
        True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
