"""Mutual information under q and the aggregate posterior: quadrature, enumeration, identities."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from subo import VAE, Conditional, Draw, Gaussian, InputError, InverseAutoregressiveFlow, StandardNormal, mlp
from subo.data import Split
from subo.evaluation import information
from subo.evaluation.information import mutual_information


class Linear(nn.Module):
    """``q(z|x) = N(a x, s^2)``, in one dimension."""

    def __init__(self, slope: float, scale: float):
        super().__init__()
        self.slope, self.scale = slope, scale

    def forward(self, x: Tensor):
        loc = self.slope * x
        return Independent(Normal(loc, torch.full_like(loc, self.scale), validate_args=False), 1, validate_args=False)


class Bits(nn.Module):
    """Independent bits with logits linear in x, or without x."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor | None = None):
        logits = self.bias if x is None else x @ self.weight + self.bias
        return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def linear(slope: float = 1.5, scale: float = 0.4) -> VAE:
    likelihood = Conditional(Gaussian((1,)), nn.Linear(1, 2))
    return VAE(StandardNormal(1), likelihood, Linear(slope, scale)).double()


def numbers(n: int) -> Split:
    return Split(torch.randn(n, 1, dtype=torch.float64))


def by_quadrature(model: VAE, x: Tensor) -> tuple[float, float]:
    """``I(x; z)`` and ``KL(q(z) || p(z))``: the aggregate posterior of a finite set is a finite mixture."""
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_q = model.posterior(x).base_dist.log_prob(grid[:, None, None])[..., 0]  # (G, N)
    log_aggregate = log_q.logsumexp(1) - math.log(len(x))
    log_prior = Normal(0.0, 1.0).log_prob(grid)

    def integral(values: Tensor) -> float:
        return float(torch.trapezoid(values, grid))

    terms = (log_q.exp() * (log_q - log_aggregate[:, None])).mean(1)
    return integral(terms), integral(log_aggregate.exp() * (log_aggregate - log_prior))


@pytest.mark.parametrize("slope, scale", [(1.5, 0.4), (0.2, 1.0), (3.0, 0.01)])
def test_both_terms_agree_with_quadrature_in_one_dimension(slope: float, scale: float):
    model, split = linear(slope, scale), numbers(12)
    truth, marginal = by_quadrature(model, split.x)
    found = mutual_information(model, split, num_samples=2000)
    assert abs(found.value - truth) < 5 * found.standard_error + 1e-6
    assert abs(found.marginal_kl - marginal) < 5 * found.marginal_kl_se
    assert found.standard_error < 0.02
    assert found.num_data == 12
    assert found.num_samples == 2000
    assert found.ceiling == math.log(12)


def test_discrete_latents_agree_with_enumeration():
    weight = torch.randn(2, 3, dtype=torch.float64)
    prior = Bits(torch.zeros(0), torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64))
    posterior = Bits(2 * weight, torch.zeros(3, dtype=torch.float64))
    model = VAE(prior, Conditional(Gaussian((2,)), mlp(3, 4)), posterior).double()
    x = torch.randn(9, 2, dtype=torch.float64)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    log_q = posterior(x).log_prob(states[:, None].expand(8, 9, 3))
    aggregate = log_q.exp().mean(1)
    truth = (log_q.exp() * (log_q - aggregate.log()[:, None])).sum(0).mean()
    marginal = (aggregate * (aggregate.log() - prior().log_prob(states))).sum()
    found = mutual_information(model, Split(x), num_samples=5000)
    assert abs(found.value - truth) < 5 * found.standard_error
    assert abs(found.marginal_kl - marginal) < 5 * found.marginal_kl_se


def test_the_rate_is_their_sum_and_that_of_the_posterior():
    model, split = linear(), numbers(50)
    found = mutual_information(model, split, num_samples=500)
    assert found.rate == pytest.approx(found.value + found.marginal_kl, abs=1e-12)
    exact = kl_divergence(model.posterior(split.x), Independent(Normal(torch.zeros(1), torch.ones(1)), 1)).mean()
    assert abs(found.rate - exact) < 5 * (found.standard_error + found.marginal_kl_se)


def test_a_collapsed_posterior_tells_nothing_and_a_sharp_one_all_that_is_to_tell():
    collapsed = mutual_information(linear(slope=0.0), numbers(50))
    assert collapsed.value == pytest.approx(0.0, abs=1e-12)
    sharp = mutual_information(linear(scale=1e-9), numbers(50))
    assert sharp.value == pytest.approx(sharp.ceiling, abs=1e-9)
    assert sharp.value <= sharp.ceiling
    assert mutual_information(linear(), numbers(1)).value == 0.0


def test_the_same_numbers_at_every_call_by_seed_and_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch):
    model, split = linear(), numbers(70)
    state = torch.get_rng_state()
    found = mutual_information(model, split)
    assert found == mutual_information(model, split)
    assert found != mutual_information(model, split, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    monkeypatch.setattr(information, "_NUMBERS", 500)
    assert mutual_information(model, split).value == pytest.approx(found.value, rel=1e-12)
    monkeypatch.setattr(information, "_ENCODED", 15)  # the samples are others
    several = mutual_information(model, split, num_samples=100)
    assert abs(several.value - by_quadrature(model, split.x)[0]) < 5 * several.standard_error


def test_a_subset_of_many_data_keeps_their_index_and_labels():
    """A local posterior has a row for each index of the split."""
    seen = []

    class Named(Linear):
        def forward(self, x: Tensor, index: Tensor, label: Tensor):  # pyright: ignore
            seen.append((x, index, label))
            return super().forward(x)

    model = linear()
    model.posterior = Named(1.0, 1.0)
    split = Split(torch.arange(100.0).unsqueeze(1).double(), labels=torch.arange(100) % 7)
    assert mutual_information(model, split, max_data=30).num_data == 30
    (x, index, label) = seen[0]
    assert len(set(index.tolist())) == 30
    assert torch.equal(x[:, 0], index.double())
    assert torch.equal(label, index % 7)


def test_flow_posteriors_whose_density_needs_the_inverse():
    family = InverseAutoregressiveFlow((2,), transforms=1, hidden=(8,))
    posterior = Conditional(family, mlp(1, family.num_params, hidden=(8,)))
    model = VAE(StandardNormal(2), Conditional(Gaussian((1,)), nn.Linear(2, 2)), posterior).double()
    split = numbers(20)
    found = mutual_information(model, split, num_samples=50)
    assert -5 * found.standard_error < found.value <= found.ceiling
    draw = model.draw(split.x, num_samples=2000, path=False)
    rate = (draw.log_posterior - draw.log_prior).mean()  # in one pass, without the inverse
    assert abs(found.rate - rate) < 5 * (found.standard_error + found.marginal_kl_se)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="max_data and num_samples must be at least 1: got 1000 and 0"):
        mutual_information(linear(), numbers(3), num_samples=0)
    with pytest.raises(InputError, match="there are no data"):
        mutual_information(linear(), numbers(0))
    assert mutual_information(linear(), numbers(5), num_samples=1).standard_error == math.inf


def test_several_layers_are_refused():
    class Two(VAE):
        def draw(self, x, context=None, *, num_samples=1, path=True):
            draw = super().draw(x, context, num_samples=num_samples, path=path)
            z: Any = draw.z
            return Draw({"a": z, "b": z}, draw.q, draw.factors * 2, lambda: draw.log_likelihood)

    model = linear()
    with pytest.raises(InputError, match="this model has 2 stochastic layers"):
        mutual_information(Two(model.prior, model.likelihood, model.posterior), numbers(5))
