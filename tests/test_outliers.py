"""The estimator as an outlier detector: what its thresholds guarantee, and that no fit knows what sets them."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.exceptions import NotFittedError

from assertions import assert_refused
from shapes import unchecked_shapes
from subo import VariationalAutoencoder
from subo.data.splits import Split
from subo.evaluation.conformal import conformal_p_values
from subo.sklearn.division import divided
from subo.sklearn.scoring import HeldOut, conformal_threshold, quantile_threshold

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"epochs": 2, "hidden": (8,), "evaluation_samples": 10, "random_state": 0}


def usual(rows: int, *, seed: int) -> np.ndarray:
    """Five correlated columns."""
    rng = np.random.default_rng(seed)
    weight = np.random.default_rng(0).normal(size=(2, 5))
    return np.tanh(rng.normal(size=(rows, 2))) @ weight + 0.3 * rng.normal(size=(rows, 5))


@pytest.fixture(scope="module")
@unchecked_shapes()
def overfitted() -> VariationalAutoencoder:
    """A model that is fitted too closely to its 40 training rows, and 200 calibration rows."""
    settings = {**QUICK, "latent_dim": 4, "hidden": (50,), "epochs": 150, "learning_rate": 1e-2, "scale": "network"}
    settings |= {"validation_fraction": 0.0, "calibration_fraction": 5 / 6}
    return VariationalAutoencoder(**settings).fit(usual(240, seed=1))


def test_p_values_of_new_rows_are_uniform(overfitted):
    fresh = overfitted.p_values(usual(200, seed=2))
    # P-values of m rows by the same n are dependent: that they are uniform says that both are of one distribution.
    ranks = np.arange(1, 201) / 201
    distance: Any = stats.ks_2samp(fresh, ranks)
    assert distance.pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_false_alarms_are_no_more_than_asked_for(overfitted, rate):
    model, m, n = copy.copy(overfitted).set_params(false_alarm_rate=rate), 200, 200
    flagged = int((model.predict(usual(m, seed=2)) == -1).sum())
    count = int(rate * (n + 1))
    expected = stats.betabinom(m, count, n + 1 - count)  # exactly, whatever the scores are
    assert expected.ppf(1e-4) <= flagged <= expected.ppf(1 - 1e-4)


def test_outliers_are_the_rows_with_small_p_values(overfitted):
    model = overfitted
    X = np.vstack([usual(20, seed=3), 3 * usual(20, seed=4)])
    p_values = model.p_values(X)
    np.testing.assert_array_equal(model.predict(X), np.where(p_values <= 0.05, -1, 1))
    np.testing.assert_array_equal(model.decision_function(X), model.score_samples(X) - model.offset_)
    assert (model.predict(20 + X) == -1).all()
    scores, held_out = torch.as_tensor(model.score_samples(X)), model._held_out_scores()
    np.testing.assert_array_equal(p_values, conformal_p_values(scores, held_out))


@pytest.mark.parametrize("count", [1, 9, 19, 20, 57])
def test_the_threshold_is_that_of_the_p_values(count):
    held_out = torch.randn(count, dtype=torch.float64).round(decimals=1)  # with ties
    scores = torch.cat([held_out, held_out + 0.01, held_out - 0.01, torch.tensor([-torch.inf])])
    p_values = conformal_p_values(scores, held_out)
    for rate in [*np.arange(1, count + 1) / (count + 1), 0.05, 0.1, 0.29]:
        assert ((scores < conformal_threshold(held_out, rate)) == (p_values <= rate)).all(), rate
    assert (held_out.unique() < quantile_threshold(held_out.unique(), 0.3)).sum() == np.ceil(
        0.3 * (len(held_out.unique()) - 1)
    )


def test_nothing_in_a_fit_knows_the_calibration_rows():
    X = pd.DataFrame(usual(60, seed=0), columns=list("abcde"))
    X["city"] = np.random.default_rng(0).choice(["Oslo", "Rome"], 60)
    model = VariationalAutoencoder(**QUICK, calibration_fraction=0.2).fit(X)
    apart = divided(60, validation=0.1, calibration=0.2, seed=model.seed_).calibration.numpy()
    assert len(apart) == len(model._held_out) == 12
    other = X.copy()
    other.iloc[apart, :5] *= 100
    other.iloc[apart, 5] = "Bern"
    other.iloc[apart[:3], 0] = None
    again = VariationalAutoencoder(**QUICK, calibration_fraction=0.2).fit(other)
    assert again.schema_ == model.schema_
    for name, weights in model.model_.state_dict().items():
        assert torch.equal(again.model_.state_dict()[name], weights), name
    assert again.set_params(false_alarm_rate=0.1).offset_ < model.set_params(false_alarm_rate=0.1).offset_
    numbers = X.drop(columns="city").to_numpy(copy=True)
    model = VariationalAutoencoder(**QUICK, calibration_fraction=0.2).fit(numbers)
    numbers[apart] *= 100
    again = VariationalAutoencoder(**QUICK, calibration_fraction=0.2).fit(numbers)
    for name, weights in model.model_.state_dict().items():
        assert torch.equal(again.model_.state_dict()[name], weights), name


def test_contamination_is_a_share_of_the_held_out_rows():
    X = usual(60, seed=0)
    model = VariationalAutoencoder(**QUICK, contamination=0.1, calibration_fraction=0.5).fit(X)
    apart = divided(60, validation=0.1, calibration=0.5, seed=model.seed_).calibration
    assert (model.predict(X[apart]) == -1).sum() == 3
    assert model.fit_predict(X).tolist() == model.predict(X).tolist()


def test_without_calibration_rows_the_validation_rows_are_taken():
    X = usual(60, seed=0)
    model = VariationalAutoencoder(**QUICK, validation_fraction=0.5).fit(X)
    apart = divided(60, validation=0.5, calibration=0.0, seed=model.seed_).validation
    ranks = (1 + np.arange(30)) / 31
    np.testing.assert_allclose(np.sort(model.p_values(X[apart])), ranks + 1 / 31)


def test_what_is_needed_is_said():
    X = usual(30, seed=0)
    with pytest.raises(NotFittedError):
        VariationalAutoencoder().predict(X)
    model = VariationalAutoencoder(**QUICK, validation_fraction=0.0).fit(X)
    assert not hasattr(model, "predict")
    assert not hasattr(model, "offset_")
    with pytest.raises(AttributeError, match="predict"):
        model.predict(X)
    model.set_params(calibration_fraction=0.1)
    with assert_refused("this model was fitted without held-out rows: set `calibration_fraction`"):
        model.predict(X)
    model.fit(X)
    with pytest.warns(
        UserWarning,
        match="with 3 held-out examples the smallest possible p-value is 1/4 = 0.25, .* set `contamination`.* least 19",
    ):
        assert (model.predict(X) == 1).all()
    assert model.offset_ == -np.inf
    assert (model.set_params(false_alarm_rate=0.25).predict(50 + X) == -1).all()
    with assert_refused("contamination must be at most 0.5, not 0.7"):
        model.set_params(contamination=0.7).fit(X)


def test_scores_of_held_out_rows_are_computed_once_for_each_number_of_samples():
    calls = []
    rows = HeldOut(Split(torch.zeros(3, 2)))

    def scores(split: Split) -> torch.Tensor:
        calls.append(len(split))
        return split.x[:, 0].double()

    for number in (10, 10, 20, 10):
        rows.scores(scores, number)
    assert calls == [3, 3]
