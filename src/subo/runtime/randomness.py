"""Reproducible random numbers without touching any global random state."""

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

import torch

__all__ = ["drawing_nothing_on_failure", "forked", "seed_of_piece", "seed_of_stream", "stream"]


@contextmanager
def forked(seed: int) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards their previous state is restored.

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
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # torch's own function takes a hundred times as long: it notes the stack for a device to come
            torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def drawing_nothing_on_failure(device: torch.device) -> Iterator[None]:
    """If what is inside raises an error, torch's generators, also that of a CUDA device, are as they were before."""
    before = torch.get_rng_state()
    there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    except BaseException:
        torch.set_rng_state(before)
        if there is not None:
            torch.cuda.set_rng_state(there, device)
        raise


def stream(*key: str | SupportsIndex) -> torch.Generator:
    """Creates the generator that belongs to a key, such as `("order", seed, epoch)`.

    Args:
        key: The purpose of the numbers, then the integers they depend on.

    Returns:
        A CPU generator at the start of its stream.
    """
    return torch.Generator().manual_seed(seed_of_stream(*key))


def seed_of_stream(*key: str | SupportsIndex) -> int:
    """The seed of the generator that belongs to a key, see :func:`stream`.

    The key is hashed (SHA-256), so neighboring or shorter keys give unrelated streams, where sums such as
    `seed + epoch` would make seed 1, epoch 0 the same as seed 0, epoch 1. torch's CPU generator keeps 32 bits
    of a seed: two different keys share a stream with probability 2^-32.

    Args:
        key: The purpose of the numbers, then the integers they depend on.
    """
    plain = [part if isinstance(part, str) else operator.index(part) for part in key]  # accepts NumPy's integers, too
    return int.from_bytes(hashlib.sha256(repr(plain).encode()).digest()[:4], "big")


def seed_of_piece(seed: int, piece: int) -> int:
    """The seed of one of several pieces of work, which does not depend on who does the others.

    The first piece's is the seed itself: what is done in one piece gives the same as without pieces.

    Example:
        >>> seed_of_piece(7, 0), seed_of_piece(7, 1) == seed_of_piece(7, 1) != seed_of_piece(7, 2)
        (7, True)
    """
    return seed if piece == 0 else int(torch.randint(2**62, (), generator=stream("piece", seed, piece)))
