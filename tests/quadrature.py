"""A model with two latents and a skewed, curved posterior, all of whose integrals are known by quadrature.

Counts whose log-rates bend with z: ``p(z)`` is the standard normal, ``x_d | z ~ Poisson(exp(f_d(z)))``. Few counts make
the posterior lean to one side, which symmetric models would never tell from its mirror image.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from subo import VAE, Conditional, Poisson, StandardNormal

_GRID, _EDGE = 401, 7.0


class Rates(nn.Module):
    """``f(z)``: linear, mixed and quadratic."""

    def forward(self, z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return torch.stack([a, 0.5 * a + b, 0.3 * a.square() - b, 0.2 - 0.7 * a], dim=-1)


class Guess(nn.Module):
    """A plain normal about a rough guess of the latents: a posterior that is wrong in place, width and shape."""

    def __init__(self, scale: float = 0.6):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((2,), math.log(scale)))
        self.mixing = nn.Parameter(torch.tensor([[0.4, 0.1], [0.1, 0.4], [0.0, -0.4], [-0.3, 0.0]]))

    def forward(self, x: Tensor) -> Distribution:
        loc = x.log1p() @ self.mixing
        return Independent(Normal(loc, self.log_scale.exp().expand_as(loc), validate_args=False), 1)


def skewed_model(scale: float = 0.6) -> VAE:
    """The model, in double precision, with the rough posterior."""
    return VAE(StandardNormal(2), Conditional(Poisson((4,)), Rates()), Guess(scale)).double()


def skewed_data(num: int) -> Tensor:
    """Counts that the model draws."""
    return skewed_model().sample(num)[1].sample()


def grid() -> Tensor:
    """Latents ``(G, 2)`` of a square grid, wide enough for all that the prior holds."""
    axis = torch.linspace(-_EDGE, _EDGE, _GRID, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def log_cell() -> float:
    """Log of the area of a cell."""
    return 2 * math.log(2 * _EDGE / (_GRID - 1))


@torch.no_grad()
def exact_log_px(model: VAE, x: Tensor) -> Tensor:
    """``log p(x)``, ``(B,)``: the trapezoidal rule, whose error vanishes faster than any power of the cell's width."""
    z = grid()
    return torch.cat([model.log_joint(row[None], z[:, None])[:, 0].logsumexp(0, True) for row in x]) + log_cell()


@torch.no_grad()
def exact_moments(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, 2)`` and third central moment ``(B, 2)`` of p(z|x)."""
    z = grid()
    weight = torch.stack([model.log_joint(row[None], z[:, None])[:, 0].softmax(0) for row in x])
    mean = weight @ z
    return mean, torch.stack([w @ (z - m) ** 3 for w, m in zip(weight, mean, strict=True)])
