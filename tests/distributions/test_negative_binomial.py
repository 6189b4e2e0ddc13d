"""The negative binomial against scipy's, and against 60 digits where scipy's has few."""

import itertools
import math
import subprocess
import sys
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import nbinom, poisson
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from subo.distributions import negative_binomial
from subo.distributions.negative_binomial import NegativeBinomial
from subo.runtime.host_reads import NoHostReads

COUNTS = (0, 1, 7, 150, 10**4, 10**6)
MEANS = (1e-3, 0.5, 7.0, 160.0, 1.003e4, 1e6)
DISPERSIONS = (1e-25, 1e-12, 1e-6, 1e-3, 0.0156, 0.01563, 0.125, 0.5, 1.0, 10.0, 1e4)


def log_prob(x, log_mean, a):
    m, r = mpmath.exp(log_mean), 1 / a
    return (
        mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
        + x * mpmath.log(a * m) - (x + r) * mpmath.log1p(a * m)
    )  # fmt: skip


def slopes(x, log_mean, a):
    """The derivatives of the logarithm in the mean's logarithm and in the dispersion."""
    m, r = mpmath.exp(log_mean), 1 / a
    by_size = mpmath.digamma(x + r) - mpmath.digamma(r) - mpmath.log1p(a * m) + (m - x) / (r + m)
    return (x - m) / (1 + a * m), -(r**2) * by_size


@pytest.mark.parametrize("dispersion", DISPERSIONS)
def test_the_log_probability_and_its_gradient_have_their_digits_at_any_count(dispersion: float):
    x, mean = map(torch.tensor, zip(*itertools.product(map(float, COUNTS), MEANS), strict=True))
    log_mean = mean.double().log().requires_grad_()
    a = torch.full_like(log_mean, dispersion).requires_grad_()
    value = NegativeBinomial(log_mean, a).log_prob(x)
    found = (value, *torch.autograd.grad(value.sum(), (log_mean, a)))
    with mpmath.workdps(120):
        rows = torch.stack([x, log_mean.detach(), a.detach()], 1).tolist()
        points = [tuple(map(mpmath.mpf, row)) for row in rows]
        truth = [[float(log_prob(*point)), *map(float, slopes(*point))] for point in points]
    for one, other in zip(found, torch.tensor(truth, dtype=torch.float64).unbind(1), strict=True):
        assert_close(one.detach(), other, rtol=2e-9, atol=1e-9)


def test_pieces_of_any_shape_and_mixed_dispersions_are_the_whole(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    x, log_mean = torch.poisson(torch.full((1, 4, 5), 3.0)), torch.randn(3, 4, 5, dtype=torch.float64)
    for shape in ((), (5,), (4, 1), (3, 4, 5)):
        a = (torch.rand(shape, dtype=torch.float64) - 0.2).clamp(min=0)  # some small, some not
        found = []
        for size in (1 << 15, 7, 1):
            monkeypatch.setattr(negative_binomial, "_AT_A_TIME", size)
            inputs = log_mean.clone().requires_grad_(), a.clone().requires_grad_()
            value = NegativeBinomial(*inputs).log_prob(x)
            found.append((value.detach(), *torch.autograd.grad(value.square().sum(), inputs)))
        for other in found[1:]:
            assert_close(other, found[0])
        each = [NegativeBinomial(m, b).log_prob(y) for y, m, b in zip(*everywhere(x, log_mean, a), strict=True)]
        assert_close(torch.stack(each).reshape(3, 4, 5), found[0][0])


def everywhere(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.flatten() for tensor in torch.broadcast_tensors(*tensors)]


@pytest.mark.parametrize("dispersion", [0.0, 1e-30, 1e-16, 1e-12, 1e-3, 0.1, 3.0])
def test_mixed_second_derivatives_do_not_depend_on_their_order(dispersion: float):
    x = torch.tensor([0.0, 3.0, 150.0], dtype=torch.float64)
    log_mean = torch.full((3,), 5.0, dtype=torch.float64, requires_grad=True)
    a = torch.full((3,), dispersion, dtype=torch.float64, requires_grad=True)
    value = NegativeBinomial(log_mean, a).log_prob(x).sum()
    slope, slope_in_a = torch.autograd.grad(value, (log_mean, a), create_graph=True)
    (one,) = torch.autograd.grad(slope.sum(), a, retain_graph=True)
    (other,) = torch.autograd.grad(slope_in_a.sum(), log_mean)
    m = math.exp(5)
    assert_close(one, (m - x) * m / (1 + dispersion * m) ** 2, rtol=1e-9, atol=1e-9)
    assert_close(other, one, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_it_is_compiled_in_one_graph():
    """In a process of its own, since shape checks cannot be compiled."""
    program = """
import torch
from subo.distributions.negative_binomial import NegativeBinomial

def value(x, log_mean, a):
    return NegativeBinomial(log_mean, a).log_prob(x).sum()

x, log_mean, a = torch.ones(300, 200), torch.randn(300, 200), torch.rand(200)
found = []
for step in (value, torch.compile(value, fullgraph=True, backend="aot_eager")):
    inputs = [tensor.clone().requires_grad_() for tensor in (log_mean, a)]
    step(x, *inputs).backward()
    found.append([tensor.grad for tensor in inputs])
for one, other in zip(*found):
    torch.testing.assert_close(one, other)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dispersion", [1e-3, 0.0156, 0.01563, 0.5])
def test_second_derivatives_are_those_of_the_first(dispersion: float):
    x = torch.tensor([0.0, 1.0, 7.0])
    log_mean = torch.tensor([-0.5, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    a = torch.full((3,), dispersion, dtype=torch.float64, requires_grad=True)

    def log_prob(log_mean: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return NegativeBinomial(log_mean, a).log_prob(x)

    step: dict[str, Any] = {"eps": 1e-6, "atol": 1e-5}
    assert torch.autograd.gradcheck(log_prob, (log_mean, a), **step)
    assert torch.autograd.gradgradcheck(log_prob, (log_mean, a), **step)


def test_it_is_mapped_over_stacked_parameters_and_compared_without_looking_at_numbers():
    x, log_mean = torch.arange(4.0), torch.randn(3, 4, dtype=torch.float64)
    a = torch.tensor([0.0, 0.01, 2.0], dtype=torch.float64)
    mapped = torch.func.vmap(lambda m, b: NegativeBinomial(m, b).log_prob(x))(log_mean, a)
    assert_close(mapped, NegativeBinomial(log_mean, a[:, None]).log_prob(x))
    with NoHostReads():
        unread = NegativeBinomial(log_mean, a[2]).log_prob(x)
    assert_close(unread, NegativeBinomial(log_mean, a[2]).log_prob(x), rtol=0, atol=0)


def test_a_step_keeps_no_more_than_its_inputs():
    kept: list[int] = []
    log_mean = torch.randn(40, 50, requires_grad=True)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        NegativeBinomial(log_mean, torch.rand(50, requires_grad=True)).log_prob(torch.ones(40, 50))
    assert sorted(kept) == [50, 2000, 2000]


def test_it_is_scipys():
    rng = np.random.default_rng(0)
    mean, a, x = rng.gamma(2, 10, 200), rng.gamma(1, 1, 200), rng.integers(0, 60, 200)
    found = NegativeBinomial(torch.tensor(mean).log(), torch.tensor(a))
    assert_close(found.log_prob(torch.tensor(x).double()).numpy(), nbinom.logpmf(x, 1 / a, 1 / (1 + a * mean)))
    truth = nbinom.stats(1 / a, 1 / (1 + a * mean))
    assert_close((found.mean.numpy(), found.variance.numpy()), truth)


@pytest.mark.parametrize("dispersion", [0.0, 1e-300, 1e-18])
def test_without_dispersion_it_is_a_poisson_whose_gradient_in_the_dispersion_is_finite(dispersion: float):
    x = torch.arange(30).double()
    a = torch.full_like(x, dispersion).requires_grad_()
    value = NegativeBinomial(torch.full_like(x, 7.0).log(), a).log_prob(x)
    assert_close(value.detach().numpy(), poisson.logpmf(x.numpy(), 7.0), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(value.sum(), a)
    assert_close(slope, ((x - 7).square() - x) / 2)  # the first term of the logarithm's series


@pytest.mark.parametrize("dtype, largest", [(torch.float32, 80.0), (torch.float64, 700.0)], ids=str)
@pytest.mark.parametrize("dispersion", [0.0, 1e-30, 0.1, 1.0, 1e30])
def test_it_is_finite_at_extreme_parameters(dtype: torch.dtype, largest: float, dispersion: float):
    log_mean = torch.tensor([-1e6, -200.0, -100.0, largest], dtype=dtype).requires_grad_()
    a = torch.full_like(log_mean, dispersion).requires_grad_()
    value = NegativeBinomial(log_mean, a).log_prob(torch.tensor([0.0, 1.0, 1000.0], dtype=dtype)[:, None])
    slope, by_dispersion = torch.autograd.grad(value.sum(), (log_mean, a))
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert by_dispersion[:3].isfinite().all()
    assert not by_dispersion.isnan().any()  # half the square of a mean of exp(80) is more than float32 holds
    assert value.dtype == slope.dtype == by_dispersion.dtype == dtype


@pytest.mark.parametrize("mean, dispersion", [(3.0, 0.5), (0.2, 5.0), (20.0, 1e-3), (7.0, 0.0), (1e7, 2.0)])
def test_its_samples_are_scipys(mean: float, dispersion: float):
    torch.manual_seed(0)
    p = NegativeBinomial(torch.tensor(mean).double().log(), torch.tensor(dispersion).double())
    x = p.sample((20_000,)).numpy()
    oracle = poisson(mean) if dispersion == 0 else nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    for level in np.quantile(x, [0.02, 0.2, 0.5, 0.8, 0.98]):
        share = oracle.cdf(level)
        assert abs((x <= level).mean() - share) < 5 * np.sqrt(share * (1 - share) / len(x))


def test_a_mean_beyond_floats_has_a_finite_gradient():
    log_mean, dispersion = (torch.tensor(value, requires_grad=True) for value in (800.0, 1.0))
    log_prob = NegativeBinomial(log_mean, dispersion).log_prob(torch.tensor(5.0))
    log_prob.backward()  # with r = 1 / a = 1: x log(a m) - (x + r) log(1 + a m) = -log m, where m is that large
    assert log_prob.item() == pytest.approx(-800)
    assert log_mean.grad is not None
    assert log_mean.grad.item() == pytest.approx(-1)
