"""Fit, measure and explore deep latent-variable models by variational inference."""

from subo.bounds import ELBO, IWAE, MIWAE, Renyi
from subo.conditionals import Conditional, Local
from subo.errors import InputError
from subo.families import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    FullRankGaussian,
    Gaussian,
    Laplace,
    Poisson,
)
from subo.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.gradients import GradientEstimator, Pathwise
from subo.linear_gaussian import probabilistic_pca
from subo.model import VAE, Draw, Factor, LatentVariableModel
from subo.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.objective import Loss, Objective
from subo.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

__all__ = [
    "ELBO",
    "IWAE",
    "MIWAE",
    "VAE",
    "Bernoulli",
    "Categorical",
    "Conditional",
    "ContinuousBernoulli",
    "Draw",
    "Factor",
    "FlowPrior",
    "FullRankGaussian",
    "Gaussian",
    "GaussianMixture",
    "GradientEstimator",
    "InputError",
    "InverseAutoregressiveFlow",
    "Laplace",
    "LatentVariableModel",
    "Local",
    "Loss",
    "NeuralSplineFlow",
    "Objective",
    "Pathwise",
    "Poisson",
    "Renyi",
    "StandardNormal",
    "VampPrior",
    "conv_decoder",
    "conv_encoder",
    "mlp",
    "probabilistic_pca",
    "residual_mlp",
]
