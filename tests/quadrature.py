"""A model with two latents and a skewed, curved posterior, all of whose integrals are known by quadrature.

Counts whose log-rates bend with z: ``p(z)`` is the standard normal, ``x_d | z ~ Poisson(exp(f_d(z)))``. Few counts make
the posterior lean to one side, which symmetric models would never tell from its mirror image.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from subo import VAE, Conditional, Poisson, StandardNormal
from subo.typing import Context

_GRID, _EDGE = 201, 7.0


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
def log_joint_on_grid(model: VAE, x: Tensor, context: Context | None = None) -> Tensor:
    """``log p(x, z)`` at every point, ``(G, B)``, for any model with two latents."""
    z, columns = grid(), []
    for i in range(len(x)):
        own = {name: tensor[i : i + 1] for name, tensor in (context or {}).items()}
        columns.append(model.log_joint(x[i : i + 1], z[:, None], own)[:, 0])
    return torch.stack(columns, dim=1)


def exact_log_px(model: VAE, x: Tensor, context: Context | None = None) -> Tensor:
    """``log p(x)``, ``(B,)``: the trapezoidal rule, whose error vanishes faster than any power of the cell's width."""
    return log_joint_on_grid(model, x, context).logsumexp(0) + log_cell()


def exact_moments(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, 2)`` and third central moment ``(B, 2)`` of p(z|x)."""
    weight = log_joint_on_grid(model, x).softmax(0).T
    mean = weight @ grid()
    return mean, torch.stack([w @ (grid() - m) ** 3 for w, m in zip(weight, mean, strict=True)])


def exact_samples(model: VAE, x: Tensor, num_samples: int) -> Tensor:
    """Samples ``(S, B, 2)`` of p(z|x): a point of the grid, and a place in its cell."""
    chosen = log_joint_on_grid(model, x).softmax(0).T.multinomial(num_samples, replacement=True).T
    return grid()[chosen] + (torch.rand(*chosen.shape, 2, dtype=torch.float64) - 0.5) * math.exp(log_cell() / 2)
