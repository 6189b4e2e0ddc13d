"""The estimator on tables: frames of pandas and polars, arrays with missing cells, sparse matrices."""

import datetime
import pickle
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch.distributions import MultivariateNormal

from assertions import assert_refused
from shapes import unchecked_shapes
from subo import InputError, VariationalAutoencoder
from subo.evaluation import score

QUICK: dict[str, Any] = {"epochs": 2, "hidden": (8,), "evaluation_samples": 20, "random_state": 0}
GRADES = ["low", "mid", "high", "top"]

pytestmark = pytest.mark.filterwarnings("ignore:X. the weights of .* are worth fewer than 10 samples")  # of 20


def mixed(rows: int = 80, *, seed: int = 0) -> pd.DataFrame:
    """A table of columns of all types, some of whose cells are missing, with an index that is not 0, 1, ..."""
    rng = np.random.default_rng(seed)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), "D")
    city = pd.Series(rng.choice(["Oslo", "Rome", "Bern"], rows))
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 9, rows).round(1),
            "half": rng.normal(size=rows).astype("float32"),
            "visits": pd.Series(rng.poisson(30, rows)).astype("Int64"),
            "city": city,
            "grade": pd.Categorical(rng.choice(GRADES[:3], rows), GRADES, ordered=True),
            "member": pd.Series(rng.random(rows) < 0.4).astype("boolean"),
            "smokes": pd.Series((rng.random(rows) < 0.4).tolist(), dtype=object),
            "since": days,
            "zoned": days.tz_localize("Europe/Oslo"),
            "note": pd.Series(rng.choice(["a", "b"], rows)).astype("string"),
            "id": [f"person {row}" for row in range(rows)],
        }
    )
    for name in frame.columns[:-1]:
        frame.loc[rng.random(rows) < 0.1, name] = None
    return frame.set_axis(pd.Index(range(1000, 1000 + rows), name="number"))


def quietly(model: VariationalAutoencoder, X: Any) -> Any:
    """A fit without the warning of what is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X: left out")
        return model.fit(X)


def columns_of(model: Any) -> Any:
    """The columns of a fit."""
    return model.schema_.columns


@pytest.fixture(scope="module")
def fitted() -> Any:
    return quietly(VariationalAutoencoder(**QUICK), mixed())


@pytest.fixture(scope="module")
def linear() -> tuple[VariationalAutoencoder, pd.DataFrame]:
    """A linear model of real columns: any of its cells are jointly normal, with known moments."""
    rng = np.random.default_rng(0)
    weight = np.array([[1.0, 1.0, 0.5, -1.0], [0.0, 1.0, -1.0, 0.5]])
    x = rng.normal(size=(300, 2)) @ weight + 0.5 * rng.normal(size=(300, 4))
    frame = pd.DataFrame(x * [1, 10, 0.1, 3] + [0, 100, 0, -5], columns=list("abcd"))
    frame = frame.mask(rng.random((300, 4)) < 0.3).dropna(how="all")
    columns = dict.fromkeys("abcd", "real")
    plain = {"latent_dim": 2, "hidden": (), "prior": "normal", "scale": "per-dimension", "degrees_of_freedom": 1e12}
    training = {"epochs": 40, "batch_size": 100, "learning_rate": 2e-2, "random_state": 0}
    model = VariationalAutoencoder(**plain, **training, columns=columns)
    with unchecked_shapes():
        return model.set_params(evaluation_samples=4000).fit(frame), frame


def moments(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the cells of a linear model."""
    ends = model.model_.decode(torch.eye(3, 2, dtype=torch.float64).roll(1, 0), {})
    bias, *columns = ends.mean.detach()
    weight = torch.stack(columns, 1) - bias[:, None]
    (group,) = ends.groups  # all columns are real
    variance = group.make(ends.params).variance[0]
    order = group.index.argsort()
    unit = torch.tensor([column.unit for column in columns_of(model)], dtype=torch.float64)
    center = torch.tensor([column.center for column in columns_of(model)], dtype=torch.float64)
    covariance = weight @ weight.mT + variance.detach()[order].diag()
    return bias * unit + center, covariance * unit[:, None] * unit


def test_scores_are_the_exact_evidence_of_the_observed_cells(linear):
    model, frame = linear
    mean, covariance = moments(model)
    rows = frame.iloc[:40]
    error = score(model.model_, model._checked(rows), num_samples=4000).standard_error.numpy()
    exact = []
    for cells in torch.tensor(rows.to_numpy()):
        known = ~cells.isnan()
        normal = MultivariateNormal(mean[known], covariance[known][:, known])
        exact.append(normal.log_prob(cells[known]).item())
    scores = model.score_samples(rows)
    assert (abs(scores - exact) < 5 * error + 1e-5).all()
    assert model.score(rows) == scores.mean()
    np.testing.assert_array_equal(model.score_samples(rows.iloc[[7, 3]]), scores[[7, 3]])


def test_draws_of_missing_cells_have_the_exact_conditional_moments(linear):
    model, frame = linear
    mean, covariance = moments(model)
    rows = frame[frame.isna().sum(axis=1) == 2].iloc[:5]
    count = 100
    draws = np.stack([copy.to_numpy() for copy in model.impute(rows, draws=count)])
    guesses = model.impute(rows).to_numpy()
    for number, cells in enumerate(torch.tensor(rows.to_numpy())):
        gone, known = cells.isnan(), ~cells.isnan()
        gain = covariance[gone][:, known] @ torch.linalg.inv(covariance[known][:, known])
        expected = (mean[gone] + gain @ (cells[known] - mean[known])).numpy()
        spread = (covariance[gone][:, gone] - gain @ covariance[known][:, gone]).diag().sqrt().numpy()
        drawn = draws[:, number][:, gone.numpy()]
        assert (abs(drawn.mean(0) - expected) < 5 * spread / np.sqrt(count / 2)).all()
        assert (abs(drawn.std(0) / spread - 1) < 5 / np.sqrt(count)).all()
        assert (abs(guesses[number][gone.numpy()] - expected) < 5 * spread / np.sqrt(100 / 2)).all()
        np.testing.assert_array_equal(draws[:, number][:, known.numpy()], np.tile(cells[known], (count, 1)))


def test_a_frame_is_filled_and_otherwise_stays_as_it_is(fitted):
    X = mixed()
    before = X.copy()
    whole = fitted.impute(X)
    pd.testing.assert_frame_equal(X, before)
    pd.testing.assert_index_equal(whole.index, X.index)
    pd.testing.assert_series_equal(whole.dtypes, X.dtypes)
    assert whole.notna().all(axis=None)
    pd.testing.assert_frame_equal(whole.where(X.notna()), X.where(X.notna()), check_dtype=False)
    pd.testing.assert_frame_equal(fitted.impute(X), whole)
    first, second = fitted.impute(X, draws=2)
    assert (first["age"] != second["age"]).sum() == X["age"].isna().sum()
    assert (fitted.impute(X, draws=1, random_state=1)[0]["age"] != first["age"]).any()


def test_new_rows_have_the_columns_and_types_of_the_fit(fitted):
    X, new = mixed(), fitted.sample(200, random_state=0)
    assert list(new.columns) == [name for name in X.columns if name != "id"]
    pd.testing.assert_series_equal(new.dtypes, X.dtypes.drop("id"))
    assert new.notna().all(axis=None)
    assert set(new["city"]) == {"Oslo", "Rome", "Bern"}
    assert set(new["grade"]) == {"low", "mid", "high"}
    assert (new["since"] == new["since"].dt.normalize()).all()
    assert np.isfinite(fitted.score_samples(new.iloc[:5])).all()
    pd.testing.assert_frame_equal(fitted.sample(200, random_state=0), new)
    means = fitted.inverse_transform(fitted.transform(X.iloc[:3]))
    pd.testing.assert_series_equal(means.dtypes, new.dtypes)


def as_polars(frame: pd.DataFrame) -> pl.DataFrame:
    """The same table with the types of polars."""
    columns = {name: [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame.columns}
    columns["since"] = [None if moment is None else moment.date() for moment in columns["since"]]
    types = {
        "half": pl.Float32(), "visits": pl.Int32(), "grade": pl.Enum(GRADES),
        "note": pl.Categorical(), "since": pl.Date(), "zoned": pl.Datetime("us", "Europe/Oslo"),
    }  # fmt: skip
    return pl.DataFrame([pl.Series(name, cells, types.get(name), strict=False) for name, cells in columns.items()])


def test_polars_comes_in_and_goes_out_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    X, frame = as_polars(mixed()), mixed()
    frame["grade"] = frame["grade"].cat.as_unordered()  # as an Enum, whose order may mean nothing
    model, fitted = (quietly(VariationalAutoencoder(**QUICK), table) for table in (X, frame))
    assert [column.kind for column in columns_of(model)] == [column.kind for column in columns_of(fitted)]
    np.testing.assert_allclose(model.score_samples(X[:5]), fitted.score_samples(mixed().iloc[:5]), rtol=1e-9)
    whole = model.impute(X)
    assert whole.schema == X.schema
    assert whole.null_count().sum_horizontal().item() == 0
    for name in X.columns:
        assert (whole[name] == X[name]).drop_nulls().all()
    new = model.sample(50, random_state=0)
    assert new.schema == {name: dtype for name, dtype in X.schema.items() if name != "id"}
    expected = fitted.sample(50, random_state=0)
    assert new["city"].to_list() == expected["city"].to_list()
    assert new["since"].to_list() == [moment.date() for moment in expected["since"]]
    assert new["zoned"].to_list() == [moment.to_pydatetime() for moment in expected["zoned"]]
    assert model.set_output(transform="polars").transform(X).columns == list(model.get_feature_names_out())
    with assert_refused("X is a lazy frame"):
        model.fit(X.lazy())


def test_two_columns_of_one_name_are_refused(fitted):
    frame = pd.DataFrame(np.zeros((30, 3)), columns=["a", "b", "a"])
    for model in (clone(fitted), clone(fitted).set_params(likelihood="gaussian")):
        with assert_refused("X: two columns have the name 'a': rename one"):
            model.fit(frame)


def test_a_column_without_cells_gets_the_type_of_the_fit(fitted):
    X = as_polars(mixed()).with_columns(city=pl.lit(None), visits=pl.lit(None))
    whole = quietly(VariationalAutoencoder(**QUICK), as_polars(mixed())).impute(X)
    assert (whole["city"].dtype, whole["visits"].dtype) == (pl.String, pl.Int64)
    assert whole.null_count().sum_horizontal().item() == 0
    assert fitted.impute(mixed().assign(city=np.nan))["city"].isin(["Oslo", "Rome", "Bern"]).all()


def test_columns_are_found_by_name(fitted):
    X = mixed().iloc[:5]
    scores = fitted.score_samples(X)
    np.testing.assert_array_equal(fitted.score_samples(X[X.columns[::-1]].drop(columns="id")), scores)
    with pytest.warns(UserWarning, match="column 'more' is left out: not in the fit"):
        np.testing.assert_array_equal(fitted.score_samples(X.assign(more=1)), scores)
    with assert_refused("column 'city' of the fit is missing"):
        fitted.transform(X.drop(columns="city"))
    with pytest.warns(UserWarning, match="column 'city': 1 cell holds what the fit has never seen \\('Lima'\\)"):
        other = fitted.score_samples(X.assign(city=["Lima", *X["city"].iloc[1:]]))
    assert other[0] < scores[0]
    np.testing.assert_array_equal(other[1:], scores[1:])
    with assert_refused("X has no rows"):
        fitted.transform(X.iloc[:0])


def test_a_frame_of_numbers_keeps_its_order_by_the_contract():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc")).assign(label=1.0)
    X.iloc[3, 1] = None
    model = quietly(VariationalAutoencoder(**QUICK), X)
    assert [column.kind for column in columns_of(model)] == ["real"] * 3 + ["drop"]  # no labels
    with pytest.raises(ValueError, match="same order as they were in fit"):
        model.transform(X[X.columns[::-1]])
    assert model.impute(model.sample(4)).shape == (4, 4)  # with the constant
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(model.transform(X.to_numpy()), model.transform(X))


def test_what_is_left_out_is_said_unless_it_was_asked_for():
    X = mixed()
    with pytest.warns(UserWarning, match="left out: 'id' \\(every row has a text of its own"):
        VariationalAutoencoder(**QUICK).fit(X)
    model = VariationalAutoencoder(**QUICK, columns="id=drop, age=positive").fit(X)
    assert columns_of(model)[0].kind == "positive"
    same = VariationalAutoencoder(**QUICK, columns={"id": "drop", "age": "positive"}).fit(X)
    assert same.schema_ == model.schema_
    with assert_refused("column 'city' cannot be of the kind real"):
        VariationalAutoencoder(columns={"city": "real"}).fit(X)
    with assert_refused("there is no column 'town'"):
        VariationalAutoencoder(columns="town=category").fit(X)
    with assert_refused("`columns` are kinds of columns, but"):
        VariationalAutoencoder(columns="age=real", likelihood="gaussian").fit(X[["age"]])


def test_an_array_with_missing_cells_is_a_table():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=40), rng.poisson(30, 40), rng.integers(2, size=40)])
    assert VariationalAutoencoder(**QUICK).fit(X).schema_ is None
    X[3, 1] = np.nan
    model = VariationalAutoencoder(**QUICK).fit(X)
    assert [(column.name, column.kind) for column in columns_of(model)] == [
        ("x0", "real"), ("x1", "ordinal"), ("x2", "boolean"),
    ]  # fmt: skip
    whole = model.impute(X)
    assert isinstance(whole, np.ndarray)
    assert np.isfinite(whole).all()
    assert ((whole == X) | np.isnan(X)).all()
    assert model.sample(5).shape == (5, 3)
    assert np.isfinite(model.score_samples(X[:4])).all()
    asked = VariationalAutoencoder(**QUICK, columns={"x1": "count"}).fit(whole)
    assert columns_of(asked)[1].kind == "count"
    with assert_refused("1 of 120 cells are missing"):
        VariationalAutoencoder(**QUICK, likelihood="gaussian").fit(X)
    numbers = VariationalAutoencoder(**QUICK).fit(whole)
    with assert_refused("1 of 120 cells are missing"):
        numbers.transform(X)
    np.testing.assert_array_equal(numbers.impute(whole), whole)


def test_a_sparse_matrix_is_the_dense_one(monkeypatch):
    X = np.random.default_rng(0).poisson(0.3, size=(40, 5))
    model = VariationalAutoencoder(**QUICK, likelihood="poisson")
    scores = model.fit(X).score_samples(X[:5])
    for form in (sparse.csr_matrix, sparse.coo_array):
        assert model.fit(form(X)).likelihood_ == "poisson"
        np.testing.assert_array_equal(model.score_samples(form(X[:5])), scores)
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: 1000)
    with assert_refused("X as a dense table of 40 rows and 5 columns takes about"):
        VariationalAutoencoder(**QUICK, likelihood="columns").fit(sparse.csr_matrix(X))


def test_numbers_of_one_kind_of_a_frame_come_back_as_a_frame():
    X = pd.DataFrame(np.random.default_rng(0).poisson(3.0, size=(40, 2)), columns=["a", "b"])
    new = VariationalAutoencoder(**QUICK, likelihood="poisson").fit(X).sample(3)
    assert list(new.columns) == ["a", "b"]
    assert (new.dtypes == "int64").all()
    means = VariationalAutoencoder(**QUICK, likelihood="gaussian").fit(X).sample(3)
    assert (means.dtypes == "float64").all()  # no fraction is cut off


def test_a_fitted_table_is_copied_and_stored(fitted):
    X = mixed().iloc[:3]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    pd.testing.assert_frame_equal(again.sample(3, random_state=0), fitted.sample(3, random_state=0))
    unfitted: Any = clone(fitted)
    with pytest.raises(NotFittedError):
        unfitted.impute(X)
    assert list(again.set_output(transform="pandas").transform(X).index) == list(X.index)
    assert list(again.feature_names_in_) == list(X.columns)


def test_few_samples_that_count_are_said():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame.iloc[:5, 0] = None
    model = VariationalAutoencoder(**{**QUICK, "evaluation_samples": 5}).fit(frame)
    with pytest.warns(UserWarning, match="the weights of 5 rows are worth fewer than 10 samples.*evaluation_samples"):
        whole = model.impute(frame)
    pd.testing.assert_frame_equal(whole.iloc[5:], frame.iloc[5:])
    assert whole.notna().all().all(), "said, and filled all the same"


def test_dates_of_python_stay_dates():
    rng = np.random.default_rng(0)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(int(day)) for day in rng.integers(0, 90, 40)]
    frame = pd.DataFrame({"day": pd.Series([*days[:-1], None], dtype=object), "a": rng.normal(size=40)})
    whole = VariationalAutoencoder(**QUICK).fit(frame).impute(frame)
    assert isinstance(whole["day"].iloc[-1], datetime.date)
    assert list(whole["day"].iloc[:-1]) == days[:-1]


def test_draws_are_divided_among_refits(fitted):
    frame = mixed().head(40)
    tables = fitted.impute(frame, draws=4, refits=2)
    assert len(tables) == 4
    assert all(not table[name].isna().any() for table in tables for name in ("age", "city"))
    gone = frame.age.isna()
    by_fit = [np.mean([table.age[gone].mean() for table in tables[k : k + 2]]) for k in (0, 2)]
    assert by_fit[0] != by_fit[1]
    again = fitted.impute(frame, draws=4, refits=2)
    pd.testing.assert_frame_equal(tables[3], again[3])
    with pytest.raises(InputError, match="`draws` must be a multiple of 3"):
        fitted.impute(frame, draws=4, refits=3)


def test_columns_may_be_scaled_by_their_quantiles():
    model = quietly(VariationalAutoencoder(**QUICK, column_scaling="quantile"), mixed())
    assert {column.name for column in columns_of(model) if column.knots} == {"age", "half", "visits", "since", "zoned"}
    whole = model.impute(mixed())
    assert not whole.drop(columns="id").isna().any(axis=None)
    assert whole["age"].between(-20, 120).all()


# Columns as a condition, and sizes


def sorted_counts(rows: int = 300) -> pd.DataFrame:
    """A column whose mean depends on the sort of a row, and a count in proportion to its depth."""
    rng = np.random.default_rng(0)
    sort, depth = rng.choice(["a", "b"], rows), rng.uniform(0.5, 2.0, rows).round(2)
    y = np.where(sort == "a", 0.0, 5.0) + 0.5 * rng.normal(size=rows)
    return pd.DataFrame({"sort": sort, "depth": depth, "y": y, "n": rng.poisson(20 * depth)})


@pytest.fixture(scope="module")
@unchecked_shapes()
def conditional() -> VariationalAutoencoder:
    settings: dict[str, Any] = {"condition": "sort", "size_factor": "depth", "columns": "n=count", "hidden": (16,)}
    return VariationalAutoencoder(**settings, epochs=30, evaluation_samples=50, random_state=0).fit(sorted_counts())


def test_rows_are_drawn_given_the_condition(conditional: VariationalAutoencoder):
    schema: Any = conditional.schema_
    assert [column.name for column in schema.given.modeled] == ["sort"]
    assert [column.name for column in schema.modeled] == ["y", "n"]
    for sort, mean in (("a", 0.0), ("b", 5.0)):
        rows = conditional.sample(500, 0, given={"sort": sort})
        assert set(rows["sort"]) == {sort}
        assert abs(rows["y"].mean() - mean) < 0.3
    free = conditional.sample(1000, 0)
    assert list(free.columns) == ["sort", "y", "n"]
    assert abs((free["sort"] == "a").mean() - (sorted_counts()["sort"] == "a").mean()) < 5 * 0.5 / 1000**0.5
    both = conditional.sample(2, 0, given=pd.DataFrame({"other": [1, 2], "sort": ["b", "a"]}))
    assert list(both["sort"]) == ["b", "a"]
    assert both["y"].iloc[0] > 2.5 > both["y"].iloc[1]
    means = conditional.inverse_transform(
        np.zeros((2, conditional.transform(free.assign(depth=1.0)).shape[1])), given=both
    )
    assert abs(means["y"].iloc[0] - 5) < 0.5


def test_a_frame_without_rows_is_refused():
    with assert_refused("X has no row"):
        VariationalAutoencoder().fit(pd.DataFrame({"a": [], "b": []}))


def test_scores_are_given_condition_and_size(conditional: VariationalAutoencoder):
    """Those of the model itself: the density of y and n alone, at the row's sort and its depth over the mean depth."""
    frame = sorted_counts().head(5)
    wrong = frame.assign(sort=frame["sort"].map({"a": "b", "b": "a"}))
    assert (conditional.score_samples(frame) > conditional.score_samples(wrong) + 5).all()
    deep = frame.assign(depth=frame["depth"] * 4)
    assert (conditional.score_samples(frame) > conditional.score_samples(deep) + 2).all()
    unit: Any = conditional.size_factor_
    parts = conditional._table.read(frame)
    assert torch.equal(parts.context["size"], torch.tensor(frame["depth"].to_numpy()))
    context = {**parts.context, "size": parts.context["size"] / unit.unit}
    result = score(conditional.model_, type(parts)(parts.x, context=context), num_samples=2000, seed=1)
    error = result.standard_error.numpy() + 0.3  # of 50 samples
    np.testing.assert_array_less(abs(conditional.score_samples(frame) - result.log_px.numpy()), 5 * error)


def test_a_condition_that_does_not_fit_is_refused(conditional: VariationalAutoencoder):
    frame = sorted_counts()
    for name in ("sort", "depth"):
        with assert_refused(f"column '{name}' of the fit is missing"):
            conditional.score(frame.drop(columns=name))
    z = np.zeros((2, conditional.transform(frame).shape[1]))
    with assert_refused("conditioned on sort", "`given`"):
        conditional.inverse_transform(z)
    with assert_refused("there is no column 'x'"):
        conditional.sample(2, given={"x": 1})
    with assert_refused("leaves out sort"):
        conditional.sample(2, given=frame[["y"]])
    with assert_refused("3 rows", "one for each of 2"):
        conditional.sample(2, given=frame.head(3))
    with assert_refused("received int"):
        conditional.sample(2, given=3)
    with assert_refused("sort cannot be 'c'", "its levels are a, b"):
        conditional.sample(2, given=pd.DataFrame({"sort": ["a", "c"]}))
    with assert_refused("sort needs one value, not list"):
        conditional.sample(2, given={"sort": ["a", "b"]})
    refused: Any = (
        ({"condition": "zip"}, frame, ("no column 'zip'",)),
        ({"condition": "labels"}, frame, ("y is not read",)),
        ({"condition": "y"}, frame[["y", "n"]].to_numpy(), ("numbers of one kind",)),
        ({"size_factor": "observed"}, frame, ("no column 'observed'",)),
        ({"size_factor": "depth", "likelihood": "negative-binomial"}, frame[["n"]], ("use observed",)),
    )
    for settings, X, facts in refused:
        with assert_refused("`" + next(iter(settings)) + "`", *facts):
            VariationalAutoencoder(**QUICK, **settings).fit(X)
    with assert_refused("not conditioned", "`given`"):
        VariationalAutoencoder(**QUICK).fit(frame[["y", "n"]].to_numpy()).sample(2, given={"y": 1})


def test_missing_cells_are_filled_given_the_condition(conditional: VariationalAutoencoder):
    frame = sorted_counts()
    gaps = frame.assign(y=frame["y"].where(frame.index >= 20))
    filled = conditional.impute(gaps)
    assert (abs(filled["y"] - frame["y"])[:20] < 2.5).all()
    pd.testing.assert_frame_equal(filled[["sort", "depth", "n"]], frame[["sort", "depth", "n"]])
