"""Student's t against scipy's, against 60 digits, and against the normal distribution that it tends to."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm, t
from torch.testing import assert_close

from subo.distributions.student_t import StudentT

DEGREES = (0.5, 2.0, 2.1, 4.0, 10.0, 79.9, 80.1, 1e3, 1e6, 1e12)
POINTS = tuple(itertools.product((-1e8, -3.0, 0.0, 0.5, 40.0, 1e4), (1.5,), (1e-3, 1.0, 20.0)))


def log_prob(x, loc, scale, v):
    y = (x - loc) / scale
    constant = mpmath.loggamma((v + 1) / 2) - mpmath.loggamma(v / 2) - mpmath.log(mpmath.pi * v) / 2
    return constant - mpmath.log(scale) - (v + 1) / 2 * mpmath.log1p(y**2 / v)


def slopes(x, loc, scale, v):
    """The derivatives in the location, the scale and the logarithm of the degrees of freedom."""
    y = (x - loc) / scale
    weight = (v + 1) / (v + y**2)
    digammas = mpmath.digamma((v + 1) / 2) - mpmath.digamma(v / 2)
    by_degrees = digammas - 1 / v - mpmath.log1p(y**2 / v) + weight * y**2 / v
    return weight * y / scale, (weight * y**2 - 1) / scale, v * by_degrees / 2


@pytest.mark.parametrize("degrees", [0.5, 4.0, 1e6])
@pytest.mark.parametrize("x", [1e17, 1e18, 3e18, 1e25, -3e38])
def test_single_precision_has_the_density_of_all_its_numbers(degrees: float, x: float):
    point = torch.tensor(x, requires_grad=True)
    found = StudentT(torch.tensor(degrees), torch.tensor(0.5), torch.tensor(2.0)).log_prob(point)
    (slope,) = torch.autograd.grad(found, point)
    with mpmath.workdps(60):
        truth = log_prob(point.item(), 0.5, 2.0, mpmath.mpf(degrees))
        expected = slopes(point.item(), 0.5, 2.0, mpmath.mpf(degrees))[0]
    assert found.item() == pytest.approx(float(truth), rel=1e-6)
    assert slope.item() == pytest.approx(-float(expected), rel=1e-5, abs=1e-44)


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_log_density_and_its_gradient_have_their_digits(degrees: float):
    x, loc, scale = torch.tensor(POINTS, dtype=torch.float64).unbind(1)
    log_v = torch.full_like(x, degrees).log()
    parameters = [tensor.clone().requires_grad_() for tensor in (loc, scale, log_v)]
    value = StudentT(parameters[2].exp(), *parameters[:2]).log_prob(x)
    found = (value, *torch.autograd.grad(value.sum(), parameters))
    with mpmath.workdps(60):
        points = [[*map(mpmath.mpf, point), mpmath.exp(mpmath.mpf(log_v[0].item()))] for point in POINTS]
        truth = [[float(log_prob(*point)), *map(float, slopes(*point))] for point in points]
    rounding = 1e-15 * ((x - loc) / scale).square().clamp(max=30 * degrees)  # of terms that cancel as v grows
    allowed = (0, 0, 0, rounding)
    for one, other, more in zip(found, torch.tensor(truth, dtype=torch.float64).unbind(1), allowed, strict=True):
        assert ((one - other).abs() <= 1e-11 * (1 + other.abs()) + more).all()


def test_it_is_scipys():
    rng = np.random.default_rng(0)
    v, loc, scale, x = rng.gamma(2, 3, 200) + 2, rng.normal(size=200), rng.gamma(2, 1, 200), 5 * rng.normal(size=200)
    p = StudentT(*map(torch.tensor, (v, loc, scale)))
    assert_close(p.log_prob(torch.tensor(x)).numpy(), t.logpdf(x, v, loc, scale))
    assert_close((p.mean.numpy(), p.variance.numpy()), t.stats(v, loc, scale))


def test_of_a_million_degrees_it_is_the_normal_in_single_precision_too():
    x = torch.linspace(-4, 4, 9)
    p = StudentT(torch.tensor(1e6), torch.zeros(9), torch.ones(9))
    assert_close(p.log_prob(x).numpy(), norm.logpdf(x.numpy()).astype(np.float32), rtol=0, atol=1e-4)
    assert_close(p.log_prob(x).numpy(), t.logpdf(x.numpy(), 1e6).astype(np.float32), rtol=0, atol=1e-6)


@pytest.mark.parametrize("degrees", [2.5, 10.0])
def test_its_tails_fall_as_a_power_and_pull_less_the_farther_they_are(degrees: float):
    x = torch.tensor([1e6, 1e8], dtype=torch.float64)
    loc = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    value = StudentT(torch.tensor(degrees), loc, torch.ones(2, dtype=torch.float64)).log_prob(x)
    (slope,) = torch.autograd.grad(value.sum(), loc)
    assert (value[1] - value[0]).item() == pytest.approx(-(degrees + 1) * np.log(100), rel=1e-9)
    assert_close(slope, (degrees + 1) / x)


@pytest.mark.parametrize("degrees", [2.1, 5.0, 1e4])
def test_its_samples_are_scipys_and_move_with_its_parameters(degrees: float):
    torch.manual_seed(0)
    loc, scale = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (2.0, 3.0))
    x = StudentT(torch.tensor(degrees, dtype=torch.float64), loc, scale).rsample(torch.Size([20_000]))
    noise = ((x - loc) / scale).detach()
    assert kstest(noise.numpy(), t(degrees).cdf).pvalue > 1e-4
    by_loc, by_scale = torch.autograd.grad(x.sum(), (loc, scale))
    assert_close((by_loc, by_scale), (torch.full_like(loc, 20_000), noise.sum()))


def test_samples_move_with_the_degrees_of_freedom_as_their_quantile_does():
    """``E[d/dv f(x)]`` along the path is the derivative of ``E[f]``, here of ``f = log(1 + x^2)`` by quadrature."""
    torch.manual_seed(0)
    v = torch.full((200_000,), 3.0, dtype=torch.float64, requires_grad=True)
    x = StudentT(v, torch.zeros_like(v), torch.ones_like(v)).rsample()
    (slope,) = torch.autograd.grad(x.square().log1p().sum(), v)

    def mean(v):
        return 2 * mpmath.quad(lambda x: mpmath.log1p(x**2) * mpmath.exp(log_prob(x, 0, 1, v)), [0, mpmath.inf])

    truth = float(mpmath.diff(mean, mpmath.mpf(3)))
    assert abs(slope.mean() - truth) < 5 * slope.std() / len(v) ** 0.5
    assert abs(truth) > 20 * slope.std() / len(v) ** 0.5


def test_an_expanded_one_has_the_same_density():
    p = StudentT(torch.tensor(3.0), torch.randn(4), torch.tensor(2.0))
    wide, x = p.expand((3, 4)), torch.randn(3, 4)
    assert wide.batch_shape == (3, 4)
    assert_close(wide.log_prob(x), p.log_prob(x))
