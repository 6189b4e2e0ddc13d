"""Counts with further zeros against scipy, in value, gradient, moments and samples."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch.testing import assert_close

from subo.distributions.negative_binomial import NegativeBinomial
from subo.distributions.zero_inflated import ZeroInflated

X = np.array([0, 0, 1, 7, 150, 10**6])
MEAN = np.array([1e-3, 5.0, 0.5, 7.0, 160.0, 1e6])
DISPERSION = np.array([0.3, 2.0, 1e-3, 0.5, 1.0, 0.1])


def inflated(mean, dispersion, logits) -> ZeroInflated:
    mean, dispersion, logits = (torch.as_tensor(value, dtype=torch.float64) for value in (mean, dispersion, logits))
    return ZeroInflated(NegativeBinomial(mean.log(), dispersion), logits)


def scipys(x, mean, dispersion, logits):
    pi = 1 / (1 + np.exp(-logits))
    return np.log(pi * (x == 0) + (1 - pi) * nbinom.pmf(x, 1 / dispersion, 1 / (1 + dispersion * mean)))


@pytest.mark.parametrize("logits", [-30.0, -1.0, 0.0, 2.5])
def test_it_is_scipys(logits: float):
    found = inflated(MEAN, DISPERSION, np.full(6, logits)).log_prob(torch.tensor(X).double())
    assert_close(found.numpy(), scipys(X, MEAN, DISPERSION, logits), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("x", [0, 3])
def test_its_gradient_is_that_of_scipys(x: int):
    point = np.array([0.7, 0.4, -0.3])  # log mean, log dispersion, logits
    inputs = torch.tensor(point, requires_grad=True)
    log_mean, log_dispersion, logits = inputs
    value = ZeroInflated(NegativeBinomial(log_mean, log_dispersion.exp()), logits).log_prob(torch.tensor(float(x)))
    (slope,) = torch.autograd.grad(value, inputs)

    def at(shifted):
        return scipys(x, np.exp(shifted[0]), np.exp(shifted[1]), shifted[2])

    steps = 1e-5 * np.eye(3)
    assert_close(slope.numpy(), np.array([(at(point + h) - at(point - h)) / 2e-5 for h in steps]), rtol=1e-8, atol=1e-9)


def test_its_probabilities_sum_to_one_and_give_its_moments():
    p, x = inflated(4.0, 0.5, -0.4), torch.arange(400).double()
    weight = p.log_prob(x).exp()
    mean = (weight * x).sum()
    assert_close(weight.sum().item(), 1.0)
    assert_close(p.mean, mean)
    assert_close(p.variance, (weight * (x - mean).square()).sum())


@pytest.mark.parametrize("mean, dispersion, logits", [(30.0, 1e-3, -3.0), (30.0, 1e-3, 3.0), (2.0, 1.5, -3.0)])
def test_its_mode_is_the_most_probable_count(mean: float, dispersion: float, logits: float):
    p = inflated(mean, dispersion, logits)
    assert int(p.mode) == int(p.log_prob(torch.arange(200).double()).argmax())


def test_its_samples_have_its_probabilities():
    torch.manual_seed(0)
    p = inflated(3.0, 0.5, 0.3).expand((2,))
    x = p.sample((20_000,))
    assert x.shape == (20_000, 2)
    for count in range(5):
        share = p.log_prob(torch.full((2,), float(count))).exp()
        error = (share * (1 - share) / len(x)).sqrt()
        assert ((x == count).double().mean(0) - share).abs().le(5 * error).all()


@pytest.mark.parametrize("logits", [-1e4, -200.0, 0.0, 200.0, 1e4])
@pytest.mark.parametrize("log_mean", [-1e3, 0.0, 80.0])
def test_it_is_finite_in_single_precision_at_extreme_parameters(logits: float, log_mean: float):
    inputs = torch.tensor([log_mean, 0.5, logits], requires_grad=True)
    value = ZeroInflated(NegativeBinomial(inputs[0], inputs[1]), inputs[2]).log_prob(torch.tensor([0.0, 1.0, 1e6]))
    (slope,) = torch.autograd.grad(value.sum(), inputs)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert slope.isfinite().all()


def test_without_further_zeros_it_is_the_distribution_itself():
    p = inflated(MEAN, DISPERSION, np.full(6, -np.inf))
    assert_close(p.log_prob(torch.tensor(X).double()), p.counts.log_prob(torch.tensor(X).double()))
    assert_close((p.mean, p.variance), (p.counts.mean, p.counts.variance))
