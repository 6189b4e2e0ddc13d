"""Probabilistic PCA: the VAE with exactly known posterior, evidence and best fit.

``p(z) = N(0, I)``, ``p(x|z) = N(W z + b, s^2 I)``, and so with ``M = W^T W + s^2 I``

``log p(x) = log N(x; b, W W^T + s^2 I)`` and ``p(z|x) = N(M^-1 W^T (x - b), s^2 M^-1)``

(Tipping and Bishop, 1999, equations 3 to 8). It is an example, a benchmark, and the oracle of the tests.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from subo.errors import InputError
from subo.models.vae import VAE
from subo.parts.priors import StandardNormal
from subo.runtime.arguments import checked_arguments

__all__ = ["ExactPosterior", "LinearGaussian", "MeanFieldPosterior", "probabilistic_pca"]


class LinearGaussian(nn.Module):
    """The likelihood ``p(x|z) = N(W z + b, s^2 I)``, and what follows from it under a standard normal prior.

    Args:
        dim: Size D of x.
        latent_dim: Size d of z, below D.
    """

    def __init__(self, dim: int, latent_dim: int):
        super().__init__()
        if not 1 <= latent_dim < dim:
            raise InputError(f"probabilistic PCA needs 1 <= latent_dim < dim, not latent_dim={latent_dim}, dim={dim}")
        self.weight = nn.Parameter(torch.randn(dim, latent_dim) / latent_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z: Float[Tensor, "N d"]) -> Distribution:
        loc = z @ self.weight.mT + self.bias
        return Independent(
            Normal(loc, self.log_scale.exp().expand_as(loc), validate_args=False), 1, validate_args=False
        )

    def marginal(self) -> MultivariateNormal:
        """``p(x) = N(b, W W^T + s^2 I)``."""
        noise = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device) * (2 * self.log_scale).exp()
        return MultivariateNormal(self.bias, self.weight @ self.weight.mT + noise)

    def log_px(self, x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """The exact evidence, in nats; differentiable in the parameters."""
        return self.marginal().log_prob(x)

    def precision(self) -> Float[Tensor, "d d"]:
        """The exact posterior's precision, ``I + W^T W / s^2``: the same for every x."""
        eye = torch.eye(self.weight.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        return eye + self.weight.mT @ self.weight * (-2 * self.log_scale).exp()

    def posterior_mean(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B d"]:
        """The exact posterior's mean, ``M^-1 W^T (x - b)``."""
        projected = (x - self.bias) @ self.weight * (-2 * self.log_scale).exp()
        return torch.linalg.solve(self.precision(), projected.mT).mT

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "N D"]) -> "LinearGaussian":
        """Sets the parameters to those of maximum likelihood, in closed form, and returns the module.

        b is the mean; with the eigenvalues l and eigenvectors U of the data's covariance, ``s^2`` is the mean of the
        D - d smallest eigenvalues and ``W = U_d (L_d - s^2 I)^(1/2)`` (Tipping and Bishop, 1999, equations 7 and 8).

        Args:
            x: At least two examples.
        """
        if len(x) < 2:
            raise InputError(f"maximum likelihood needs at least two examples, not {len(x)}")
        latent_dim = self.weight.shape[1]
        values, vectors = torch.linalg.eigh((x - x.mean(0)).mT @ (x - x.mean(0)) / len(x))
        variance = values[:-latent_dim].mean().clamp(min=torch.finfo(x.dtype).tiny)
        self.weight.copy_(vectors[:, -latent_dim:] * (values[-latent_dim:] - variance).clamp(min=0).sqrt())
        self.bias.copy_(x.mean(0))
        self.log_scale.copy_(variance.log() / 2)
        return self


class ExactPosterior(nn.Module):
    """``q(z|x) = p(z|x)`` of a :class:`LinearGaussian`: with it the ELBO is log p(x), and every weight is p(x).

    Args:
        likelihood: The model's likelihood: the same module, not a copy.
    """

    def __init__(self, likelihood: LinearGaussian):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x: Float[Tensor, "B D"]) -> Distribution:
        mean = self.likelihood.posterior_mean(x)
        precision = self.likelihood.precision()
        return MultivariateNormal(mean, precision_matrix=precision.expand(len(x), *precision.shape))


class MeanFieldPosterior(nn.Module):
    """The best diagonal Gaussian for a :class:`LinearGaussian`: the exact mean, variances ``1 / precision_ii``.

    Minimizing ``KL(q || p(z|x))`` over diagonal q sets ``1 / variance_i`` to the i-th diagonal entry of the exact
    precision P, and leaves a gap of ``1/2 [sum_i log P_ii - log det P]`` nats, the same for every x.

    Args:
        likelihood: The model's likelihood: the same module, not a copy.
    """

    def __init__(self, likelihood: LinearGaussian):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x: Float[Tensor, "B D"]) -> Distribution:
        mean = self.likelihood.posterior_mean(x)
        scale = self.likelihood.precision().diagonal().rsqrt().expand_as(mean)
        return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)

    def gap(self) -> Float[Tensor, ""]:
        """``log p(x) - ELBO(x)`` in nats, in closed form."""
        precision = self.likelihood.precision()
        return 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision).logabsdet)


@checked_arguments
def probabilistic_pca(dim: int, latent_dim: int) -> VAE:
    """Probabilistic PCA as a VAE, with its exact posterior.

    Args:
        dim: Size D of x.
        latent_dim: Size d of z.

    Example:
        >>> x = torch.randn(100, 5)
        >>> model = probabilistic_pca(5, 2)
        >>> log_px = model.likelihood.fit(x).log_px(x)
        >>> torch.allclose(model.draw(x).log_weight[0], log_px, atol=1e-4)
        True
    """
    likelihood = LinearGaussian(dim, latent_dim)
    return VAE(StandardNormal(latent_dim), likelihood, ExactPosterior(likelihood))
