"""Missing cells against factor analysis, whose conditionals are known, and pooling against Rubin's own example."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from assertions import assert_within
from subo.core.bounds import ELBO
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.cells import cell_scores
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.imputation import impute, pooled
from subo.evaluation.scores import score
from subo.models.probabilistic_pca import probabilistic_pca
from subo.typing import leaves
from tables import FactorAnalysis, with_gaps

pytestmark = pytest.mark.usefixtures("double_by_default")


def with_every_gap(truth: FactorAnalysis) -> Tensor:
    """A row for each set of cells that may be missing: none in the first, all in the last."""
    gone = torch.tensor([*itertools.product([False, True], repeat=len(truth.mean))])
    return truth.sample(len(gone)).masked_fill(gone, torch.nan)


def posterior(truth: FactorAnalysis, row: Tensor) -> MultivariateNormal:
    """p(z | x_obs), from the joint normal of z and the observed cells."""
    known = ~row.isnan()
    weight = truth.model.likelihood.network.weight.detach()[known]
    gain = weight.T @ torch.linalg.inv(truth.covariance[known][:, known])
    return MultivariateNormal(gain @ (row[known] - truth.mean[known]), torch.eye(weight.shape[1]) - gain @ weight)


def test_log_p_of_the_observed_cells_is_their_exact_density():
    truth = FactorAnalysis()
    x = with_gaps(truth.sample(8))
    x[0] = torch.nan
    found = log_marginal(truth.model, x, num_samples=20_000)
    exact = torch.tensor([truth.log_px(row) for row in x])
    assert ((found.log_px - exact).abs() < 5 * found.standard_error + 1e-9).all()
    assert found.log_px[0].abs() < 5 * found.standard_error[0]


def test_the_score_of_a_row_without_any_cell_is_exactly_0():
    truth = FactorAnalysis()
    x = with_gaps(truth.sample(4))
    x[2] = torch.nan
    found = score(truth.model, Split(x), num_samples=30)
    assert found.log_px[2] == found.standard_error[2] == 0
    assert found.elbo[2] <= 0
    assert bool((found.log_px != 0).sum() == (found.standard_error > 0).sum() == 3)


@torch.no_grad()
def test_weights_turn_samples_of_q_into_those_of_the_exact_posterior():
    truth = FactorAnalysis()
    x = with_every_gap(truth)
    draw = truth.model.draw(x, num_samples=100_000)
    (samples,) = leaves(draw.z)
    for row, z, weight in zip(x, samples.unbind(1), draw.log_weight.softmax(0).unbind(1), strict=True):
        exact = posterior(truth, row)
        centered = z - exact.mean
        squares = centered[:, :, None] * centered[:, None] - exact.covariance_matrix
        moments = torch.cat([centered, squares.flatten(1)], 1)  # all 0 in expectation
        found = weight @ moments
        error = (weight.square() @ (moments - found).square()).sqrt()  # by the delta method
        assert (found.abs() < 5 * error).all()


@pytest.mark.parametrize("closed_form_kl", [True, False])
@torch.no_grad()
def test_the_bound_is_below_log_p_of_the_observed_cells_by_the_exact_divergence(closed_form_kl: bool):
    truth, bound = FactorAnalysis(), ELBO(closed_form_kl=closed_form_kl)
    x = with_every_gap(truth)
    q = truth.model.posterior(x)
    exact = []
    for row, mean, scale in zip(x, q.mean, q.stddev, strict=True):
        gap = kl_divergence(MultivariateNormal(mean, scale_tril=scale.diag()), posterior(truth, row))
        exact.append(truth.log_px(row) - gap)
    assert_within(torch.stack([bound(truth.model.draw(x, num_samples=200)) for _ in range(200)]), torch.stack(exact))


def test_draws_have_the_mean_and_covariance_of_the_exact_conditional():
    truth = FactorAnalysis()
    x = with_every_gap(truth)
    draws = 40_000
    found = impute(truth.model, Split(x), num_draws=draws, num_samples=40_000)
    for number, row in enumerate(x):
        gone = row.isnan()
        mean, covariance = truth.missing(row)
        filled = found.draws[:, number, gone] - mean
        share = 1 / draws + 1 / found.effective_sample_size[number]  # draws share the K samples of z
        variance = covariance.diagonal()
        error = ((variance.outer(variance) + covariance.square()) * share).sqrt()
        assert (filled.mean(0).abs() < 5 * (variance * share).sqrt()).all()
        assert ((filled.T @ filled / draws - covariance).abs() < 5 * error).all()


def test_observed_cells_stay_and_complete_rows_are_left_alone():
    truth = FactorAnalysis()
    x = with_gaps(truth.sample(7))
    x[2] = truth.sample(1)[0]
    found = impute(truth.model, Split(x), num_draws=3, num_samples=50)
    assert found.draws.shape == (3, 7, 4)
    assert not found.draws.isnan().any()
    for draw in found.draws:
        assert torch.equal(draw[~x.isnan()], x[~x.isnan()])
    assert found.effective_sample_size[2] == found.num_samples
    again = impute(truth.model, Split(x), num_draws=3, num_samples=50)
    assert torch.equal(again.draws, found.draws)


def test_nothing_is_missing():
    x = FactorAnalysis().sample(5)
    assert torch.equal(impute(FactorAnalysis().model, Split(x), num_draws=2).draws, x.expand(2, -1, -1))


def test_a_cell_given_the_others_is_its_exact_conditional():
    truth = FactorAnalysis()
    x = with_every_gap(truth)
    exact = torch.full_like(x, torch.nan)
    for number, column in (~x.isnan()).nonzero().tolist():
        others = x[number].clone()
        others[column] = torch.nan
        exact[number, column] = truth.log_px(x[number]) - truth.log_px(others)
    found = torch.stack([cell_scores(truth.model, Split(x), num_samples=10_000, seed=seed) for seed in range(30)])
    assert torch.equal(found.isnan(), exact.isnan().expand_as(found))
    assert_within(found[:, ~x.isnan()], exact[~x.isnan()])


def test_a_cell_outside_of_the_support_is_impossible_and_the_others_are_given_the_rest():
    truth = FactorAnalysis()
    x = truth.sample(3)
    x[1, 2] = torch.inf
    found = cell_scores(truth.model, Split(x), num_samples=20)
    without = cell_scores(truth.model, Split(x.masked_fill(x.isinf(), torch.nan)), num_samples=20)
    assert found[1, 2] == -torch.inf
    found[1, 2] = torch.nan
    assert_close(found, without, rtol=0, atol=0, equal_nan=True)


def test_a_likelihood_without_columns_is_refused():
    with pytest.raises(InputError, match="which has no columns"):
        cell_scores(probabilistic_pca(4, 2), Split(torch.zeros(3, 4)), num_samples=5)


def test_pooling_is_rubins():
    estimates, variances = np.array([12.0, 14.0, 13.0, 15.0, 11.0]), np.array([4.0, 5.0, 3.0, 6.0, 2.0])
    result = pooled(estimates, variances)
    assert result.mean == 13
    assert result.variance == pytest.approx(4 + 1.2 * 2.5)
    assert result.missing_information == pytest.approx(3 / 7)
    assert result.degrees_of_freedom == pytest.approx(4 * (1 + 4 / 3) ** 2)  # (M - 1) (1 + U / ((1 + 1/M) B))^2
    low, high = result.interval(0.95)
    assert low + high == pytest.approx(26)
    fewer = pooled(estimates, variances, complete_degrees=9)
    share = 3 / 7
    observed = 10 / 12 * 9 * (1 - share)
    assert fewer.degrees_of_freedom == pytest.approx(1 / (1 / result.degrees_of_freedom + 1 / observed))


def test_tables_of_several_fits_are_pooled_as_nested():
    """Two draws from each of three fits; the sums of squares by hand."""
    estimates = np.array([1.0, 3.0, 4.0, 6.0, 7.0, 9.0])
    result = pooled(estimates, np.full(6, 2.0), refits=3)
    between, within = 9.0, 2.0  # of the means 2, 5, 8; of each pair
    total = 2 + 4 / 3 * between + 1 / 2 * within
    assert (result.mean, result.variance) == (5, pytest.approx(total))
    assert result.missing_information == pytest.approx(13 / 15)
    assert result.degrees_of_freedom == pytest.approx(1 / ((12 / total) ** 2 / 2 + (1 / total) ** 2 / 3))
    single = pooled(estimates[::2], np.full(3, 2.0), refits=3)  # one draw each is plain multiple imputation
    assert single == pooled(estimates[::2], np.full(3, 2.0))
    for refits in (4, 1):
        with pytest.raises(InputError, match="refits"):
            pooled(estimates, np.full(6, 2.0), refits=refits)


def test_without_missing_cells_pooling_changes_nothing():
    result = pooled(np.array([2.0, 2.0]), np.array([0.5, 0.5]))
    assert (result.mean, result.variance, result.missing_information) == (2.0, 0.5, 0.0)
    assert result.interval()[1] == pytest.approx(2 + 1.959964 * math.sqrt(0.5))


@pytest.mark.parametrize("estimates, variances", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_one_table_is_not_pooled(estimates: list[float], variances: list[float]):
    with pytest.raises(InputError, match="at least two tables"):
        pooled(np.array(estimates), np.array(variances))


def test_intervals_from_imputed_tables_cover_the_mean_as_often_as_they_say():
    """The mean of a column of which half is missing, at random given another: 100 samples by the exact model."""
    torch.manual_seed(3)
    truth, covered = FactorAnalysis(2, 1), 0
    for seed in range(100):
        x = truth.sample(60)
        x[torch.rand(60) < 0.5, 1] = torch.nan
        draws = impute(truth.model, Split(x), num_draws=10, num_samples=200, seed=seed).draws[:, :, 1]
        estimates, variances = draws.mean(1).numpy(), (draws.var(1) / 60).numpy()
        low, high = pooled(estimates, variances, complete_degrees=59).interval()
        covered += low <= truth.mean[1].item() <= high
    assert 88 <= covered <= 100  # 95 with a standard deviation of 2.2
