"""Arrays for a page: packed into text, since JSON would write six letters for a byte."""

import base64
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Store", "packed"]

Precision = Literal["f16", "f32", "u8", "bits"]
_TYPES = {"f16": np.float16, "f32": np.float32, "u8": np.uint8, "bits": np.uint8}


def packed(values: Tensor | np.ndarray, precision: Precision = "f32") -> dict[str, Any]:
    """An array as its type, shape and little-endian numbers in base64.

    Args:
        values: The array.
        precision: Half precision for weights and coordinates, single for what densities are computed from, bytes for
            levels of pixels, and for eight bits each.

    Example:
        >>> packed(torch.tensor([[0.0, 1.0]]), "f16")
        {'type': 'f16', 'shape': [1, 2], 'base64': 'AAAAPA=='}
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    stored = np.ascontiguousarray(array.astype(np.dtype(_TYPES[precision]).newbyteorder("<")))
    stored = np.packbits(stored) if precision == "bits" else stored
    return {"type": precision, "shape": list(array.shape), "base64": base64.b64encode(stored.tobytes()).decode("ascii")}


class Store:
    """Numbers of a network, one after the other: operations refer to them by their position.

    Weights are kept in half precision, whose numbers have 11 binary digits and end at 65,504; larger ones, and what
    stands in the units of the data, in single.
    """

    def __init__(self):
        self._parts: dict[str, list[Tensor]] = {"f16": [], "f32": []}
        self._sizes = {"f16": 0, "f32": 0}

    def add(self, values: Tensor, *, exact: bool = False) -> list[Any]:
        """Keeps a tensor.

        Args:
            values: The tensor, of any shape.
            exact: Whether half precision is too little.

        Returns:
            Its precision and its position, ``["f16", 120]``.
        """
        flat = values.detach().flatten().cpu().float()
        coarse = not exact and bool((flat.abs() < torch.finfo(torch.float16).max).all())
        precision = "f16" if coarse else "f32"
        place = self._sizes[precision]
        self._parts[precision].append(flat)
        self._sizes[precision] += len(flat)
        return [precision, place]

    def as_json(self) -> dict[str, Any]:
        """All numbers, packed."""
        return {
            name: packed(torch.cat(parts) if parts else torch.zeros(0), name)  # pyright: ignore[reportArgumentType]
            for name, parts in self._parts.items()
        }
