"""The scikit-learn estimator: scikit-learn's own contract, and what its numbers mean."""

import copy
import inspect
import math
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.distributions import MultivariateNormal

import subo.sklearn.estimator
from shapes import unchecked_shapes
from subo import InputError, VariationalAutoencoder, probabilistic_pca
from subo.data.splits import Split
from subo.errors import Interrupted
from subo.evaluation import score
from subo.parts.registry import LIKELIHOODS
from subo.recipes import vae
from subo.sklearn.scoring import own_seed
from subo.training.fitting import fit

QUICK = {"epochs": 2, "hidden": (8,), "evaluation_samples": 20}


def table(rows: int = 200, *, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Five correlated columns: two latents, linearly, and noise."""
    rng = np.random.default_rng(seed)
    weight = np.array([[1.0, 1.0, 0.5, -1.0, 0.0], [0.0, 1.0, -1.0, 0.5, 1.0]])
    return rng.normal(size=(rows, 2)) @ weight + noise * rng.normal(size=(rows, 5))


# scikit-learn skips one check, check_array_api_input, unless SCIPY_ARRAY_API=1 was set before SciPy's import. It runs
# in the process of the next test, as do all for the default settings, whose fits are slow where shapes are checked.
@parametrize_with_checks([
    VariationalAutoencoder(
        **QUICK, prior="vamp", prior_components=1, posterior="full-rank", likelihood="laplace", scale="network",
        network="residual", bound="iwae", num_samples=3, patience=1,
    ),
])  # fmt: skip
@pytest.mark.filterwarnings(
    "ignore:with .* held-out examples the smallest possible p-value"
)  # of the few rows of most checks
@unchecked_shapes()  # of many fits, all alike
@pytest.mark.slow
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_scikit_learn_contract_of_the_defaults():
    code = """
        import sys, warnings, subo
        assert "sklearn" not in sys.modules  # it takes a second to import
        estimator = subo.VariationalAutoencoder(epochs=1, evaluation_samples=5)  # all but these as they are
        from sklearn.exceptions import SkipTestWarning
        from sklearn.utils.estimator_checks import check_estimator
        warnings.simplefilter("error", SkipTestWarning)
        results = check_estimator(estimator)
        assert len(results) > 40 and all(result["status"] == "passed" for result in results)
    """
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)


def test_parameters_are_those_of_recipe_and_fit():
    ours, recipe, training = (inspect.signature(thing).parameters for thing in (VariationalAutoencoder, vae, fit))
    reasons = dict.fromkeys(("epochs", "batch_size", "learning_rate", "patience"), "follows from the rows")
    assert {ours[name].default for name in reasons} == {"auto"}
    own = {"columns", "validation_fraction", "calibration_fraction", "evaluation_samples", "false_alarm_rate"}
    own |= {"column_scaling", "contamination", "device", "min_level_count", "random_state", "verbose"}
    assert set(ours) <= {*recipe, *training, *own}
    for name in set(ours) - own - set(reasons):
        assert ours[name].default == (recipe if name in recipe else training)[name].default, name


@pytest.fixture(scope="module")
@unchecked_shapes()
def linear() -> tuple[VariationalAutoencoder, np.ndarray]:
    """A linear Gaussian model, fitted to standardized columns: probabilistic PCA by gradient steps."""
    X = StandardScaler().fit_transform(table(500))
    plain = {"likelihood": "gaussian", "prior": "normal", "scale": "shared", "latent_dim": 2, "hidden": ()}
    training = {"epochs": 150, "batch_size": 100, "learning_rate": 1e-2, "validation_fraction": 0.0}
    return VariationalAutoencoder(**plain, **training, random_state=0).fit(X), X


def exact_log_px(model: VariationalAutoencoder, X: np.ndarray) -> torch.Tensor:
    """The evidence of a linear model, from its means at the origin and at the unit vectors and its scale."""
    bias, *ends = torch.tensor(model.inverse_transform(np.eye(3, 2, k=-1)))
    weight = torch.stack(ends, dim=1) - bias[:, None]
    variance = model.model_.likelihood(torch.zeros(1, 2, dtype=torch.float64)).variance[0].detach()
    return MultivariateNormal(bias, weight @ weight.mT + variance.diag()).log_prob(torch.tensor(X))


def test_scores_are_the_exact_evidence_of_a_linear_model(linear):
    model, X = linear
    scores = model.score_samples(X[:100])
    error = score(model.model_, Split(torch.tensor(X[:100])), num_samples=1000).standard_error.numpy()
    assert (abs(scores - exact_log_px(model, X[:100]).numpy()) < 5 * error).all()
    assert model.score(X[:100]) == scores.mean()


def test_scores_are_those_of_subo(linear):
    model, X = linear
    rows = torch.tensor(X[:3]).float().split(1)
    expected = [score(model.model_, Split(row), seed=own_seed(row, model.seed_)).log_px for row in rows]
    np.testing.assert_array_equal(model.score_samples(X[:3]), torch.cat(expected).numpy())


@unchecked_shapes()
@pytest.mark.slow
def test_errors_of_different_rows_are_independent(linear):
    """With one noise for all rows, the mean of 100 was hardly more precise than one of them."""
    model, X = linear
    few = clone_fitted(model, evaluation_samples=5)
    scores = []
    for few.seed_ in range(8):
        scores.append(few.score_samples(X[:100]))
    assert len(np.unique(scores, axis=0)) == 8
    of_a_row, of_the_mean = np.std(scores, axis=0, ddof=1), np.std(np.mean(scores, axis=1), ddof=1)
    expected = math.sqrt(np.mean(of_a_row**2) / 100)
    assert of_the_mean < 2.3 * expected  # chi-squared with 7 degrees of freedom: one in a million seeds is beyond
    np.testing.assert_array_equal(few.score_samples(X[[7, 3]]), scores[-1][[7, 3]])  # in any company


def clone_fitted(model: VariationalAutoencoder, **settings: Any) -> VariationalAutoencoder:
    """The same fitted model, to be scored with other settings."""
    return copy.copy(model).set_params(**settings)


def test_a_linear_model_comes_close_to_pca_from_below(linear):
    model, X = linear
    x = torch.tensor(X)
    best = probabilistic_pca(5, 2).double().likelihood.fit(x).log_px(x).mean().item()
    isotropic = torch.distributions.Normal(0.0, x.std(correction=0)).log_prob(x).sum(1).mean().item()
    reached = exact_log_px(model, X).mean().item()
    assert reached <= best + 1e-6  # no parameters have a higher likelihood on the training data
    assert reached > best - 0.05 * (best - isotropic)


@pytest.mark.parametrize(
    "scale, shift, tolerance",
    [
        ([2.0, 0.25, 1024.0, 1.0, 8.0], [0.0] * 5, 1e-6),  # powers of 2 change no digit
        ([3.0, 0.1, 700.0, 1.0, 9.0], [1.0, -2.0, 30.0, 0.0, 5.0], 2e-3),  # the training's float32
    ],
)
def test_units_shift_the_log_density_by_the_log_jacobian(scale, shift, tolerance):
    X = table(100)
    settings = {**QUICK, "epochs": 10, "random_state": 0}
    plain = VariationalAutoencoder(**settings).fit(X)
    changed = VariationalAutoencoder(**settings).fit(X * scale + shift)
    before, after = (  # by the same noise: that of score_samples is the row's own
        score(model.model_, Split(torch.tensor(rows).float()), num_samples=20).log_px.numpy()
        for model, rows in ((plain, X), (changed, X * scale + shift))
    )
    np.testing.assert_allclose(after, before - np.log(scale).sum(), atol=tolerance, rtol=0)
    np.testing.assert_allclose(changed.transform(X * scale + shift), plain.transform(X), atol=tolerance, rtol=0)


@unchecked_shapes()
def test_outliers_score_lower_than_what_is_usual():
    X, usual = table(400), table(100, seed=1)
    # Each value is one that its column has: only their combination is unusual.
    outliers = np.random.default_rng(2).permuted(usual, axis=0)
    outliers = outliers[np.abs(outliers - table(100, noise=0.0, seed=1)).max(1) > 2]
    settings = {"hidden": (20,), "epochs": 40, "learning_rate": 1e-2, "evaluation_samples": 50, "random_state": 0}
    model = VariationalAutoencoder(**settings).fit(X)
    low, high = model.score_samples(outliers), model.score_samples(usual)
    above = (high[:, None] > low).mean()  # the area under the ROC curve
    assert above > 0.95


def test_reconstructions_are_nearer_than_the_mean(linear):
    model, X = linear
    error = ((model.inverse_transform(model.transform(X)) - X) ** 2).mean()
    assert error < 0.25 * X.var(axis=0).mean()
    np.testing.assert_array_equal(model.transform(X), model.transform(X))


@unchecked_shapes()
@pytest.mark.slow
def test_search_over_a_pipeline_finds_the_latents_of_the_data():
    model = VariationalAutoencoder(
        hidden=(),
        epochs=40,
        learning_rate=2e-2,
        batch_size=50,
        evaluation_samples=30,
        random_state=0,
        validation_fraction=0.0,
    )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {"variationalautoencoder__latent_dim": [1, 2]},
        cv=2,
    ).fit(table(200))
    assert search.best_params_ == {"variationalautoencoder__latent_dim": 2}
    assert search.transform(table(7)).shape == (7, 2)


def test_named_columns():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(table(30), columns=list("abcde"), index=range(100, 130))
    model = VariationalAutoencoder(**QUICK).set_output(transform="pandas").fit(X)
    z = model.transform(X)
    assert (
        list(z.columns) == ["variationalautoencoder0", "variationalautoencoder1"] == list(model.get_feature_names_out())
    )
    assert list(z.index) == list(X.index)
    assert list(model.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(X.rename(columns={"a": "z"}))


@pytest.mark.slow
def test_random_state_is_all_there_is_to_chance():
    X = table(50)
    before, before_numpy = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 (its state is meant)

    def numbers(random_state: int) -> np.ndarray:
        model = VariationalAutoencoder(**QUICK, random_state=random_state).fit(X)
        return np.concatenate(
            [model.score_samples(X), model.transform(X).ravel(), model.sample(5, random_state).ravel()]
        )

    np.testing.assert_array_equal(numbers(3), numbers(3))
    assert (numbers(3) != numbers(4)).all()
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_equal(np.random.get_state(legacy=False), before_numpy)  # noqa: NPY002
    free = VariationalAutoencoder(**QUICK)
    assert (free.fit(X).transform(X) != free.fit(X).transform(X)).all()
    assert (free.sample(5) != free.sample(5)).all()


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name != "columns"])  # of arrays
def test_samples_are_such_data(likelihood):
    rng, counts = np.random.default_rng(0), LIKELIHOODS[likelihood].is_discrete
    X = {
        "bernoulli": rng.integers(2, size=(60, 3)),
        "continuous-bernoulli": rng.random(size=(60, 3)),
        "categorical": rng.integers(4, size=(60, 3)),
    }.get(likelihood, rng.poisson(4.0, size=(60, 3)) if counts else rng.normal(size=(60, 3)))
    name = "auto" if likelihood in ("bernoulli", "student-t") else likelihood
    model = VariationalAutoencoder(**QUICK, likelihood=name, num_classes=4, random_state=0).fit(X)
    assert model.likelihood_ == likelihood
    samples = model.sample(2500, random_state=0)
    assert samples.shape == (2500, 3)
    assert samples.dtype == np.float64
    allowed = {
        "bernoulli": np.isin(samples, [0, 1]),
        "continuous-bernoulli": (samples >= 0) & (samples <= 1),
        "categorical": np.isin(samples, range(4)),
    }.get(likelihood, (samples >= 0) & (samples == samples.round()) if counts else np.isfinite(samples))
    assert allowed.all()
    assert np.isfinite(model.score_samples(samples[:5])).all()
    assert model.sample().shape == (1, 3)


def test_discrete_probabilities_sum_to_one():
    X = np.random.default_rng(0).integers(2, size=(50, 2))
    model = VariationalAutoencoder(hidden=(8,), epochs=3, random_state=0).fit(X)
    everything = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    error = score(model.model_, Split(torch.tensor(everything).float())).standard_error.numpy()
    probabilities = np.exp(model.score_samples(everything))
    assert abs(probabilities.sum() - 1) < 5 * (probabilities * error).sum()


@pytest.mark.parametrize("rows", [2, 3, 11])
def test_few_rows(rows):
    model = VariationalAutoencoder(**QUICK).fit(table(rows))
    assert np.isfinite(model.score(table(rows)))
    assert model.history_.epochs[0].validation is not None


def test_early_stopping_keeps_the_best_epoch():
    model = VariationalAutoencoder(hidden=(8,), epochs=500, learning_rate=0.05, patience=3, random_state=0).fit(
        table(60)
    )
    assert model.n_iter_ == len(model.history_.epochs) < 500
    assert model.history_.best_epoch == model.n_iter_ - 3
    model.set_params(validation_fraction=0.0, patience=None, epochs=2).fit(table(60))
    assert model.history_.best_epoch is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"likelihood": "bernoulli"}, "row 1 holds"),
        ({"likelihood": "poisson"}, "use the likelihood gaussian"),
        ({"network": "conv"}, "a convolutional network needs images"),
        ({"latent_dim": 0}, "latent_dim must be at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"validation_fraction": 0.0, "patience": 1}, "no validation data"),
        ({"device": "abacus"}, "device must be one of"),
        ({"prior": "vamp", "prior_components": 50}, "pseudo-inputs"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(InputError, match=message):
        VariationalAutoencoder(**{**QUICK, **settings}).fit(table(30))


def test_refused_data():
    with pytest.raises(NotFittedError):
        VariationalAutoencoder().sample()
    with pytest.raises(NotFittedError):
        VariationalAutoencoder().inverse_transform([[0.0, 0.0]])
    bits = np.random.default_rng(0).integers(2, size=(30, 3))
    model = VariationalAutoencoder(**QUICK).fit(bits)
    for method in (model.transform, model.score_samples):
        with pytest.raises(ValueError, match="X has 2 features, but VariationalAutoencoder is expecting 3"):
            method([[0, 1]])
    with pytest.raises(InputError, match="latents with 2 columns"):
        model.inverse_transform([[0.0, 0.0, 0.0]])
    with pytest.raises(InputError, match="n_samples must be at least 1"):
        model.sample(0)


@pytest.mark.parametrize(
    "X",
    [
        np.random.default_rng(0).integers(18, 90, size=(60, 2)),  # ages
        np.random.default_rng(0).random(size=(60, 2)),
        2.0**25 + 4e6 * np.random.default_rng(0).normal(size=(60, 2)),  # whole numbers to float32, and no others
        np.vstack([np.random.default_rng(0).poisson(3.0, size=(59, 2)), [[3.5, 1.0]]]),
    ],
    ids=["whole", "in [0, 1]", "beyond 2^24", "all but one whole"],
)
def test_numbers_that_are_not_bits_are_real_whatever_they_happen_to_be(X):
    assert VariationalAutoencoder(**QUICK, random_state=0).fit(X).likelihood_ == "student-t"


@unchecked_shapes()
def test_a_cross_validation_of_scaled_columns_is_finite():
    model = make_pipeline(MinMaxScaler(), VariationalAutoencoder(**QUICK, random_state=0))
    assert np.isfinite(cross_val_score(model, table(60))).all()


@pytest.mark.parametrize(
    "likelihood, usual, outside",
    [
        ("bernoulli", [0, 1], [0.5, 2, -1]),
        ("continuous-bernoulli", [0.0, 0.3, 1.0], [1.2, -1e-3]),
        ("poisson", [0, 3, 7], [2.5, -1]),
        ("categorical", [0, 1, 4], [5, 1.5, -1]),
    ],
)
@unchecked_shapes()
def test_a_row_without_a_density_scores_minus_infinity_and_leaves_the_others_alone(likelihood, usual, outside):
    X = np.random.default_rng(0).choice(usual, size=(40, 2))
    model = VariationalAutoencoder(**QUICK, likelihood=likelihood, random_state=0).fit(X)
    alone = model.score_samples(X[:4])
    mixed = np.vstack([X[:2], [[value, usual[0]] for value in outside], X[2:4]])
    scores = model.score_samples(mixed)
    assert np.isneginf(scores[2:-2]).all()
    np.testing.assert_array_equal(scores[[0, 1, -2, -1]], alone)
    assert np.isfinite(model.transform(mixed)).all()
    with pytest.raises(InputError, match="outside of what the likelihood describes"):
        model.fit(mixed)


def test_each_column_has_its_own_classes():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(3, size=200), rng.integers(50, size=200), np.zeros(200)])
    X[0, :2] = 2, 49
    model = VariationalAutoencoder(**QUICK, likelihood="categorical", random_state=0).fit(X)
    assert (model.sample(1000, random_state=0).max(0) < [3, 50, 2]).all()
    assert np.isneginf(model.score_samples([[3, 0, 0], [0, 50, 0], [0, 3, 2]])).all()
    assert np.isfinite(model.score_samples([[2, 49, 1]])).all()


@unchecked_shapes()
@pytest.mark.slow
def test_one_far_cell_costs_the_other_rows_next_to_nothing():
    X, usual = table(500), table(100, seed=1)
    settings = {"hidden": (20,), "epochs": 15, "learning_rate": 1e-2, "evaluation_samples": 20, "random_state": 0}
    clean = VariationalAutoencoder(**settings).fit(X).score(usual)
    X[5, 1] = 1e6
    assert VariationalAutoencoder(**settings).fit(X).score(usual) > clean - 1


@unchecked_shapes()
def test_a_constant_column_is_named_stays_as_it_was_and_is_noticed_where_it_changes():
    X = np.column_stack([table(100), np.full(100, 0.1), np.zeros(100)])
    with pytest.warns(UserWarning, match="one value in column 6, column 7"):
        model = VariationalAutoencoder(**QUICK, random_state=0).fit(X)
    with pytest.warns(UserWarning, match="one value in column 6, column 7"):
        normal = VariationalAutoencoder(**QUICK, likelihood="gaussian", random_state=0).fit(X)
    new = model.sample(500, random_state=0)
    assert abs(new[:, 5] / 0.1 - 1).max() < 0.01
    assert abs(new[:, 6]).max() < 0.01
    shifted = X[:5] + 5.0 * np.eye(7)[5]  # 50 times its value
    assert (model.score_samples(shifted) < model.score_samples(X[:5]) - 100).all()  # its tails are heavy
    assert (normal.score_samples(shifted) < normal.score_samples(X[:5]) - 1e6).all()
    assert np.isfinite(model.transform(shifted)).all()


def test_ctrl_c_ends_a_search_and_not_one_fit_of_it(monkeypatch):
    def interrupted(*args, **kwargs):
        raise Interrupted("stopped", signal=signal.SIGINT)

    monkeypatch.setattr(subo.sklearn.estimator, "fit", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            GridSearchCV(VariationalAutoencoder(**QUICK), {"latent_dim": [1, 2]}, cv=2).fit(table(20))
    finally:
        signal.signal(signal.SIGINT, before)
