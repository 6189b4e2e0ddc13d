"""Schemas: inferred from cells, as JSON, completed from names and kinds, and how tables are asked to be read."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from assertions import assert_refused
from data_files import text
from subo.data.tables.inferring import completed, infer_schema
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Column, Schema


def table(n=60):
    x = np.random.default_rng(0).normal(size=n)
    return pd.DataFrame(
        {
            "id": range(n),
            "x": (3 * x + 40).round(1),
            "income": np.exp(10 + x),
            "snow": np.where(np.arange(n) % 2 == 0, 0.0, np.exp(x)),
            "grade": np.arange(n) % 4 + 1,
            "city": np.array(["Rome", "Oslo", "Bern"])[np.arange(n) % 3],
            "ok": np.arange(n) % 2 == 0,
            "day": [f"{1 + i % 28}/02/2021" for i in range(n)],
        }
    )


def column_of(cells, kind=None):
    frame = pd.DataFrame({"a": cells})
    return infer_schema(frame, None if kind is None else {"a": kind}).columns[0]


# Inferred


def test_the_columns_of_a_table():
    frame = table()
    frame.loc[[3, 5], ["x", "city"]] = None
    schema = infer_schema(frame, {"income": "real"})
    assert [(c.name, c.kind, c.missing, c.observed, c.dtype) for c in schema.columns] == [
        ("id", "drop", 0, 60, "int64"),
        ("x", "real", 2, 58, "float64"),
        ("income", "real", 0, 60, "float64"),
        ("snow", "spike", 0, 60, "float64"),
        ("grade", "ordinal", 0, 60, "int64"),
        ("city", "category", 2, 58, "str"),
        ("ok", "boolean", 0, 60, "bool"),
        ("day", "date", 0, 60, "str"),
    ]
    assert [c.name for c in schema.dropped] == ["id"]
    assert [c.name for c in schema.modeled] == list(frame)[1:]
    assert schema.described == ("real", "real", "spike", "ordinal 4", "category 3", "boolean 2", "date")
    assert [c.levels for c in schema.modeled[3:6]] == [(1, 2, 3, 4), ("Bern", "Oslo", "Rome"), (False, True)]
    assert schema.columns[2].why == "as asked for"


def test_whole_days_of_older_schemas_are_periods_of_a_day():
    record = {"name": "d", "kind": "date", "decimals": 0, "observed": 9}
    (column,) = Schema.from_json({"columns": [record]}).columns
    assert (column.every, column.decimals) == ("D", None)
    with assert_refused("every must be one of D, h, min, s, ms, or empty, not 'week'"):
        Schema.from_json({"columns": [{**record, "every": "week"}]})


def test_form_and_period_that_are_asked_for_stay():
    frame = pd.DataFrame({"d": ["12/24/2020", "03/04/2020"] * 9})
    asked = Schema((Column("d", "date", every="h", form="%Y", center=18000.0, unit=9.0),))
    (column,) = completed(asked, frame).columns
    assert (column.every, column.form, column.center) == ("h", "%Y", 18000.0)
    (column,) = completed(Schema((Column("d", "date", center=18000.0, unit=9.0),)), frame).columns
    assert (column.every, column.form) == ("D", "%m/%d/%Y")


def test_center_and_unit_are_mean_and_deviation_of_what_is_observed():
    x = np.random.default_rng(0).normal(5, 2, size=200)
    found = column_of([*x, None])
    assert (found.kind, found.log) == ("real", False)
    assert (found.center, found.unit) == pytest.approx((x.mean(), x.std()), rel=1e-9)
    found = column_of([*np.exp(x), None])
    assert (found.kind, found.log) == ("positive", True)
    assert (found.center, found.unit) == pytest.approx((x.mean(), x.std()), rel=1e-9)
    found = column_of([*(x - 5), *[-1.0] * 100])
    assert (found.kind, found.spike, found.log) == ("spike", -1.0, False)
    assert (found.center, found.unit) == pytest.approx((x.mean() - 5, x.std()), rel=1e-9)
    found = column_of([*np.exp(x), *[0.0] * 100])
    assert (found.kind, found.spike, found.log) == ("spike", 0.0, True)
    assert (found.center, found.unit) == pytest.approx((x.mean(), x.std()), rel=1e-9)
    days = np.arange(100)
    found = column_of(pd.to_datetime("1970-01-01") + pd.to_timedelta(days, unit="D"))
    assert (found.center, found.unit) == pytest.approx((days.mean(), days.std()), rel=1e-9)
    assert found.every == "D"
    for kind, cells in (("count", [3, 40, 9]), ("ordinal", [1, 2, 3]), ("category", ["u", "v", "u"])):
        assert (column_of(cells, kind).center, column_of(cells, kind).unit) == (0, 1)


def test_the_order_of_levels():
    assert column_of(["yes", "no"] * 9).levels == ("no", "yes")
    assert column_of([True, None, False] * 9).levels == (False, True)
    assert column_of([10, 9, 2] * 9).levels == (2, 9, 10)
    assert column_of(["10", "9", "2"] * 9).levels == ("10", "2", "9")
    assert column_of(["x", 2, 10] * 9, "category").levels == (2, 10, "x")
    assert [type(level) for level in column_of([1, 2, 3] * 9).levels] == [int] * 3


@pytest.mark.parametrize(
    "cells, decimals",
    [
        ([1.0, 20, -3], 0),
        ([0.1, 0.2, 0.1 + 0.2], 1),
        ([1.25, 1e6 + 0.01, None], 2),
        ([1e-6, 2e-6, 0], 6),
        ([1e-7, 2e-7, 0], 7),
        (np.array([41.7, 0.25, 3], dtype="float32"), 2),
        (np.array([1 / 3, 0.25, 3], dtype="float32"), None),
        ([3e-10, 5e-11, 1e-10], None),
        ([1 / 3, 0.5, 1], None),
        ([1e12 + 0.5, 1e12, 0], 1),
    ],
)
def test_decimals_suffice_for_all_numbers(cells, decimals):
    assert column_of(cells, "real").decimals == decimals
    assert column_of(cells, "spike").decimals == decimals


def test_dates_say_whether_the_day_comes_first():
    assert column_of(["13/04/2020", "03/04/2020", None] * 9).day_first
    assert not column_of(["04/13/2020", "03/04/2020"] * 9).day_first
    assert not column_of(["2020-04-03", "2020-04-13"] * 9).day_first


def test_tables_without_a_schema():
    with assert_refused("at least three rows", "there is one row"):
        infer_schema(table(1))
    with assert_refused("at least three rows", "there are 2 rows"):
        infer_schema(table(2))
    with assert_refused("there is no column 'y'; the columns are id, x, income"):
        infer_schema(table(), {"x": "real", "y": "real"})
    with assert_refused("no column is left to be modeled (a: no cell is observed; b: as asked for)"):
        infer_schema(pd.DataFrame({"a": [None] * 9, "b": range(9)}), {"b": "drop"})
    with assert_refused("column 'x' cannot be of the kind count", "row 1 has 40.4"):
        infer_schema(table(), {"x": "count"})


# Units


def test_units_of_densities():
    schema = Schema(
        (
            Column("a", "real", center=3.0, unit=2.0, observed=8),
            Column("b", "drop", unit=5.0),
            Column("c", "positive", log=True, center=3.0, unit=2.0, observed=0),
            Column("d", "category", levels=("u",), observed=98),
        )
    )
    units = schema.units()
    assert units["shift"].tolist() == pytest.approx([math.log(2), math.log(2) + 3, 0])
    assert units["slope"].tolist() == [0.0, 2.0, 0.0]
    assert units["unseen"].tolist() == pytest.approx([1 / 10, 1 / 2, 1 / 100])
    assert all(value.dtype == torch.float32 for value in units.values())


# JSON


def test_a_schema_comes_back_from_json(tmp_path):
    schema = infer_schema(table())
    schema = Schema(schema.columns, missing=("?", "-999"), separator=";", decimal=",")
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    assert Schema.from_json(json.loads(json.dumps(schema.as_json()))) == schema


def test_a_name_and_a_kind_suffice():
    columns = [{"name": "a", "kind": "real"}, {"name": "b", "kind": "positive"}]
    found = Schema.from_json({"columns": columns})
    assert found == Schema((Column("a", "real"), Column("b", "positive", log=True)))
    assert found.columns[0].why == "as the schema says"


A = {"name": "a", "kind": "real"}


@pytest.mark.parametrize(
    "stored, facts",
    [
        ([A], ("expected a record of columns, and perhaps missing, separator, decimal",)),
        ({"missing": []}, ("expected a record of columns",)),
        ({"columns": [A], "sep": ";"}, ("expected a record of columns",)),
        ({"columns": A}, ("columns and missing are lists",)),
        ({"columns": [A], "missing": "?"}, ("columns and missing are lists",)),
        ({"columns": [A], "missing": [-999]}, ("missing, separator and decimal are text",)),
        ({"columns": [A], "decimal": 1}, ("missing, separator and decimal are text",)),
        ({"columns": [A, A]}, ("two columns of the name 'a'",)),
        ({"columns": [A, {"name": "b"}]}, ("column 2", "a name and a kind")),
        ({"columns": [A, "b"]}, ("column 2", "a name and a kind")),
        ({"columns": [{**A, "kinds": "x"}]}, ("column 1 has 'kinds', which no column has",)),
        ({"columns": [{**A, "kind": "colour"}]}, ("the kind 'colour' does not exist", "real, positive, count")),
        ({"columns": [{**A, "kind": []}]}, ("the kind [] does not exist",)),
        ({"columns": [{**A, "name": 3}]}, ("name cannot be 3",)),
        ({"columns": [{**A, "unit": 0}]}, ("the unit must be above 0 and finite, not 0",)),
        ({"columns": [{**A, "unit": -1.5}]}, ("the unit must be above 0 and finite, not -1.5",)),
        ({"columns": [{**A, "unit": math.nan}]}, ("the unit must be above 0 and finite, not nan",)),
        ({"columns": [{**A, "unit": math.inf}]}, ("the unit must be above 0 and finite, not inf",)),
        ({"columns": [{**A, "center": math.nan}]}, ("the center must be finite, not nan",)),
        ({"columns": [{**A, "unit": True}]}, ("unit cannot be True",)),
        ({"columns": [{**A, "center": "1"}]}, ("center cannot be '1'",)),
        ({"columns": [{**A, "log": 1}]}, ("log cannot be 1",)),
        ({"columns": [{**A, "day_first": "yes"}]}, ("day_first cannot be 'yes'",)),
        ({"columns": [{**A, "missing": 1.5}]}, ("missing cannot be 1.5",)),
        ({"columns": [{**A, "levels": "uv"}]}, ("levels are a list of values, not 'uv'",)),
        ({"columns": [{**A, "levels": [["u"]]}]}, ("levels are a list of values",)),
        ({"columns": [{**A, "levels": [1, 2, 1.0]}]}, ("each level is given once, not [1, 2, 1.0]",)),
    ],
)
def test_json_that_is_no_schema(stored, facts):
    with assert_refused("my.json", *facts):
        Schema.from_json(stored, where="my.json")


# Completed


def test_a_schema_of_names_and_kinds_is_completed_from_the_cells():
    frame = table()
    inferred = infer_schema(frame)
    kinds = [{"name": column.name, "kind": column.kind} for column in inferred.columns]
    found = completed(Schema.from_json({"columns": kinds, "missing": ["?"]}), frame)
    assert found.missing == ("?",)
    for mine, other in zip(found.columns, inferred.columns, strict=True):
        if other.is_modeled:
            assert mine == Column(**{**vars(other), "why": "as the schema says"})


def test_what_a_schema_says_stays():
    frame = table()
    whole = infer_schema(frame)
    assert completed(whole, frame.iloc[:5] * 2) == whole
    given = Schema(
        (
            Column("city", "category", levels=("Rome", "Oslo", "Lima")),
            Column("x", "real", center=1.0, unit=7.0),
            Column("snow", "spike", spike=0.0, log=True),
            Column("elsewhere", "real"),
        )
    )
    city, x, snow, elsewhere = completed(given, frame).columns
    assert (city.levels, city.observed, city.dtype) == (("Rome", "Oslo", "Lima"), 60, "str")
    assert (x.center, x.unit, x.decimals) == (1.0, 7.0, 1)
    assert (snow.spike, snow.log, snow.unit) == (0.0, True, whole.columns[3].unit)
    assert elsewhere == given.columns[3]


def test_a_kind_of_the_schema_that_cells_cannot_be_of():
    with assert_refused("column 'city' cannot be of the kind real", "row 1 has 'Rome'"):
        completed(Schema((Column("city", "real"),)), table())


# Options


@pytest.mark.parametrize(
    "columns, kinds",
    [
        (None, {}),
        ("", {}),
        ("age=count", {"age": "count"}),
        (" age = count , zip=category,", {"age": "count", "zip": "category"}),
        ("a=b=real", {"a=b": "real"}),
        ("schema.json", {}),
    ],
)
def test_kinds_by_name(columns, kinds):
    assert TableOptions(columns=columns).kinds() == kinds


@pytest.mark.parametrize("columns", ["count", "age=count,zip", "=count"])
def test_kinds_without_a_name_are_refused(columns):
    with assert_refused("pairs such as age=count,zip=category", repr(columns.rpartition(",")[2].strip("="))):
        TableOptions(columns=columns).kinds()


def test_a_schema_file_is_read(tmp_path):
    path = text(tmp_path / "s.json", json.dumps({"columns": [A]}))
    assert TableOptions(columns=str(path)).schema() == Schema((Column("a", "real"),))
    assert TableOptions(columns="a=real").schema() is TableOptions().schema() is None
    with assert_refused(tmp_path / "none.json"):
        TableOptions(columns=str(tmp_path / "none.json")).schema()
    with assert_refused(path, "is not a schema"):
        TableOptions(columns=str(text(path, "[1, 2]"))).schema()
    with assert_refused(path):
        TableOptions(columns=str(text(path, "{"))).schema()
