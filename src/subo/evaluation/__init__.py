"""Measuring fitted models: functions of a model and data that return records."""

from subo.evaluation.comparison import Comparison, compare
from subo.evaluation.importance import ImportanceEstimate, log_marginal
from subo.evaluation.information import MutualInformation, mutual_information
from subo.evaluation.summary import Evaluation, Scores, evaluate, score
from subo.evaluation.usage import LatentUsage, latent_usage, posterior_mean, posterior_means

__all__ = [
    "Comparison",
    "Evaluation",
    "ImportanceEstimate",
    "LatentUsage",
    "MutualInformation",
    "Scores",
    "compare",
    "evaluate",
    "latent_usage",
    "log_marginal",
    "mutual_information",
    "posterior_mean",
    "posterior_means",
    "score",
]
