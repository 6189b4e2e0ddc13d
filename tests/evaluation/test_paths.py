"""Paths in latent space: against a decoder whose shortest paths are known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from subo import VAE, Conditional, Gaussian, InputError, StandardNormal
from subo.evaluation.paths import interpolate, path_energy, traverse


class Polar(nn.Module):
    """Radius and angle to a point of the plane, where shortest paths are straight."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], 1)


def model_of(network: nn.Module) -> VAE:
    likelihood = Conditional(Gaussian((2,), 1.0), network)
    return VAE(StandardNormal(2), likelihood, Conditional(Gaussian((2,)), nn.Linear(2, 4))).double()


def test_a_geodesic_of_polar_coordinates_is_a_straight_line_of_constant_speed():
    model = model_of(Polar())
    ends = torch.tensor([[1.0, 0.0], [2.0, math.pi / 2]], dtype=torch.float64)
    path = interpolate(model, *ends, num_points=5, kind="geodesic")
    share = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(1)
    points = (1 - share) * torch.tensor([[1.0, 0.0]]) + share * torch.tensor([[0.0, 2.0]])
    assert_close(Polar()(path), points, atol=1e-4, rtol=0)
    assert_close(path[:, 1], torch.atan2(points[:, 1], points[:, 0]), atol=1e-4, rtol=0)
    straight = interpolate(model, *ends, num_points=33)
    fine = interpolate(model, *ends, num_points=33, kind="geodesic")
    assert path_energy(model, fine).item() == pytest.approx(2.5, abs=1e-6)  # half of the distance's square
    assert path_energy(model, straight) > 2.6


def test_a_linear_decoder_has_straight_geodesics():
    model = model_of(nn.Linear(2, 2))
    ends = torch.tensor([[1.0, 0.0], [-2.0, 3.0]], dtype=torch.float64)
    assert_close(interpolate(model, *ends, kind="geodesic"), interpolate(model, *ends), atol=1e-6, rtol=0)


def test_a_spherical_path_turns_evenly_and_grows_evenly():
    model = model_of(nn.Linear(2, 2))
    start, end = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 3.0]).double()
    path = interpolate(model, start, end, num_points=4, kind="spherical")
    assert_close(path.norm(dim=1), torch.tensor([1.0, 5 / 3, 7 / 3, 3.0]).double())
    assert_close(torch.atan2(path[:, 1], path[:, 0]), torch.linspace(0, math.pi / 2, 4).double())
    for other in (2 * start, -start, torch.zeros(2).double()):  # no single great circle
        assert_close(
            interpolate(model, start, other, kind="spherical"), interpolate(model, start, other), atol=1e-12, rtol=0
        )


def test_a_traversal_moves_one_dimension():
    points = traverse(torch.tensor([1.0, 2.0, 3.0]), 1, num_points=5, reach=2)
    assert_close(points[:, 1], torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert bool((points[:, [0, 2]] == torch.tensor([1.0, 3.0])).all())


def test_what_is_no_path_is_refused():
    model = model_of(nn.Linear(2, 2))
    with pytest.raises(InputError, match="at least two points"):
        interpolate(model, torch.zeros(2), torch.ones(2), num_points=1)
    with pytest.raises(InputError, match="two vectors of one size"):
        interpolate(model, torch.zeros(2), torch.ones(3))
