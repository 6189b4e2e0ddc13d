"""Distributions, and closed-form divergences between them, that torch lacks or has in a slower or less exact form."""

from subo.distributions.continuous_bernoulli import ContinuousBernoulli
from subo.distributions.discrete import Bernoulli, Categorical, OneHotCategorical, Poisson
from subo.distributions.flow import Flow
from subo.distributions.gaussian import Gaussian, StandardNormal
from subo.distributions.negative_binomial import NegativeBinomial
from subo.distributions.student_t import StudentT
from subo.distributions.zero_inflated import ZeroInflated

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Flow",
    "Gaussian",
    "NegativeBinomial",
    "OneHotCategorical",
    "Poisson",
    "StandardNormal",
    "StudentT",
    "ZeroInflated",
]
