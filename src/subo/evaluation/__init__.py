"""Measuring fitted models: functions of a model and data that return records."""

from subo.evaluation.importance import ImportanceEstimate, log_marginal
from subo.evaluation.summary import Evaluation, Scores, evaluate, score
from subo.evaluation.usage import LatentUsage, latent_usage, posterior_mean, posterior_means

__all__ = [
    "Evaluation",
    "ImportanceEstimate",
    "LatentUsage",
    "Scores",
    "evaluate",
    "latent_usage",
    "log_marginal",
    "posterior_mean",
    "posterior_means",
    "score",
]
