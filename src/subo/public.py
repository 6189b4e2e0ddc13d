"""What ``import subo`` offers."""

import warnings
from typing import TYPE_CHECKING, Any

from subo.core.bounds import ELBO, IWAE, MIWAE, Renyi
from subo.core.draw import Draw, Factor, LatentVariableModel
from subo.core.objective import Loss, Objective
from subo.data.dataset import Data
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.errors import DivergedError, InputError, Interrupted
from subo.evaluation import compare, evaluate, impute, likelihood_regret, log_marginal, pooled
from subo.experiments.experiment import open_run
from subo.explorer.notebook import explore
from subo.gradients import (
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    Pathwise,
    ReinMax,
    ScoreFunction,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
)
from subo.inference.ascent import Ascent
from subo.inference.per_example import Inferred, infer
from subo.inference.semi_amortized import Refined
from subo.models.blocks import Block, BottomUp, Correction, PrecisionWeighted, Update
from subo.models.emission import Emission
from subo.models.graph import Child, Joint
from subo.models.hidden_markov import HiddenMarkov
from subo.models.ladder import Ladder
from subo.models.markov import Markov, MarkovDistribution
from subo.models.probabilistic_pca import probabilistic_pca
from subo.models.state_space import LinearGaussianStateSpace
from subo.models.vae import VAE
from subo.parts.columns import Columns
from subo.parts.conditionals import Conditional, Given, Local
from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.families import Bernoulli, Categorical, ContinuousBernoulli, OneHotCategorical, Poisson
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.parts.labels import ByLabel, Labelled, Stack
from subo.parts.location_scale import FullRankGaussian, Gaussian, Laplace, StudentT
from subo.parts.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.parts.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixture, StandardNormal, VampPrior
from subo.recipes.for_data import make
from subo.recipes.saving import load_model, save
from subo.training.bootstrap import bootstrap
from subo.training.fitting import fit
from subo.training.loop import train
from subo.training.python_runs import load_weights
from subo.training.settings import training_settings

if TYPE_CHECKING:
    from subo.sklearn import VariationalAutoencoder

__all__ = [
    "ELBO",
    "IWAE",
    "MIWAE",
    "VAE",
    "VIMCO",
    "Ascent",
    "Bernoulli",
    "BernoulliPrior",
    "Block",
    "BottomUp",
    "ByLabel",
    "Categorical",
    "CategoricalPrior",
    "Child",
    "Columns",
    "Conditional",
    "ContinuousBernoulli",
    "Correction",
    "CouplingFlow",
    "DReG",
    "Data",
    "DivergedError",
    "Draw",
    "Emission",
    "Factor",
    "FlowPrior",
    "FullRankGaussian",
    "Gaussian",
    "GaussianMixture",
    "Given",
    "GradientEstimator",
    "GumbelSoftmax",
    "HiddenMarkov",
    "Inferred",
    "InputError",
    "Interrupted",
    "InverseAutoregressiveFlow",
    "Joint",
    "Labelled",
    "Ladder",
    "Laplace",
    "LatentVariableModel",
    "LinearGaussianStateSpace",
    "Local",
    "Loss",
    "Markov",
    "MarkovDistribution",
    "NegativeBinomial",
    "NeuralSplineFlow",
    "Objective",
    "OneHotCategorical",
    "Pathwise",
    "Poisson",
    "PrecisionWeighted",
    "Refined",
    "ReinMax",
    "Renyi",
    "ScoreFunction",
    "Split",
    "Stack",
    "StandardNormal",
    "StickingTheLanding",
    "StraightThrough",
    "StudentT",
    "Update",
    "VampPrior",
    "VariationalAutoencoder",
    "WakePhi",
    "ZeroInflatedNegativeBinomial",
    "bootstrap",
    "compare",
    "conv_decoder",
    "conv_encoder",
    "evaluate",
    "explore",
    "fit",
    "impute",
    "infer",
    "likelihood_regret",
    "load_data",
    "load_model",
    "load_weights",
    "log_marginal",
    "make",
    "mlp",
    "open_run",
    "pooled",
    "probabilistic_pca",
    "residual_mlp",
    "save",
    "train",
    "training_settings",
]


_FORMER_NAMES = {"load": "load_data"}


def __getattr__(name: str) -> Any:
    """Imports the estimator on first use, since scikit-learn takes a second to import; resolves former names."""
    if name == "VariationalAutoencoder":
        from subo.sklearn import VariationalAutoencoder

        return VariationalAutoencoder
    if name in _FORMER_NAMES:
        now = _FORMER_NAMES[name]
        warnings.warn(f"subo.{name} is now subo.{now}; the old name will be removed", DeprecationWarning, stacklevel=3)
        return globals()[now]
    raise AttributeError(f"module 'subo' has no attribute '{name}'")
