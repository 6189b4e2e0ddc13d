"""A flow per example: its maps against automatic differentiation, quadrature and its base."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from subo import VAE, Conditional, FullRankGaussian, Gaussian, InputError, StandardNormal, infer, mlp
from subo.distributions.flow import Flow
from subo.inference.ascent import Ascent
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.families import Family


def flow(
    dim: int = 3, num_data: int = 2, base: Family | None = None, size: float = 1.0, **options
) -> tuple[CouplingFlow, Flow]:
    """A family, and distributions far from its plainest."""
    family = CouplingFlow((dim,), base=base, **options).double()
    q = family(size * torch.randn(num_data, family.num_params, dtype=torch.float64))
    assert isinstance(q, Flow)
    return family, q


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("transforms", [1, 2, 5])
def test_the_determinant_is_that_of_the_jacobian_and_the_inverse_leads_back(dim: int, transforms: int):
    _, q = flow(dim, 2, transforms=transforms, hidden=4)
    maps: Any = q.transform
    noise = torch.randn(2, dim, dtype=torch.float64)
    z, log_det = maps.call_and_ladj(noise)
    back, log_det_back = maps.inv.call_and_ladj(z)  # pyright: ignore
    torch.testing.assert_close(back, noise)
    torch.testing.assert_close(log_det_back, -log_det)
    jacobian: Any = torch.autograd.functional.jacobian(lambda e: maps.call_and_ladj(e)[0], noise)
    for i in range(2):
        torch.testing.assert_close(torch.linalg.slogdet(jacobian[i, :, i]).logabsdet, log_det[i])
        assert torch.equal(jacobian[i, :, 1 - i], torch.zeros(dim, dim, dtype=torch.float64))  # data do not mix
    assert not torch.allclose(log_det, torch.zeros(2, dtype=torch.float64), atol=0.01)


@pytest.mark.parametrize("base", [Gaussian, FullRankGaussian])
def test_the_density_integrates_to_one_and_its_samples_follow_it(base):
    """By quadrature: with a determinant of the wrong sign it would not."""
    _, q = flow(2, 1, base=base((2,)), size=0.5, hidden=4)
    noisy, _ = q.rsample_and_log_prob((20_000,))
    center, spread = noisy.mean((0, 1)), noisy.std((0, 1)).max()
    axis = torch.linspace(-14, 14, 1001, dtype=torch.float64) * spread
    grid = torch.cartesian_prod(axis, axis)[:, None] + center
    density = (q.log_prob(grid)[:, 0] + 2 * (axis[1] - axis[0]).log()).exp()
    assert density.sum().item() == pytest.approx(1, abs=1e-3)
    values, truth = (noisy[:, 0] - center).clamp(-3, 3), density @ (grid[:, 0] - center).clamp(-3, 3) / density.sum()
    assert ((values.mean(0) - truth).abs() < 5 * values.std(0) / math.sqrt(len(values)) + 1e-3).all()


def test_samples_come_with_the_density_that_log_prob_gives_them():
    _, q = flow(4, 3)
    z, log_q = q.rsample_and_log_prob((7, 2))
    assert z.shape == (7, 2, 3, 4)
    assert log_q.shape == (7, 2, 3)
    torch.testing.assert_close(q.log_prob(z), log_q)
    torch.testing.assert_close(q.log_prob(z[0, 0])[1], log_q[0, 0, 1])  # each example by its own maps
    torch.testing.assert_close(q.log_prob(z[:, :, :1]), q.log_prob(z[:, :, :1].expand(7, 2, 3, 4)))


def test_a_batch_of_one_expands():
    _, q = flow(3, 1)
    wide = q.expand(torch.Size([5]))
    z, log_q = wide.rsample_and_log_prob((4,))
    assert z.shape == (4, 5, 3)
    torch.testing.assert_close(q.log_prob(z), log_q)


@pytest.mark.parametrize("base", [Gaussian((3,), min_scale=1e-2), FullRankGaussian((3,))])
def test_around_the_parameters_of_the_base_it_is_the_base(base):
    family = CouplingFlow((3,), base=base).double()
    params = torch.randn(4, base.num_params, dtype=torch.float64)
    z = torch.randn(6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(family(family.around(params)).log_prob(z), base(params).log_prob(z))
    assert family.around(params).shape == (4, family.num_params)


def test_every_parameter_has_a_gradient_but_for_the_first_layers_at_zero():
    family = CouplingFlow((2,), transforms=2, hidden=3).double()
    for start, alive in ((0.0, 4 + 2 * 4 * 2), (0.1, family.num_params)):
        params = torch.full((1, family.num_params), start, dtype=torch.float64, requires_grad=True)
        z, log_q = family(params).rsample_and_log_prob((500,))  # pyright: ignore
        (slope,) = torch.autograd.grad((z.pow(3).sum(-1) + log_q).mean(), params)
        assert int((slope.abs() > 1e-9).sum()) == alive


def test_an_encoder_can_give_its_parameters_and_be_trained_through_them():
    family = CouplingFlow((2,), transforms=2, hidden=4)
    encoder = mlp(6, family.num_params, hidden=(8,))
    model = VAE(StandardNormal(2), Conditional(Gaussian((6,)), mlp(2, 12)), Conditional(family, encoder))
    draw = model.draw(torch.randn(5, 6), num_samples=3)
    draw.log_weight.mean().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


class Banana(torch.nn.Module):
    """``x ~ N(z_1 + z_0^2 - 1, 0.3^2)``: given x = 0 the posterior is a bow."""

    def forward(self, z: Tensor):
        loc = (z[:, 1] + z[:, 0].square() - 1).unsqueeze(1)
        scale = torch.full_like(loc, 0.3)
        return torch.distributions.Independent(torch.distributions.Normal(loc, scale, validate_args=False), 1)


@pytest.mark.slow
def test_fitted_to_a_bent_posterior_it_comes_nearer_than_any_gaussian():
    model = VAE(StandardNormal(2), Banana(), Conditional(Gaussian((2,)), mlp(1, 4))).double()
    x = torch.zeros(1, 1, dtype=torch.float64)
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None]
    exact = model.log_joint(x, z)[:, 0].logsumexp(0) + 2 * (axis[1] - axis[0]).log()
    full = infer(model, x, family=FullRankGaussian((2,)), ascent=Ascent(num_samples=32, steps=300))
    family = CouplingFlow((2,)).double()
    bent = infer(model, x, family=family, ascent=Ascent(num_samples=32, steps=400, learning_rate=0.03))
    values = bent.q.rsample_and_log_prob((20_000,))  # pyright: ignore
    weights = model.log_joint(x, values[0])[:, 0] - values[1][:, 0]
    error = (weights.std() / math.sqrt(len(weights))).item()
    assert full.bound[0] + 3 * error < weights.mean() < exact + 3 * error
    assert exact - weights.mean() < 0.3 * (exact - full.bound[0])


def test_what_it_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"at least two elements.*\(1,\)"):
        CouplingFlow((1,))
    with pytest.raises(InputError, match=r"vectors"):
        CouplingFlow((2, 3))
    with pytest.raises(InputError, match="transforms must be at least 1, not 0"):
        CouplingFlow((2,), transforms=0)
    with pytest.raises(InputError, match=r"base is over events of shape \(3,\)"):
        CouplingFlow((2,), base=Gaussian((3,)))
    with pytest.raises(InputError, match="num_params"):
        CouplingFlow((2,))(torch.zeros(4, 3))
