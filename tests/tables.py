"""Models of tables with known answers: factor analysis of columns, and two bits that decide all cells."""

import torch
from torch import Tensor, nn

from subo.models.vae import VAE
from subo.parts.cells import Cells
from subo.parts.columns import Columns
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian
from subo.parts.networks import mlp
from subo.parts.priors import StandardNormal

__all__ = ["FactorAnalysis", "with_gaps"]


class FactorAnalysis:
    """``x = W z + b + s e`` with a standard normal z: the joint of any cells is normal, with known moments.

    Args:
        columns: Number of columns.
        latent_dim: Size of z.
    """

    def __init__(self, columns: int = 4, latent_dim: int = 2):
        kinds = ("real",) * columns
        family, decoder = Columns((columns,), columns=kinds), nn.Linear(latent_dim, columns)
        with torch.no_grad():
            decoder.weight.normal_()
            family.kinds[0].scale.raw.normal_()
        encoder = nn.Sequential(Cells(kinds), mlp(2 * columns, 2 * latent_dim, hidden=(8,)))
        q = Conditional(Gaussian((latent_dim,)), encoder)
        self.model = VAE(StandardNormal(latent_dim), Conditional(family, decoder), q)
        weight, scale = decoder.weight.detach(), family.kinds[0].scale.of().detach()
        self.mean, self.covariance = decoder.bias.detach(), weight @ weight.T + scale.square().diag()

    def sample(self, rows: int) -> Tensor:
        """Rows of the model."""
        noise = torch.randn(rows, len(self.mean)).to(self.mean)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T

    def log_px(self, row: Tensor) -> float:
        """The log-density of the observed cells."""
        known = ~row.isnan()
        if not known.any():
            return 0.0
        covariance = self.covariance[known][:, known]
        return torch.distributions.MultivariateNormal(self.mean[known], covariance).log_prob(row[known]).item()

    def missing(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the missing cells, given the observed ones."""
        gone, known = row.isnan(), ~row.isnan()
        gain = self.covariance[gone][:, known] @ torch.linalg.inv(self.covariance[known][:, known])
        mean = self.mean[gone] + gain @ (row[known] - self.mean[known])
        return mean, self.covariance[gone][:, gone] - gain @ self.covariance[known][:, gone]


def with_gaps(x: Tensor, share: float = 0.3) -> Tensor:
    """Rows with some of their cells missing at random."""
    return torch.where(torch.rand_like(x) < share, torch.nan, x)
