"""Gradient estimators: what training follows, kept apart from the bound's value."""

from subo.core.estimator import GradientEstimator, Pathwise, check_path
from subo.gradients.pathwise import DReG, StickingTheLanding
from subo.gradients.score_function import VIMCO, ScoreFunction, WakePhi
from subo.gradients.straight_through import GumbelSoftmax, StraightThrough

__all__ = [
    "VIMCO",
    "DReG",
    "GradientEstimator",
    "GumbelSoftmax",
    "Pathwise",
    "ScoreFunction",
    "StickingTheLanding",
    "StraightThrough",
    "WakePhi",
    "check_path",
]
