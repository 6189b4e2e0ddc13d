"""Models without latents, against scikit-learn, SciPy, and the exact Gaussian of rows with gaps."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, nbinom
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from tests.tables import with_gaps
from torch.distributions import MultivariateNormal

from subo import Bernoulli
from subo import Gaussian as GaussianFamily
from subo.data import Split
from subo.evaluation.baseline import Baseline, gaussian_of, table_baseline
from subo.parts.cells import Cells
from subo.parts.columns import Columns

of_cells: Any = multivariate_normal
counts_of: Any = nbinom


def correlated(rows: int = 300, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.7, 0.2]])
    return 5 + torch.randn(rows, 3, generator=generator) @ mixing.T * torch.tensor([1.0, 10.0, 0.1])


def test_one_gaussian_is_that_of_scikit_learn():
    x, new = correlated().double(), correlated(50, seed=1).double()
    theirs = GaussianMixture(1, reg_covar=0).fit(x.numpy()).score_samples(new.numpy())
    torch.testing.assert_close(gaussian_of(x).log_prob(new), torch.tensor(theirs), rtol=1e-4, atol=1e-4)


def test_rows_too_few_for_covariances_have_a_gaussian_for_each_column():
    torch.manual_seed(0)
    x, new = torch.randn(9, 5) * 3 + 1, torch.randn(4, 5)
    x[2, 1] = torch.nan
    family = GaussianFamily((5,))
    found = table_baseline(family, Split(x), Split(new))
    assert found.name == "a Gaussian for each column"
    known = x.double().numpy()
    mean, deviation = np.nanmean(known, 0), np.nanstd(known, 0)
    expected = of_cells(mean, np.diag(deviation**2)).logpdf(new.double().numpy())
    torch.testing.assert_close(found.log_px, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert table_baseline(family, Split(torch.randn(10, 5)), Split(new)).name == "one Gaussian"


def test_with_gaps_the_likelihood_of_the_observed_cells_is_at_its_maximum():
    torch.manual_seed(0)
    x = with_gaps(correlated(80)[:, :2])
    fitted = gaussian_of(x)

    def level(params: np.ndarray) -> float:
        factor = np.array([[np.exp(params[2]), 0], [params[3], np.exp(params[4])]])
        total = 0.0
        for row in x.double().numpy():
            known = ~np.isnan(row)
            if known.any():
                covariance = (factor @ factor.T)[known][:, known]
                total += float(of_cells(params[:2][known], covariance).logpdf(row[known]))
        return -total / len(x)

    start = np.array([5, 5, 0.0, 5.0, 1.5])
    best = minimize(level, start, method="BFGS")
    assert fitted.log_prob(x).mean().item() == pytest.approx(-best.fun, abs=1e-3)
    np.testing.assert_allclose(fitted.mean.numpy(), best.x[:2], rtol=0.01)


def test_a_cell_is_filled_in_by_its_regression_on_the_others():
    torch.manual_seed(1)
    x = correlated(4000).double()
    gone = torch.rand(len(x)) < 0.5
    x[gone, 2] = torch.nan
    whole = gaussian_of(x[~gone])
    slope = whole.covariance[2, :2] @ torch.linalg.inv(whole.covariance[:2, :2])
    fitted = gaussian_of(x)
    found = fitted.covariance[2, :2] @ torch.linalg.inv(fitted.covariance[:2, :2])
    torch.testing.assert_close(found, slope, rtol=0.01, atol=1e-4)


def test_a_row_without_cells_has_probability_one():
    assert gaussian_of(correlated()).log_prob(torch.full((1, 3), torch.nan)).item() == 0.0


def test_numbers_are_described_jointly_and_other_columns_alone():
    torch.manual_seed(0)
    numbers = correlated(200)
    level, count = torch.randint(3, (200, 1)).float(), torch.poisson(torch.full((200, 1), 4.0))
    x = torch.cat([numbers[:, :2], level, count, numbers[:, 2:]], 1)
    kinds = ("real", "real", "category 3", "count", "real")
    family = Columns((5,), columns=kinds, scale="network", dispersion="network")
    found = table_baseline(family, Split(x), Split(x[:20]))
    shares = torch.bincount(x[:, 2].long()).double() / 200

    def level_of(params: np.ndarray) -> float:
        size = np.exp(params[1])
        return -counts_of(size, size / (size + np.exp(params[0]))).logpmf(x[:, 3].numpy()).mean()

    params = minimize(level_of, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x
    size = np.exp(params[1])
    counts = torch.tensor(counts_of(size, size / (size + np.exp(params[0]))).logpmf(x[:20, 3].numpy()))
    exact = gaussian_of(numbers).log_prob(numbers[:20]) + shares[x[:20, 2].long()].log() + counts
    torch.testing.assert_close(found.log_px, exact, rtol=0, atol=3e-3)
    assert found.name == "one Gaussian for numbers, other columns by themselves"


def test_beside_a_model_of_the_missing_cells_each_is_missing_with_its_share():
    torch.manual_seed(0)
    x = correlated(200)
    x[torch.rand(200) < 0.3, 1] = torch.nan
    kinds = ("real",) * 3
    plain = table_baseline(Columns((3,), columns=kinds), Split(x), Split(x[:20])).log_px
    masked = table_baseline(Columns((3,), columns=kinds, missing_model="self"), Split(x), Split(x[:20])).log_px
    share = (int(x[:, 1].isnan().sum()) + 0.5) / 201
    gap = torch.where(x[:20, 1].isnan(), math.log(share), math.log(1 - share)) + 2 * math.log(1 - 0.5 / 201)
    torch.testing.assert_close(masked - plain, gap.double(), rtol=0, atol=1e-6)


def test_bits_are_described_one_by_one():
    torch.manual_seed(0)
    x = torch.bernoulli(torch.tensor([0.2, 0.5, 0.9]).expand(100, 3))
    found = table_baseline(Bernoulli((3,)), Split(x), Split(x[:5]))
    share = x.mean(0).double()
    exact = (x[:5] * share.log() + (1 - x[:5]) * (1 - share).log()).sum(1)
    torch.testing.assert_close(found.log_px, exact.double(), rtol=1e-4, atol=1e-4)


def test_beside_a_model_given_c_numbers_lie_around_their_regression_on_it():
    """The exact p(x|c) of the model that rows were drawn from, and the ridge solution of scikit-learn."""
    torch.manual_seed(0)
    c = torch.randint(3, (2000, 1)).float()
    slope = torch.tensor([[0.0, 0.0], [4.0, -2.0], [1.0, 6.0]])
    x = slope[c[:, 0].long()] + torch.randn(2000, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]])
    level = torch.randint(2, (2000, 1)).float()
    rows = Split(torch.cat([x, level], 1), context={"given": c})
    cells = Cells(("category 3",), c)
    family = Columns((3,), columns=("real", "real", "category 2"))
    found = table_baseline(family, rows, rows, features=lambda context: cells(context["given"]))
    assert found.name == (
        "one Gaussian for numbers around a linear regression on the condition, other columns by themselves"
    )
    by_ridge = Ridge(alpha=1.0).fit(cells(c), x)
    left = x.double() - torch.from_numpy(by_ridge.predict(cells(c).double()))
    share = torch.bincount(level[:, 0].long()).double() / 2000
    exact = gaussian_of(left).log_prob(left) + share[level[:, 0].long()].log()
    torch.testing.assert_close(found.log_px, exact, rtol=0, atol=1e-3)  # the share is found by gradient
    truth = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 0.34]]))
    truth = truth.log_prob(x - slope[c[:, 0].long()]) + math.log(0.5)
    assert abs(found.log_px.mean() - truth.mean()) < 0.01
    blind = table_baseline(family, rows, rows)
    assert found.log_px.mean() > blind.log_px.mean() + 1


def test_the_regression_is_that_of_the_known_cells_and_of_known_rows():
    """Ridge regressions of scikit-learn, each on the rows where its column is known; others change nothing."""
    torch.manual_seed(0)
    c, others = torch.randn(50, 3), torch.randn(20, 3)
    x = c @ torch.randn(3, 2) + torch.randn(50, 2)
    x[torch.rand(50, 2) < 0.3] = torch.nan
    y = torch.randn(20, 2).where(torch.rand(20, 2) < 0.7, torch.nan)
    features = {50: c, 20: others}
    train, test = Split(x), Split(y)
    found = table_baseline(
        Columns((2,), columns=("real", "real")), train, test, features=lambda context: features[len(context["index"])]
    )
    left, right = x.double(), y.double()
    for column in range(2):
        there = ~x[:, column].isnan()
        fitted = Ridge(alpha=1.0).fit(c[there].double(), x[there, column].double())
        left[:, column] -= torch.from_numpy(fitted.predict(c.double()))
        right[:, column] -= torch.from_numpy(fitted.predict(others.double()))
    torch.testing.assert_close(found.log_px, gaussian_of(left).log_prob(right), rtol=0, atol=1e-6)


def test_units_count_in_the_density():
    x = correlated()
    family = Columns((3,), columns=("real",) * 3)
    plain = table_baseline(family, Split(x), Split(x[:9])).log_px
    family.set_units(shift=torch.full((3,), 2.0), slope=torch.zeros(3), unseen=torch.zeros(3))
    scaled = table_baseline(family, Split(x), Split(x[:9])).log_px
    torch.testing.assert_close(scaled, plain - 6)
    numbers = table_baseline(GaussianFamily((3,), "shared"), Split(x), Split(x[:9]))
    torch.testing.assert_close(numbers.log_px, plain)
    assert numbers.name == "one Gaussian"


def test_the_gain_is_a_paired_difference():
    beside = Baseline("none", torch.tensor([-1.0, -2.0, -3.0])).beside(torch.tensor([0.0, -1.0, -2.0]))
    assert (beside["gain"], beside["gain_se"]) == (1.0, 0.0)
    assert beside["log_px_se"] == pytest.approx(1 / 3**0.5)
