"""Parts of models: families, networks, priors and conditionals: modules whose call returns a Distribution."""

from subo.parts.conditionals import Conditional, Given, Local
from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.families import Bernoulli, Categorical, ContinuousBernoulli, Family, OneHotCategorical, Poisson
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.parts.labels import ByLabel, Labelled, Stack
from subo.parts.location_scale import FullRankGaussian, Gaussian, Laplace, StudentT
from subo.parts.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.parts.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixture, StandardNormal, VampPrior

__all__ = [
    "Bernoulli",
    "BernoulliPrior",
    "ByLabel",
    "Categorical",
    "CategoricalPrior",
    "Conditional",
    "ContinuousBernoulli",
    "CouplingFlow",
    "Family",
    "FlowPrior",
    "FullRankGaussian",
    "Gaussian",
    "GaussianMixture",
    "Given",
    "InverseAutoregressiveFlow",
    "Labelled",
    "Laplace",
    "Local",
    "NegativeBinomial",
    "NeuralSplineFlow",
    "OneHotCategorical",
    "Poisson",
    "Stack",
    "StandardNormal",
    "StudentT",
    "VampPrior",
    "ZeroInflatedNegativeBinomial",
    "conv_decoder",
    "conv_encoder",
    "mlp",
    "residual_mlp",
]
