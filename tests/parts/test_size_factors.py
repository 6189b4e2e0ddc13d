"""Counts with a size: exact densities against scipy and quadrature, in value and gradient."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import nbinom, poisson
from torch import Tensor, nn
from torch.testing import assert_close

from assertions import assert_refused, assert_within
from quadrature import Guess, Rates, exact_log_px
from subo import VAE, Conditional, Poisson, StandardNormal, log_marginal, make
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.data.tables.options import TableOptions
from subo.evaluation.reconstruction import reconstruct
from subo.parts.columns import Columns
from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.parts.size_factors import LogPerSize, SumToTotal, WithOffset, log_means_of
from subo.recipes import vae

pytestmark = pytest.mark.usefixtures("double_by_default")

X = torch.tensor([[0.0, 3.0, 40.0], [7.0, 0.0, 1.0]]).double()
SIZE = torch.tensor([0.25, 3.0]).double()
RHO = np.array([0.5, 2.0, 20.0])
FAMILIES = {"poisson": Poisson, "nb": NegativeBinomial, "zinb": ZeroInflatedNegativeBinomial}


def scipys(name: str, x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """log p(x) with the dispersion 1 and, where there are further zeros, pi = 1/2, by scipy."""
    if name == "poisson":
        return poisson.logpmf(x, mean)
    p = nbinom.pmf(x, 1, 1 / (1 + mean))
    return np.log(p if name == "nb" else 0.5 * (x == 0) + 0.5 * p)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_size_multiplies_the_mean_of_the_counts_exactly(name: str):
    family: Any = FAMILIES[name]((3,))
    zeros = torch.zeros(family.num_params - 3)
    params = torch.cat([torch.tensor(RHO).log(), zeros]).expand(2, -1).clone().requires_grad_()
    size = SIZE.clone().requires_grad_()
    p = Conditional(family, WithOffset(nn.Identity(), log_means_of(family)))(params, size=size)
    mean = SIZE.numpy()[:, None] * RHO
    assert_close(p.log_prob(X).detach().numpy(), scipys(name, X.numpy(), mean).sum(1))
    slope, by_size = torch.autograd.grad(p.log_prob(X).sum(), (params, size))
    up, down = (scipys(name, X.numpy(), mean * np.exp(h)) for h in (1e-5, -1e-5))
    by_log_mean = (up - down) / 2e-5
    assert_close(slope[:, :3].numpy(), by_log_mean, rtol=1e-6, atol=1e-7)
    assert_close(by_size.numpy(), by_log_mean.sum(1) / SIZE.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_means_of_a_row_sum_to_its_total_and_keep_their_ratios(name: str):
    """The density is that of means divided by their sum, by scipy, in value and gradient."""
    family: Any = FAMILIES[name]((3,))
    logits = getattr(family, "zero_logits", None)
    zeros = torch.zeros(family.num_params - 3)
    params = torch.cat([torch.tensor(RHO).log() + 50, zeros]).expand(2, -1).clone().requires_grad_()
    decoder = WithOffset(
        SumToTotal(nn.Identity(), log_means_of(family), 30.0, zero_logits=logits), log_means_of(family)
    )
    p = Conditional(family, decoder)(params, size=SIZE)
    assert_close(p.mean.sum(1), 30 * SIZE)
    assert_close(p.mean[1] / p.mean[1, 0], torch.tensor(RHO / RHO[0]))
    share = 1.0 if logits is None else 0.5

    def log_p(log_rho: np.ndarray) -> np.ndarray:
        rho = np.exp(log_rho)
        mean = 30 * SIZE.numpy()[:, None] * rho / rho.sum() / share
        return scipys(name, X.numpy(), mean).sum()

    assert_close(p.log_prob(X).sum().item(), log_p(np.log(RHO)))
    (slope,) = torch.autograd.grad(p.log_prob(X).sum(), params)
    steps = 1e-5 * np.eye(3)
    expected = [(log_p(np.log(RHO) + step) - log_p(np.log(RHO) - step)) / 2e-5 for step in steps]
    assert_close(slope.sum(0)[:3].numpy(), np.array(expected), rtol=1e-6, atol=1e-6)


def test_further_zeros_lower_the_means_that_sum_to_the_total():
    """Whatever the logits are: also the gradient of the sum is zero."""
    family = ZeroInflatedNegativeBinomial((4,), dispersion="network")
    params = torch.randn(5, family.num_params).requires_grad_()
    total = SumToTotal(nn.Identity(), family.log_means, 7.0, zero_logits=family.zero_logits)
    sums = family(total(params)).mean.sum(1)
    assert_close(sums, torch.full((5,), 7.0))
    assert_close(torch.autograd.grad(sums.sum(), params)[0], torch.zeros_like(params), rtol=0, atol=1e-12)


def test_only_counts_of_a_table_have_the_size():
    family = Columns((4,), columns=("real", "count", "category 3", "count"), dispersion="network")
    params = torch.randn(1, family.num_params)
    decoder = WithOffset(nn.Identity(), log_means_of(family))
    plain, large = (family(decoder(params, size=torch.tensor([size]))) for size in (1.0, 5.0))
    for column, cell in enumerate((0.3, 6.0, 1.0, 2.0)):
        row = torch.full((1, 4), torch.nan)
        row[0, column] = cell
        assert (plain.log_prob(row) == large.log_prob(row)).all() == (column in (0, 2))
    assert_close(large.mean[:, [1, 3]], 5 * plain.mean[:, [1, 3]])


class Shifted(Rates):
    """Log-rates with a free shift."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + self.shift


class Seen(Guess):
    """A rough posterior that reads counts per size."""

    def forward(self, x: Tensor, size: Tensor):
        return super().forward(LogPerSize()(x, size).expm1())


def test_log_px_given_the_size_is_that_of_quadrature_and_so_is_its_gradient():
    torch.manual_seed(0)
    rates = Shifted()
    model = VAE(StandardNormal(2), Conditional(Poisson((4,)), WithOffset(rates, torch.ones(4).bool())), Seen()).double()
    context = {"size": torch.tensor([0.2, 1.0, 6.0, 2.5]).double()}
    x = model.sample(4, context)[1].sample()
    exact = exact_log_px(model, x, context)
    estimate = log_marginal(model, x, context, num_samples=20_000)
    assert ((estimate.log_px - exact).abs() < 5 * estimate.standard_error).all()
    assert (exact - exact_log_px(model, x, {"size": context["size"].roll(1)})).abs().min() > 1e-2  # the size matters

    def at(step: Tensor) -> Tensor:
        with torch.no_grad():
            rates.shift.copy_(step)
        return exact_log_px(model, x, context).sum()

    truth = torch.stack([(at(h) - at(-h)) / 2e-4 for h in 1e-4 * torch.eye(4)])
    at(torch.zeros(4))
    slopes = []
    for _ in range(20):
        bound = model.draw(x, context, num_samples=10_000, path=False).log_weight.logsumexp(0).sum()
        slopes += torch.autograd.grad(bound, rates.shift)
    assert_within(torch.stack(slopes), truth)


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial", "zero-inflated-negative-binomial"])
def test_a_recipe_starts_at_the_mean_per_size(likelihood: str):
    torch.manual_seed(0)
    size = torch.rand(400) + 0.5
    x = torch.poisson(size[:, None] * torch.tensor([1.0, 20.0, 300.0]))
    size = x.sum(1) / x.sum(1).mean()
    objective = make("vae", (x, {"size": size}), likelihood=likelihood, size_factor="observed", latent_dim=2)
    p: Any = objective.model.decode(torch.zeros(2, 2), {"size": torch.tensor([1.0, 2.0])})
    assert_close(p.mean[1], 2 * p.mean[0])
    assert_close(p.mean[0].sum(), x.sum(1).mean())
    assert_close(p.mean[0], x.mean(0), rtol=0.5, atol=0.5)
    seen = objective.model.posterior.network[0](x, size=size)
    assert_close(
        seen, LogPerSize()(x, size).sub(LogPerSize()(x, size).mean(0)) / LogPerSize()(x, size).std(0, correction=0)
    )


def test_cells_of_several_kinds_have_no_total(tmp_path: Path):
    """The observed size of a table's row, given in Python, is an offset of its counts alone."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"real": rng.normal(size=300), "count": rng.poisson(rng.gamma(2, 20, 300))})
    frame.loc[3, "real"] = None
    frame.to_csv(tmp_path / "x.csv", index=False)
    data = load_data(tmp_path / "x.csv", table=TableOptions(columns="count=count"))
    train = replace(data.train, context={"size": torch.rand(len(data.train)) + 0.5})
    objective = make("vae", replace(data, train=train), size_factor="observed", latent_dim=2)
    assert not any(isinstance(module, SumToTotal) for module in objective.model.modules())


def test_a_reconstruction_has_the_size_of_its_row():
    torch.manual_seed(0)
    x = torch.poisson(torch.rand(50, 3) * 9) + 1
    size = x.sum(1) / x.sum(1).mean()
    model = make("vae", (x, {"size": size}), likelihood="poisson", size_factor="observed", hidden=()).model
    with torch.no_grad():
        for parameter in model.likelihood.parameters():
            parameter.zero_()
    means = reconstruct(model, Split(x, context={"size": size}))
    assert_close(means, size[:, None] * means[:1] / size[0])


def test_a_size_factor_needs_counts_and_sizes():
    with assert_refused("means of counts", "Gaussian"):
        vae((3,), likelihood="gaussian", size_factor="observed")
    with assert_refused("'size': x.sum(1)"):
        make("vae", X, likelihood="poisson", size_factor="observed")
    with assert_refused("the vamp prior is a mixture"):
        vae((3,), likelihood="poisson", size_factor="observed", prior="vamp")
    model = vae((3,), likelihood="poisson", size_factor="observed").model
    with assert_refused("needs the context 'size'"):
        model.draw(X)
