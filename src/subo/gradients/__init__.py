"""Gradient estimators: what training follows, kept apart from the bound's value."""

from subo.gradients.discrete import GumbelSoftmax, StraightThrough
from subo.gradients.estimator import GradientEstimator
from subo.gradients.pathwise import DReG, Pathwise, StickingTheLanding, check_path
from subo.gradients.score import VIMCO, ScoreFunction, WakePhi

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
