"""Posteriors of given data: fitted to each example, or an encoder's, improved."""

from subo.inference.per_example import Inferred, infer
from subo.inference.semi_amortized import Refined

__all__ = ["Inferred", "Refined", "infer"]
