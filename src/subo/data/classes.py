"""Converts labels as given, integers or names, to class numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

__all__ = ["as_class", "numbered"]


def as_class(text: str) -> int | str:
    """A class as an integer if it is written as one, such as 3, -8 or 5.0; else the text itself.

    Python's own 1_000 and digits of other scripts are text.
    """
    if not text.isascii() or "_" in text:
        return text
    try:
        whole = int(float(text))
        return int(text) if text.lstrip("+-").isdecimal() else whole if whole == float(text) else text
    except (ValueError, OverflowError):  # a name, or infinity
        return text


def numbered(labels: np.ndarray | Sequence[int | str]) -> tuple[tuple[int | str, ...], Integer[Tensor, " N"]]:
    """Numbers classes in the order of their names, or integers by size.

    Args:
        labels: `(N,)`: integers of any size, or names.

    Returns:
        The classes, integers if all are, and the number of each label's class, 0, 1, ....

    Example:
        >>> numbered(["rose", "lily", "rose"])
        (('lily', 'rose'), tensor([1, 0, 1]))
        >>> numbered(np.array([75002, 75000]))
        ((75000, 75002), tensor([1, 0]))
    """
    if isinstance(labels, np.ndarray):
        given, whole = labels, labels.dtype.kind in "iub"
    else:  # as objects: integers may be larger than NumPy's
        whole = all(isinstance(label, int) for label in labels)
        given = np.array(labels if whole else [str(label) for label in labels], dtype=object)
    classes, number = np.unique(given, return_inverse=True)
    return tuple(int(c) if whole else str(c) for c in classes), torch.from_numpy(number.reshape(-1).astype(np.int64))
