"""The four concepts: a draw, a bound on log p(x), a gradient estimator, and the objective that joins them."""

from subo.core.bounds import ELBO, IWAE, MIWAE, Bound, Renyi
from subo.core.draw import Draw, Factor, LatentVariableModel
from subo.core.estimator import GradientEstimator, Pathwise
from subo.core.objective import Loss, Objective

__all__ = [
    "ELBO",
    "IWAE",
    "MIWAE",
    "Bound",
    "Draw",
    "Factor",
    "GradientEstimator",
    "LatentVariableModel",
    "Loss",
    "Objective",
    "Pathwise",
    "Renyi",
]
