"""Gradient estimators: what training follows, kept separate from the bound's value."""

from collections.abc import Callable
from typing import Any

from subo.core.estimator import GradientEstimator, Pathwise, check_path
from subo.gradients.pathwise import DReG, StickingTheLanding
from subo.gradients.score_function import VIMCO, ScoreFunction, WakePhi
from subo.gradients.straight_through import GumbelSoftmax, ReinMax, StraightThrough

__all__ = [
    "ESTIMATORS",
    "VIMCO",
    "DReG",
    "GradientEstimator",
    "GumbelSoftmax",
    "Pathwise",
    "ReinMax",
    "ScoreFunction",
    "StickingTheLanding",
    "StraightThrough",
    "WakePhi",
    "check_path",
]


def _score_function(*, baseline: Any, normalize_signal: bool) -> GradientEstimator:
    return ScoreFunction(baseline, normalize=normalize_signal)


ESTIMATORS: dict[str, Callable[..., GradientEstimator]] = {
    "pathwise": Pathwise,
    "sticking-the-landing": StickingTheLanding,
    "dreg": DReG,
    "vimco": VIMCO,
    "score-function": _score_function,
    "wake-phi": WakePhi,
    "straight-through": StraightThrough,
    "reinmax": ReinMax,
    "gumbel-softmax": GumbelSoftmax,
}
"""The estimators by name; the keywords of each are the options that it takes."""
