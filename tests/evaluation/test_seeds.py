"""Means over training seeds: their errors against Welch's test, and over seeds and data drawn anew."""

from typing import Any

import pytest
import torch
from scipy.stats import ttest_ind

from subo.evaluation.estimates import Estimate
from subo.evaluation.seeds import difference_over_seeds, mean_over_seeds


def test_without_a_spread_over_the_data_a_difference_is_that_of_welchs_test():
    a, b = (torch.randn(num, dtype=torch.float64).mul(scale) for num, scale in ((4, 1.0), (6, 3.0)))
    found = difference_over_seeds(b[:, None].expand(-1, 10), a[:, None].expand(-1, 10))
    welch: Any = ttest_ind(b.numpy(), a.numpy(), equal_var=False)
    assert found.data_error == pytest.approx(0.0, abs=1e-12)
    assert found.standard_error is not None
    assert found.mean / found.standard_error == pytest.approx(welch.statistic)
    assert found.degrees == pytest.approx(welch.df)
    for shift in (-3, 0, 1, 3, 10):
        moved: Any = ttest_ind((b + shift).numpy(), a.numpy(), equal_var=False)
        assert difference_over_seeds((b + shift)[:, None].expand(-1, 10), a[:, None].expand(-1, 10)).differs == (
            moved.pvalue < 0.05
        )


def test_one_run_has_the_error_over_the_data_and_none_between_seeds():
    values, other = torch.randn(2, 1, 50, dtype=torch.float64)
    single = mean_over_seeds(values)
    assert (single.mean, single.data_error) == (Estimate.of(values[0]).mean, Estimate.of(values[0]).standard_error)
    assert (single.seed_error, single.standard_error, single.differs) == (None, None, False)
    difference = difference_over_seeds(torch.cat([values, values + 9]), other)
    assert (difference.seed_error, difference.differs) == (None, False)


def test_errors_are_those_over_new_seeds_and_new_data():
    """Crossed random effects: the squared errors' mean, and the share of intervals that hold the truth, which is 0."""
    seeds, data, num = 3, 12, 1000
    of_seeds, of_data, of_both = 0.5, 1.0, 0.8
    effect = of_data * torch.randn(num, 1, 1, data, dtype=torch.float64)  # of each data point, in both settings
    values = effect + of_seeds * torch.randn(num, 2, seeds, 1, dtype=torch.float64)
    own = torch.randn(num, 2, 1, data, dtype=torch.float64)  # of each data point, in one setting
    values = values + own + of_both * torch.randn(num, 2, seeds, data, dtype=torch.float64)
    found = [difference_over_seeds(b, a) for a, b in values]
    squares = torch.tensor([one.standard_error for one in found], dtype=torch.float64) ** 2
    expected = 2 * (of_seeds**2 / seeds + 1 / data + 2 * of_both**2 / (seeds * data))
    assert abs(squares.mean() - expected) < 5 * squares.std() / num**0.5
    means = torch.tensor([one.mean for one in found], dtype=torch.float64)
    assert means.var() < squares.mean()  # the sum errs on the safe side
    missed = sum(one.differs for one in found) / num
    assert 0.02 < missed < 0.05 + 5 * (0.05 * 0.95 / num) ** 0.5
