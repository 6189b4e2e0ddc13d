"""How many threads a fit takes on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["suited_threads", "with_threads"]

_LEAST_WORK = 1 << 25
"""Products of numbers in a model's largest layer and batch from which a second thread pays.

On two idle cores a second thread made steps of 0.3 and 4 million products 1.0 times as fast, of 17 million, on a table
of mixed columns, 1.1 times, for twice the time of processor, and of 98 million 1.4 times. Where others use the cores,
threads wait for each other: the same fit of that table took 531 s of processor in two threads.
"""


def suited_threads(module: nn.Module, rows: int) -> int | None:
    """One thread for a small model, else None: as many as torch takes.

    Args:
        module: The model.
        rows: Rows that a layer sees at a time: a batch's, times the samples of each.

    Example:
        >>> suited_threads(nn.Linear(20, 100), 256), suited_threads(nn.Linear(784, 500), 250)
        (1, None)
    """
    if any(parameter.ndim > 2 for parameter in module.parameters()):
        return None  # convolutions use a weight more than once for a row
    largest = max((parameter.numel() for parameter in module.parameters()), default=0)
    return 1 if rows * largest < _LEAST_WORK else None


@contextmanager
def with_threads(count: int | None) -> Iterator[None]:
    """Torch has so many threads for a while; None: as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
