"""Posteriors for given data: fitted to each example, or refined from an encoder's."""

from subo.inference.ascent import Ascent
from subo.inference.per_example import Inferred, infer
from subo.inference.semi_amortized import Refined

__all__ = ["Ascent", "Inferred", "Refined", "infer"]
