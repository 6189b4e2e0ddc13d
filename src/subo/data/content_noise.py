"""Random numbers determined by an example's own values: the same in any file, position and batch.

A generator that runs through a file gives an example numbers that depend on the examples before it. Here each
element's number is a hash of the whole example, the position of the element, and a key.
"""

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt64
from torch import Tensor

from subo.runtime.randomness import stream

__all__ = ["uniform_by_content"]

_ELEMENTS = 2**22  # hashed at a time
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, 2^64 over the golden ratio


def uniform_by_content(x: Shaped[Tensor, " N *event"], *key: str | int) -> Float64[Tensor, " N *event"]:
    """Uniform numbers in [0, 1), 53 bits each, which depend only on an example's values and a key.

    The example's hash is the sum over its elements of ``mix(place * step + mix(value))``, and an element's number
    ``mix(hash + place * step)``, where mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014, "Fast
    splittable pseudorandom number generators", figure 17), which changes half of the bits on average when one of its
    argument's changes. Two examples share numbers if they are the same, and else with probability 2^-64.

    Args:
        x: `(N, *event)`.
        key: Purpose of the numbers, and integers.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> alone, among = uniform_by_content(x[1:], "bits", 0), uniform_by_content(x, "bits", 0)
        >>> torch.equal(alone[0], among[1])
        True
    """
    rows = x.flatten(1)
    salt = np.uint64(int(torch.randint(2**62, (), generator=stream(*key))))
    place = np.arange(1, 1 + rows.shape[1], dtype=np.uint64) * _STEP
    parts = []
    for some in rows.split(max(1, _ELEMENTS // rows.shape[1])):
        values = np.ascontiguousarray(some.double().numpy() + 0.0).view(np.uint64)  # -0 is 0
        own = _mixed(_mixed(_mixed(values) + place).sum(1, dtype=np.uint64) + salt)
        parts.append((_mixed(own[:, None] + place) >> np.uint64(11)) * 2.0**-53)
    return torch.from_numpy(np.concatenate(parts)).reshape(x.shape)


def _mixed(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """SplitMix64's finalizer; products wrap around."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
