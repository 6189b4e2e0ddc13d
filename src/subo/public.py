"""What ``import subo`` offers."""

from typing import TYPE_CHECKING, Any

from subo.blocks import Block, BottomUp, Correction, PrecisionWeighted, Update
from subo.bounds import ELBO, IWAE, MIWAE, Renyi
from subo.conditionals import Conditional, Given, Local
from subo.conditioning import ByLabel, Labelled, Stack
from subo.errors import DivergedError, InputError, Interrupted
from subo.evaluation import compare, evaluate, log_marginal
from subo.families import Bernoulli, Categorical, ContinuousBernoulli, OneHotCategorical, Poisson
from subo.fitting import fit
from subo.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.gradients import (
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    Pathwise,
    ScoreFunction,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
)
from subo.graphs import Child, Joint
from subo.hidden_markov import HiddenMarkov
from subo.inference import Inferred, infer
from subo.ladder import Ladder
from subo.linear_gaussian import probabilistic_pca
from subo.local_flow import CouplingFlow
from subo.location_scale import FullRankGaussian, Gaussian, Laplace
from subo.markov import Markov, MarkovDistribution
from subo.model import VAE, Draw, Factor, LatentVariableModel
from subo.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.objective import Loss, Objective
from subo.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixture, StandardNormal, VampPrior
from subo.python_runs import load_weights
from subo.refinement import Refined
from subo.sources import load
from subo.state_space import LinearGaussianStateSpace
from subo.steps import Emission
from subo.training import train

if TYPE_CHECKING:
    from subo.autoencoder import VariationalAutoencoder

__all__ = [
    "ELBO",
    "IWAE",
    "MIWAE",
    "VAE",
    "VIMCO",
    "Bernoulli",
    "BernoulliPrior",
    "Block",
    "BottomUp",
    "ByLabel",
    "Categorical",
    "CategoricalPrior",
    "Child",
    "Conditional",
    "ContinuousBernoulli",
    "Correction",
    "CouplingFlow",
    "DReG",
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
    "NeuralSplineFlow",
    "Objective",
    "OneHotCategorical",
    "Pathwise",
    "Poisson",
    "PrecisionWeighted",
    "Refined",
    "Renyi",
    "ScoreFunction",
    "Stack",
    "StandardNormal",
    "StickingTheLanding",
    "StraightThrough",
    "Update",
    "VampPrior",
    "VariationalAutoencoder",
    "WakePhi",
    "compare",
    "conv_decoder",
    "conv_encoder",
    "evaluate",
    "fit",
    "infer",
    "load",
    "load_weights",
    "log_marginal",
    "mlp",
    "probabilistic_pca",
    "residual_mlp",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports the estimator when it is asked for: scikit-learn takes a second to import."""
    if name == "VariationalAutoencoder":
        from subo.autoencoder import VariationalAutoencoder

        return VariationalAutoencoder
    raise AttributeError(f"module 'subo' has no attribute '{name}'")
