"""Probabilistic PCA in five dimensions and two latents, whose evidence, posterior and ELBO are known exactly."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.models.probabilistic_pca import LinearGaussian, MeanFieldPosterior
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian
from subo.parts.priors import StandardNormal

D, d = 5, 2


def data(num: int = 60) -> Tensor:
    """Correlated data with a mean of its own."""
    mixing = torch.randn(D, D, dtype=torch.float64)
    return torch.randn(num, D, dtype=torch.float64) @ mixing + torch.arange(D)


def linear(log_scale: float = 0.0) -> LinearGaussian:
    """A likelihood whose exact posterior is correlated."""
    likelihood = LinearGaussian(D, d).double()
    with torch.no_grad():
        likelihood.weight.copy_(torch.linspace(-0.8, 1, D)[:, None] + 0.3 * torch.randn(D, d))
        likelihood.bias.normal_()
        likelihood.log_scale.fill_(log_scale)
    return likelihood


def model_with(posterior: nn.Module, likelihood: LinearGaussian) -> VAE:
    return VAE(StandardNormal(d), likelihood, posterior).double()


def exact_elbo(likelihood: LinearGaussian, q: Distribution, x: Tensor) -> Tensor:
    """The ELBO of a diagonal Gaussian with both of its expectations done by hand."""
    m, s = q.mean, q.stddev
    variance = (2 * likelihood.log_scale).exp()
    squares = (x - m @ likelihood.weight.mT - likelihood.bias).square().sum(1)
    squares = squares + s.square() @ likelihood.weight.square().sum(0)
    log_likelihood = -(squares / variance + D * (2 * math.pi * variance).log()) / 2
    return log_likelihood - (m.square() + s.square() - 1 - 2 * s.log()).sum(1) / 2


def pca(posterior: nn.Module | None = None) -> VAE:
    """A linear model, by default with the best of diagonal posteriors."""
    likelihood = linear(-0.5)
    return model_with(posterior or MeanFieldPosterior(likelihood), likelihood)


def amortized(num_params: int = 2 * d, family: Any = None) -> Conditional:
    return Conditional(family or Gaussian((d,)), nn.Linear(D, num_params)).double()


def best_elbo(model: VAE, x: Tensor) -> Tensor:
    return exact_elbo(model.likelihood, MeanFieldPosterior(model.likelihood)(x), x).detach()
