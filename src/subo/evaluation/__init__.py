"""Measuring fitted models: functions of a model and data that return records."""

from subo.evaluation.cells import cell_scores
from subo.evaluation.comparison import Comparison, compare
from subo.evaluation.conformal import conformal_p_values, marked
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, ais
from subo.evaluation.evidence.bidirectional import Sandwich, bdmc
from subo.evaluation.evidence.importance import ImportanceEstimate, log_marginal
from subo.evaluation.evidence.prior_sampling import PriorEstimate, log_marginal_from_prior
from subo.evaluation.forecasting import Forecast, forecast
from subo.evaluation.gaps import Gaps, gaps
from subo.evaluation.imputation import Imputation, Pooled, impute, pooled
from subo.evaluation.latents.calibration import Calibration, calibrate
from subo.evaluation.latents.collapse import Verdict, verdict
from subo.evaluation.latents.disentanglement import Disentanglement, disentanglement
from subo.evaluation.latents.information import MutualInformation, mutual_information
from subo.evaluation.latents.probes import Probe, probe
from subo.evaluation.latents.total_correlation import TotalCorrelation, total_correlation
from subo.evaluation.latents.usage import LatentUsage, latent_usage, posterior_mean, posterior_means
from subo.evaluation.paths import interpolate, traverse
from subo.evaluation.reconstruction import decode, reconstruct
from subo.evaluation.regret import likelihood_regret
from subo.evaluation.scores import Scores, score
from subo.evaluation.summary import Evaluation, evaluate
from subo.evaluation.training_gap import TrainingGap, gap_over_training, models_over_training

__all__ = [
    "AnnealedEstimate",
    "Annealing",
    "Calibration",
    "Comparison",
    "Disentanglement",
    "Evaluation",
    "Forecast",
    "Gaps",
    "ImportanceEstimate",
    "Imputation",
    "LatentUsage",
    "MutualInformation",
    "Pooled",
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
    "cell_scores",
    "compare",
    "conformal_p_values",
    "decode",
    "disentanglement",
    "evaluate",
    "forecast",
    "gap_over_training",
    "gaps",
    "impute",
    "interpolate",
    "latent_usage",
    "likelihood_regret",
    "log_marginal",
    "log_marginal_from_prior",
    "marked",
    "models_over_training",
    "mutual_information",
    "pooled",
    "posterior_mean",
    "posterior_means",
    "probe",
    "reconstruct",
    "score",
    "total_correlation",
    "traverse",
    "verdict",
]
