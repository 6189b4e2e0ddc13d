"""Cells as numbers and back: round trips, and densities in the cells' units."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import subo
from assertions import assert_refused
from subo.data.tables.coding import decode, encode, level_numbers, raw_numbers, scaled, with_constants
from subo.data.tables.inferring import completed, infer_schema
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Column, Schema
from subo.errors import InputError
from subo.parts.columns import Columns

NAN, INF = math.nan, math.inf


def coded(cells, **column):
    """The numbers of one column."""
    return encode(pd.DataFrame({"a": cells}), Schema((Column("a", **column),)))[:, 0].tolist()


# Cells to numbers


@pytest.mark.parametrize(
    "column, cells, numbers",
    [
        ({"kind": "real", "center": 40.0, "unit": 10.0}, [30, None, 45], [-1, NAN, 0.5]),
        ({"kind": "real", "center": 1.0}, ["2.5", "1", None], [1.5, 0, NAN]),
        (
            {"kind": "positive", "log": True, "center": 1.0, "unit": 2.0},
            [math.e, math.e**5, 0, None],
            [0, 2, -INF, NAN],
        ),
        ({"kind": "spike", "spike": 0.0, "unit": 2.0}, [0, 3, -1, None], [INF, 1.5, -0.5, NAN]),
        ({"kind": "spike", "spike": 0.0, "log": True}, [0, math.e, -1, None], [INF, 1, -INF, NAN]),
        ({"kind": "spike", "spike": 1.0, "log": True}, [1, 0.5**0.5], [INF, -math.log(2) / 2]),
        ({"kind": "count"}, [3, 0, None], [3, 0, NAN]),
        ({"kind": "boolean", "levels": (False, True)}, [True, False, None], [1, 0, NAN]),
        ({"kind": "boolean", "levels": ("no", "yes")}, ["yes", None, "perhaps"], [1, NAN, 2]),
        ({"kind": "category", "levels": ("u", "v")}, ["v", "w", None, "u"], [1, 2, NAN, 0]),
        ({"kind": "ordinal", "levels": (1, 2, 5)}, [5.0, 1.0, 3.0, None], [2, 0, 3, NAN]),
        ({"kind": "date", "center": 1.0, "unit": 2.0}, ["1970-01-02", "1970-01-06", None], [0, 2, NAN]),
        ({"kind": "date", "day_first": True}, ["02/01/1970", None, "1970-01-04"], [1, NAN, 3]),
        ({"kind": "date", "day_first": False}, ["02/01/1970", None, "1970-01-04"], [31, NAN, 3]),
        ({"kind": "date"}, pd.to_datetime(pd.Series(["1970-01-02T12:00", None])), [1.5, NAN]),
        ({"kind": "date"}, pd.to_datetime(["1970-01-02T01:00"]).tz_localize("Europe/Rome"), [1]),
    ],
)
def test_the_numbers_of_cells(column, cells, numbers):
    np.testing.assert_array_equal(np.asarray(coded(cells, **column), dtype=np.float32), np.float32(numbers))


def test_levels_are_found_whether_pandas_reads_them_as_text_or_numbers():
    assert coded([90210, 1234], kind="category", levels=("01234", "90210")) == [1, 2]
    np.testing.assert_equal(coded([90210.0, None], kind="category", levels=("01234", "90210")), [1, NAN])
    assert coded(["1", "x", "2"], kind="ordinal", levels=(1, 2.0)) == [0, 2, 1]
    assert coded(["True", "x"], kind="boolean", levels=(False, True)) == [1, 2]
    assert coded([1, 0], kind="boolean", levels=(False, True)) == [1, 0]


def test_columns_are_found_by_name_and_others_are_left_alone():
    schema = Schema((Column("a", "real"), Column("gone", "drop"), Column("b", "count")))
    frame = pd.DataFrame({"other": ["x"], "b": [2], "a": [0.5]}, index=[7])
    assert encode(frame, schema).tolist() == [[0.5, 2.0]]
    assert encode(frame, schema).dtype == torch.float32
    with assert_refused("the table has no column 'a', 'b'; its columns are other"):
        encode(frame[["other"]], schema)


def test_finite_cells_stay_finite_in_float32():
    largest = np.finfo(np.float32).max
    assert coded([1e300, -1e300, 0], kind="spike", spike=0.0, unit=1e-3) == [largest, -largest, INF]


@pytest.mark.parametrize(
    "kind, cells, fact",
    [
        ("real", [1, "x", "y"], "row 2: 'x' is not a number"),
        ("count", [None, "x", "y"], "row 2: 'x' is not a number"),
        ("real", [1, None, INF], "row 3: inf is not a finite number"),
        ("positive", ["1", "-inf"], "row 2: -inf is not a finite number"),
        ("count", [INF, 1], "row 1: inf is not a finite number"),
        ("spike", [0, -INF], "row 2: -inf is not a finite number"),
        ("ordinal", [1, INF], "row 2: inf is not a finite number"),
        ("category", [1, INF], "row 2: inf is not a finite number"),
        ("date", ["2020-01-01", None, "soon"], "row 3: 'soon' is not a date"),
    ],
)
def test_cells_that_are_not_of_the_kind_are_refused_by_name(kind, cells, fact):
    levels = (1, 2) if kind in ("ordinal", "category") else ()
    with assert_refused("column 'a'", fact):
        raw_numbers(pd.DataFrame({"a": cells}), Column("a", kind, levels=levels))


# And back


def numbers(n=60):
    return np.random.default_rng(0).normal(size=n)


ROUND = {
    "real": (numbers().round(2), "float64"),
    "whole": ((100 * numbers()).round(), "int64"),
    "float32": (numbers().round(3).astype(np.float32), "float32"),
    "positive": (np.exp(2 * numbers()).round(3) + 0.001, "float64"),
    "spike": (np.where(np.arange(60) % 3 == 0, 0.0, numbers().round(2)), "float64"),
    "positive spike": (np.where(np.arange(60) % 3 == 0, 0, np.exp(8 + numbers()).round()), "int64"),
    "count": (np.random.default_rng(0).negative_binomial(2, 0.1, size=60), "int64"),
    "ordinal": (np.arange(60) % 7 - 2, "int64"),
    "small": (np.arange(60) % 7, "uint8"),
    "boolean": (np.arange(60) % 3 == 0, "bool"),
    "zeros and ones": (np.arange(60) % 2, "int64"),
    "yes and no": (np.where(np.arange(60) % 3 == 0, "yes", "no"), "str"),
    "category": (np.array(["u", "v", "=w"])[np.arange(60) % 3], "str"),
    "objects": (np.array(["u", "v", "=w"], dtype=object)[np.arange(60) % 3], "object"),
    "pandas' category": (pd.Categorical(np.array(["u", "v", "w"])[np.arange(60) % 3]), "category"),
    "days": (pd.date_range("2019-03-01", periods=60), "datetime64[us]"),
    "seconds": (pd.date_range("2019-03-01", periods=60).as_unit("s"), "datetime64[s]"),
    "zone": (pd.date_range("2019-03-01", periods=60, tz="UTC"), "datetime64[us, UTC]"),
    "nullable": (pd.array(np.arange(60) % 7, dtype="Int64"), "Int64"),
    "nullable boolean": (pd.array(np.arange(60) % 3 == 0, dtype="boolean"), "boolean"),
}
KINDS = {
    "whole": "real", "float32": "real", "small": "ordinal", "positive spike": "spike", "zeros and ones": "boolean",
    "yes and no": "boolean", "objects": "category", "pandas' category": "category", "days": "date", "seconds": "date",
    "zone": "date", "nullable": "ordinal", "nullable boolean": "boolean",
}  # fmt: skip


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", ROUND)
def test_cells_come_back_with_their_types(name, missing):
    cells, dtype = ROUND[name]
    series = pd.Series(cells, name="a").astype(dtype)
    frame = pd.DataFrame({"a": series})
    schema = infer_schema(frame, {"a": "count"} if name == "count" else None)
    assert schema.columns[0].kind == KINDS.get(name, name)
    if missing:
        frame = frame.assign(a=series.mask(frame.index % 5 == 2))
    back = decode(encode(frame, schema), schema)
    held = not missing or not dtype.startswith(("int", "uint", "bool")) or dtype == "boolean"
    if held:
        assert str(back["a"].dtype) == dtype
    tolerance = 1e-12 if schema.columns[0].decimals is not None or schema.columns[0].every else 1e-6
    assert back.isna().equals(frame.isna())
    pd.testing.assert_frame_equal(back.dropna(), frame.dropna(), check_dtype=held, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    "period, every", [("2D", "D"), ("1h", "h"), ("30min", "min"), ("5s", "s"), ("1700ms", "ms"), ("1us", "")]
)
def test_dates_come_back_as_whole_periods_where_those_of_the_data_were(period, every):
    steps = np.random.default_rng(0).integers(0, 3000, 60) * pd.Timedelta(period)
    frame = pd.DataFrame({"d": pd.Timestamp("2020-03-01") + pd.Series(steps)})
    schema = infer_schema(frame)
    assert schema.columns[0].every == every
    drawn = decode(encode(frame, schema) + 1e-3, schema)["d"]
    assert (drawn == drawn.dt.round(every)).all() if every else (drawn != drawn.dt.round("s")).any()


def test_days_of_a_zone_come_back_as_its_days_also_where_the_clock_changes():
    days = pd.Series(pd.date_range("2020-03-20", "2020-11-10", tz="Europe/Berlin"))
    schema = infer_schema(pd.DataFrame({"d": days}))
    assert schema.columns[0].every == "D"
    coded = encode(pd.DataFrame({"d": days}), schema)
    assert decode(coded, schema)["d"].tolist() == days.tolist()
    drawn = decode(coded + 0.3 * torch.rand(coded.shape), schema)["d"]
    assert (drawn == drawn.dt.normalize()).all()


@pytest.mark.parametrize("every", ["", "D", "s"])
def test_dates_far_away_stay_in_the_years_that_text_has(every):
    frame = pd.DataFrame({"d": ["2020-03-04", "9999-12-31", "0001-01-01"] * 9})
    schema = infer_schema(frame, {"d": "date"})
    column = replace(schema.columns[0], every=every)
    far = torch.tensor([[-1e9], [0.0], [1e9], [NAN]])
    found = decode(far, Schema((column,)))["d"]
    assert (found.dt.year.iloc[0], found.dt.year.iloc[2]) == (1, 9999)
    assert found.isna().tolist() == [False, False, False, True]
    back = decode(encode(frame, schema), Schema((replace(column, every="D"),)))["d"]
    assert back.dt.strftime("%Y").tolist()[:2] == ["2020", "9999"]


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_dates_in_nanoseconds_stay_in_their_range(zone):
    days = pd.Series(pd.date_range("1700-01-01", "2250-01-01", periods=60).astype("datetime64[ns]")).dt.tz_localize(
        zone
    )
    schema = infer_schema(pd.DataFrame({"d": days}))
    found = decode(torch.tensor([[-99.0], [0.0], [99.0]]), schema)["d"]
    assert str(found.dtype) == str(days.dtype)
    assert found.dt.year.tolist() == [1677, 1975, 2262]


def test_text_dates_come_back_as_dates_and_types_that_cannot_hold_missing_cells_give_way():
    cells = {"d": ["13/04/2020", None, "03/04/2020"] * 9, "n": [1, 2, 3] * 9, "b": [True, False, True] * 9}
    schema = infer_schema(pd.DataFrame(cells))
    back = decode(encode(pd.DataFrame(cells), schema), schema)
    assert back["d"].dropna().tolist() == [pd.Timestamp("2020-04-13"), pd.Timestamp("2020-04-03")] * 9
    assert back["d"].isna().tolist() == [False, True, False] * 9
    back = decode(torch.full((2, 3), NAN), schema)
    assert back.isna().all(axis=None)
    assert [str(back[name].dtype)[:8] for name in "dnb"] == ["datetime", "object", "object"]


def test_new_cells_have_the_decimals_of_the_data_and_stay_in_range():
    schema = Schema(
        (
            Column("real", "real", decimals=1),
            Column("many", "real"),
            Column("positive", "positive", log=True, decimals=2),
            Column("count", "count", dtype="int64"),
            Column("spike", "spike", spike=-1.0, log=True, decimals=0),
        )
    )
    found = decode(torch.tensor([[0.26, 0.26, -9.0, 2.6, INF], [0.24, 0.24, 0.0, 0.4, -9.0]]), schema)
    assert found.drop(columns="many").values.tolist() == [[0.3, 0.01, 3, -1], [0.2, 1.0, 0, 1]]
    assert found["many"].tolist() == [np.float32(0.26), np.float32(0.24)]
    assert found["count"].dtype == "int64"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "UInt8", "Int16", "int64", "uint64", "Int64"])
def test_whole_numbers_come_back_in_the_range_of_their_type(dtype):
    limits = np.iinfo(dtype.lower())
    column = Column("n", "real", decimals=0, dtype=dtype)
    drawn = decode(torch.tensor([[-1e30], [5.4], [1e30]]), Schema((column,)))["n"]
    assert drawn.dtype == dtype
    assert drawn[1] == 5
    assert [int(drawn[0]), int(drawn[2])] == [limits.min, pytest.approx(limits.max, rel=1e-15)]


def test_levels_in_the_order_of_their_type_come_back_in_it():
    sizes = pd.Categorical(["S", "L", "M", None] * 9, categories=["S", "M", "L"], ordered=True)
    frame = pd.DataFrame({"size": sizes})
    schema = infer_schema(frame)
    assert schema.columns[0].levels == ("S", "M", "L")
    pd.testing.assert_frame_equal(decode(encode(frame, schema), schema), frame)


@pytest.mark.parametrize("constant", [
    [7] * 40, [7.0] * 40, [0.5] * 40, ["Oslo"] * 40, [True] * 40, pd.Categorical(["u"] * 40),
    pd.array([3] * 40, dtype="Int64"), pd.DatetimeIndex(["2020-03-04 10:30"] * 40),
    pd.DatetimeIndex(["2020-03-04 10:30"] * 40, tz="Europe/Oslo"),
], ids=str)  # fmt: skip
def test_columns_of_one_value_are_drawn_with_it_and_their_type(constant):
    frame = pd.DataFrame({"n": np.arange(40) / 7, "c": constant, "id": [f"r{i}" for i in range(40)], "m": np.ones(40)})
    frame["m"] = frame["n"] ** 2
    schema = infer_schema(frame)
    assert [column.name for column in schema.constants] == ["c"]
    assert infer_schema(frame.mask(frame["n"] > 5)).constants == ()  # what is there in some rows is not in all
    drawn = with_constants(decode(encode(frame, schema)[:5], schema), schema)
    assert list(drawn.columns) == ["n", "c", "m"]
    assert drawn["c"].tolist() == [frame["c"][0]] * 5
    assert drawn["c"].dtype == frame["c"].dtype


# Densities are those of the cells


def raw_columns():
    x = np.random.default_rng(0).normal(size=400)
    spiked = np.where(np.arange(400) % 3 == 0, 0, np.exp(5 + x))
    return pd.DataFrame({"real": 40 + 3 * x, "positive": np.exp(2 + 1.5 * x), "spike": spiked})


def test_slopes_are_those_of_the_coding():
    frame = raw_columns()[1:3]
    schema = infer_schema(raw_columns())
    assert [(c.kind, c.log) for c in schema.columns] == [("real", False), ("positive", True), ("spike", True)]
    units = {name: value.double() for name, value in schema.units().items()}
    claimed = -(units["shift"] + units["slope"] * encode(frame, schema))
    for number, column in enumerate(schema.columns):
        step = 1e-6 * frame[[column.name]]
        high, low = (raw_numbers(frame + sign * step, column) / column.unit for sign in (1, -1))
        slope = (high - low) / (2 * step[column.name].to_numpy())
        np.testing.assert_allclose(np.log(slope), claimed[:, number], atol=2e-6 * max(1.0, claimed.abs().max().item()))
    steps = (encode(frame * 1.01, schema) - encode(frame, schema)).numpy(), 0.01 * frame.to_numpy()
    np.testing.assert_allclose(np.log(steps[0] / steps[1]), claimed, atol=0.006)  # float32, and 0.005 of curvature


def log_p(frame, schema, params):
    family = Columns((len(schema.modeled),), columns=schema.described)
    family.set_units(**schema.units())
    return family(params.expand(len(frame), -1)).log_prob(encode(frame, schema)).detach()


@pytest.mark.parametrize("factor", [4.0, 0.01, 1000.0])
@pytest.mark.parametrize("name", ["real", "positive", "spike"])
def test_a_column_in_other_units_has_a_density_in_those_units(name, factor):
    torch.manual_seed(0)
    frame = raw_columns()
    other_frame = frame.assign(**{name: factor * frame[name]})
    schema, other = infer_schema(frame), infer_schema(other_frame)
    assert schema.described == other.described == ("real", "positive", "spike")
    params = torch.randn(Columns((3,), columns=schema.described).num_params)
    shifts = log_p(other_frame, other, params) - log_p(frame, schema, params)
    has_density = torch.ones(400) if name != "spike" else torch.tensor(frame[name] != 0).float()
    torch.testing.assert_close(shifts, -math.log(factor) * has_density, rtol=0, atol=2e-4)
    gone = frame.assign(**{name: np.nan})
    same = log_p(gone, other, params) - log_p(gone, schema, params)
    torch.testing.assert_close(same, torch.zeros(400), rtol=0, atol=1e-5)


def test_a_real_column_has_the_normal_density_of_its_cells():
    frame = pd.DataFrame({"a": [37.0, 40.0, 49.0]})
    schema = Schema((Column("a", "real", center=40.0, unit=3.0),))
    family = Columns((1,), columns=schema.described)
    family.set_units(**schema.units())
    p = family(torch.zeros(3, 1))
    scale = 3 * family.kinds[0].scale.of().item()
    expected = torch.distributions.Normal(40.0, scale).log_prob(torch.tensor([37.0, 40.0, 49.0]))
    torch.testing.assert_close(p.log_prob(encode(frame, schema)), expected)


# Quantile scaling


def heavy(rows=300):
    """Columns with heavy tails, some cells of which are missing, ties and dates among them."""
    rng = np.random.default_rng(1)
    tails = rng.standard_cauchy(rows)
    spiked = np.where(rng.random(rows) < 0.3, 0.0, np.exp(tails.clip(-20, 20)))
    frame = pd.DataFrame(
        {
            "real": 40 + 3 * tails,
            "rounded": (5 * tails).round(0) + 0.5,
            "positive": np.exp(rng.standard_t(2, rows).clip(-9, 9)),
            "spike": spiked,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta((100 * tails.clip(-30, 30)).round(), "D"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


KINDS_OF_HEAVY = {"real": "real", "rounded": "real", "positive": "positive", "spike": "spike", "day": "date"}


def test_quantile_scaling_gives_normal_scores_and_comes_back():
    frame = heavy()
    schema = infer_schema(frame, KINDS_OF_HEAVY, scaling="quantile")
    x = encode(frame, schema)
    for column, cells in zip(schema.columns, x.double().numpy().T, strict=True):
        known = np.sort(cells[np.isfinite(cells)])
        scores = norm.ppf((np.arange(len(known)) + 0.5) / len(known))
        assert 10 < len(column.knots) <= 33
        if column.name != "rounded":  # which has ties
            assert np.abs(known - scores)[20:-20].max() < 0.25
    back = decode(x, schema)
    pd.testing.assert_frame_equal(back, frame, rtol=2e-5, atol=1e-3, check_dtype=False)
    plain = infer_schema(frame, KINDS_OF_HEAVY)
    assert all(column.knots == () and column.scaling == "standard" for column in plain.columns)
    assert plain.described == ("real", "real", "positive", "spike", "date")


def test_the_derivative_of_quantile_scaling_is_in_the_density():
    frame = heavy()
    schema = infer_schema(frame, KINDS_OF_HEAVY, scaling="quantile")
    family = Columns((5,), columns=schema.described).double()
    family.set_units(**schema.units())
    x = encode(frame, schema).double()
    claimed = family(torch.zeros(1, family.num_params).double()).jacobian.of_columns(x)
    for number, column in enumerate(schema.columns):
        raw = raw_numbers(frame, column)
        known = np.isfinite(raw)
        step = 1e-7 * np.abs(raw[known]).clip(1e-3)
        slope = (scaled(raw[known] + step, column) - scaled(raw[known] - step, column)) / (2 * step)
        expected = np.log(slope) - (raw[known] if column.log else 0)  # d log y / dy = 1 / y
        close = np.isclose(claimed[known, number].numpy(), expected, atol=1e-4)
        assert close.mean() > 0.98, column.name  # a step or float32 may lead across a knot
        assert not claimed[~known, number].any()


@pytest.mark.parametrize("factor", [4.0, 0.01])
def test_quantile_scaling_does_not_depend_on_units(factor):
    torch.manual_seed(0)
    frame = heavy()[["real", "positive"]]
    kinds = {"real": "real", "positive": "positive"}
    schema = infer_schema(frame, kinds, scaling="quantile")
    other_frame = frame.assign(real=factor * frame["real"])
    other = infer_schema(other_frame, kinds, scaling="quantile")
    params = torch.randn(Columns((2,), columns=schema.described).num_params)
    shifts = log_p(other_frame, other, params) - log_p(frame, schema, params)
    expected = -math.log(factor) * torch.tensor(frame["real"].notna().to_numpy()).float()
    torch.testing.assert_close(shifts, expected, rtol=0, atol=1e-3)


def test_a_schema_keeps_its_knots_and_a_file_may_ask_for_them(tmp_path):
    frame = heavy()
    schema = infer_schema(frame, KINDS_OF_HEAVY, scaling="quantile")
    schema.save(tmp_path / "s.json")
    assert Schema.load(tmp_path / "s.json") == schema
    written = Schema((Column("real", "real", scaling="quantile"), Column("positive", "positive")))
    made = completed(written, frame)
    assert made.columns[0].knots == schema.columns[0].knots
    assert made.columns[1].knots == ()
    record = {"name": "a", "kind": "real"}
    for wrong in ({"scaling": "other"}, {"knots": [0, 1], "scores": [1, 0]}, {"knots": [0, 1]}, {"knots": [1]}):
        with pytest.raises(InputError, match="scaling must be|knots and scores"):
            Schema.from_json({"columns": [record | wrong]})
    with pytest.raises(InputError, match="`column_scaling` has no effect"):
        TableOptions(columns=str(tmp_path / "s.json"), column_scaling="quantile").schema()


def test_a_model_is_stored_with_its_knots(tmp_path):
    heavy().to_csv(tmp_path / "t.csv", index=False)
    data = subo.load_data(tmp_path / "t.csv", table=TableOptions(column_scaling="quantile"))
    model = subo.make("vae", data, latent_dim=2, hidden=(4,)).model
    subo.save(model, tmp_path / "m.safetensors")
    again = subo.load_model(tmp_path / "m.safetensors")
    z = torch.zeros(len(data.test), 2)
    found, expected = (one.decode(z).log_prob(data.test.x) for one in (again, model))
    torch.testing.assert_close(found, expected)


# Rare levels as one


def towns() -> pd.DataFrame:
    """Two towns of many people, three of few, and one person of a town alone."""
    names = ["Oslo"] * 40 + ["Rome"] * 30 + ["Bath"] * 3 + ["Cork"] * 2 + ["Nice"] * 2 + [None] * 3
    return pd.DataFrame({"town": names, "age": np.linspace(20, 60, len(names))})


def test_rare_levels_are_one_and_new_ones_another():
    (town, _) = infer_schema(towns(), min_level_count=5).columns
    assert (town.levels, town.pooled) == (("Oslo", "Rome", "other"), ("Bath", "Cork", "Nice"))
    assert "3 levels with fewer than 5 cells each" in town.why
    schema = Schema((town,))
    numbers = encode(pd.DataFrame({"town": ["Cork", "Rome", "Paris", None, "other"]}), schema)[:, 0].tolist()
    np.testing.assert_array_equal(numbers, [2, 1, 3, NAN, 2])
    assert decode(torch.tensor([[2.0], [0.0]]), schema)["town"].tolist() == ["other", "Oslo"]
    assert infer_schema(towns(), min_level_count=3).columns[0].pooled == ("Cork", "Nice")
    assert infer_schema(towns()[:73], min_level_count=5).columns[0].pooled == ()  # one rare level stays itself


def test_the_probability_of_a_pooled_level_is_that_of_the_group():
    schema = infer_schema(towns(), min_level_count=5)
    family = Columns((2,), columns=schema.described)
    family.set_units(**schema.units())
    x = encode(towns(), schema)
    p = family(family.start(x).unsqueeze(0))
    cells = torch.tensor([[0, NAN], [1, NAN], [2, NAN], [3, NAN]])
    assert p.log_prob(cells).exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert p.log_prob(cells[2:3]).exp().item() == pytest.approx(7.5 / 78.5, rel=0.02)


def test_numbers_that_are_rare_levels_are_one_too_and_a_schema_keeps_them(tmp_path):
    frame = pd.DataFrame({"zip": [1] * 40 + [2] * 30 + [3] * 2 + [4] * 2, "other": ["other"] * 37 + ["b"] * 37})
    schema = infer_schema(frame, {"zip": "category"}, min_level_count=3)
    assert schema.columns[0].levels == (1, 2, "other")
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    assert decode(encode(frame, schema), schema)["zip"].tolist() == [1] * 40 + [2] * 30 + ["other"] * 4
    assert completed(schema, frame) == schema
    for wrong in ({"pooled": ["a", "a"], "levels": ["b"]}, {"pooled": ["a"]}, {"pooled": 3}):
        stored = {"columns": [{"name": "zip", "kind": "category", **wrong}]}
        with pytest.raises(InputError):
            Schema.from_json(stored)


def test_a_fit_pools_levels_as_it_is_asked_to(tmp_path):
    towns().to_csv(tmp_path / "t.csv", index=False)
    data = subo.load_data(tmp_path / "t.csv", table=TableOptions(min_level_count=5))
    assert data.meaning.table is not None
    assert data.meaning.table.columns[0].levels == ("Oslo", "Rome", "other")
    with pytest.raises(InputError, match="`min_level_count` has no effect"):
        TableOptions(columns=str(tmp_path / "s.json"), min_level_count=2).schema()


def test_levels_of_text_are_found_where_another_file_has_numbers():
    text = Column("w", "category", levels=("1.0", "2.0", "2.5", "?", "007"))
    assert level_numbers(pd.Series([1.0, 2.0, 2.5, 3.0, 7.0]), text).tolist() == [0, 1, 2, 5, 5]
    assert level_numbers(pd.Series([1, 2]), text).tolist() == [0, 1]
    comma = Column("w", "category", levels=("1,5", "2"))
    assert level_numbers(pd.Series([1.5, 2.0]), comma).tolist() == [0, 1]
    numbers = Column("w", "ordinal", levels=(1, 2.5))
    assert level_numbers(pd.Series(["1.0", "2.50", "?"]), numbers).tolist() == [0, 1, 2]
    twice = Column("w", "category", levels=("1", "1.0", "2"))
    assert level_numbers(pd.Series(["1", "1.0", "1.00"]), twice).tolist() == [0, 1, 3]
