"""Measuring fitted models: functions of a model and data that return records."""

from subo.evaluation.annealed import AnnealedEstimate, ais
from subo.evaluation.bidirectional import Sandwich, bdmc
from subo.evaluation.calibration import Calibration, calibrate
from subo.evaluation.collapse import Verdict, verdict
from subo.evaluation.comparison import Comparison, compare
from subo.evaluation.forecasting import Forecast, forecast
from subo.evaluation.full import Depth, Findings, evaluate_fully
from subo.evaluation.gaps import Gaps, gaps
from subo.evaluation.importance import ImportanceEstimate, log_marginal
from subo.evaluation.information import MutualInformation, mutual_information
from subo.evaluation.numbers import Number, numbers, sentences
from subo.evaluation.prior_sampling import PriorEstimate, log_marginal_from_prior
from subo.evaluation.probes import Probe, probe
from subo.evaluation.summary import Evaluation, Scores, evaluate, score
from subo.evaluation.total_correlation import TotalCorrelation, total_correlation
from subo.evaluation.training_gap import TrainingGap, gap_over_training, models_over_training
from subo.evaluation.usage import LatentUsage, latent_usage, posterior_mean, posterior_means

__all__ = [
    "AnnealedEstimate",
    "Calibration",
    "Comparison",
    "Depth",
    "Evaluation",
    "Findings",
    "Forecast",
    "Gaps",
    "ImportanceEstimate",
    "LatentUsage",
    "MutualInformation",
    "Number",
    "PriorEstimate",
    "Probe",
    "Sandwich",
    "Scores",
    "TotalCorrelation",
    "TrainingGap",
    "Verdict",
    "ais",
    "bdmc",
    "calibrate",
    "compare",
    "evaluate",
    "evaluate_fully",
    "forecast",
    "gap_over_training",
    "gaps",
    "latent_usage",
    "log_marginal",
    "log_marginal_from_prior",
    "models_over_training",
    "mutual_information",
    "numbers",
    "posterior_mean",
    "posterior_means",
    "probe",
    "score",
    "sentences",
    "total_correlation",
    "verdict",
]
