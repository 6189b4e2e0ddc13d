"""Columns that a model is conditioned on: they leave x, stay with their rows, and are read as a person gives them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import subo
from assertions import assert_refused
from subo.data.batches import batches
from subo.data.tables.coding import decode, encode
from subo.data.tables.given import given_cells
from subo.data.tables.mixed import contents_of
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Column, Schema
from subo.recipes.for_data import model_of

SCHEMA = Schema(
    (
        Column("age", "real", center=40.0, unit=10.0, given=True, observed=9, decimals=0),
        Column("city", "category", levels=("01", "=Bern"), given=True, observed=9, dtype="str"),
        Column("n", "count", observed=9),
        Column("since", "date", center=18262.0, unit=100.0, given=True, observed=9, every="D", dtype="str"),
        Column("id", "drop"),
        Column("grade", "ordinal", levels=(1, 2, 5), given=True, observed=9),
        Column("sure", "boolean", levels=(False, True), given=True, observed=9),
        Column("wage", "positive", log=True, given=True, observed=9),
        Column("visits", "count", given=True, observed=9),
    ),
    missing=("?",),
)
VALUES = {"age": "45.5", "city": "01", "since": "2020-01-02", "grade": "5", "sure": "True", "wage": "1", "visits": "3"}


def numbered(rows: int = 60) -> pd.DataFrame:
    """Each row has its number, in its own words in every column."""
    number = np.arange(rows)
    return pd.DataFrame(
        {"a": number * 1.5, "b": number * 2.5, "name": [f"n{i % 7}" for i in number], "c": -1.5 * number}
    )


def test_columns_of_the_condition_leave_x_and_become_the_context():
    frame = pd.DataFrame({"age": [30, None], "n": [1, 2], "city": ["=Bern", "Rome"], "id": [1, 2]})
    schema = Schema(tuple(column for column in SCHEMA.columns if column.name in frame.columns))
    contents = contents_of(frame, schema=schema)
    assert contents.names == ("n",)
    assert contents.parts[0].x.tolist() == [[1], [2]]
    given = contents.parts[0].context["given"]
    assert given.nan_to_num(9).tolist() == [[-1, 1], [9, 2]]
    assert any("never seen ('Rome')" in note for note in contents.notes)
    assert any("'age' of the condition had no missing cell" in note for note in contents.notes)
    assert Schema.from_json(schema.as_json()) == schema
    back = decode(contents.parts[0].x, schema, given)
    assert list(back.columns) == ["age", "city", "n"]
    assert back.astype(object).fillna("").to_numpy().tolist() == [[30, "=Bern", 1], ["", "", 2]]


def test_each_row_keeps_its_own_condition_through_splits_and_batches(tmp_path):
    numbered().to_csv(tmp_path / "t.csv", index=False)
    data = subo.load_data(
        tmp_path / "t.csv", table=TableOptions(columns="a=real,b=real,c=real", condition=("c", "name"))
    )
    table = data.meaning.table
    assert table is not None
    assert data.feature_names == ("a", "b")
    assert [column.name for column in table.given.modeled] == ["name", "c"]
    seen = []
    for split in (data.train, data.validation, data.test):
        for batch in batches(split.take(torch.randperm(len(split))), 7, seed=3, epoch=1):
            frame = decode(batch.x, table, batch.context["given"])
            assert frame.a.to_numpy() == pytest.approx(-frame.c.to_numpy(), abs=1e-4)
            assert list(frame.name) == [f"n{round(a / 1.5) % 7}" for a in frame.a]
            seen += frame.a.tolist()
    assert sorted(seen) == pytest.approx(numbered().a.tolist(), abs=1e-4)
    other = subo.load_data(tmp_path / "t.csv", table=TableOptions(columns="a=real,b=real,c=real", condition="name"))
    assert other.fingerprint != data.fingerprint


def test_a_model_takes_the_condition_of_its_data_and_is_saved_with_it(tmp_path):
    numbered().to_csv(tmp_path / "t.csv", index=False)
    options = TableOptions(columns="a=real,b=real,c=real", condition="c")
    data = subo.load_data(tmp_path / "t.csv", table=options)
    objective = subo.make("vae", data, latent_dim=2, hidden=(4,))
    assert objective.model.made_by.options["condition"] == ("c",)
    subo.fit(objective, data, epochs=1)
    subo.save(objective, tmp_path / "m.safetensors")
    again = subo.load_model(tmp_path / "m.safetensors")
    x, context = data.test.read(torch.arange(5))
    first, second = (model.draw(x, context).q.mean for model in (objective.model.eval(), again))
    assert torch.equal(first, second)
    same = subo.make("vae", data, condition=("c",), latent_dim=2, hidden=(4,))
    assert same.model.made_by.options["condition"] == ("c",)
    with assert_refused("names 'b'", "loaded with the condition c"):
        subo.make("vae", data, condition="b")
    with assert_refused("labels cannot be joined"):
        subo.make("vae", data, condition="labels")
    with assert_refused("the recipe hierarchical cannot be joined"):
        subo.make("hierarchical", data)
    with assert_refused("is not a table of mixed columns"):
        subo.make("vae", torch.zeros(9, 2), condition="b")


def test_the_units_of_the_condition_are_those_of_the_training_data(tmp_path):
    frame = numbered().assign(k=np.random.default_rng(0).poisson(40, 60))
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = subo.load_data(tmp_path / "t.csv", table=TableOptions(columns="k=count,a=real", condition="k"))
    model = subo.make("vae", data, latent_dim=1, hidden=(4,)).model
    logs = data.train.context["given"].log1p()
    assert model.likelihood.network.cells.center.item() == pytest.approx(logs.mean().item(), rel=1e-4)
    assert model.likelihood.network.cells.unit.item() == pytest.approx(logs.std(correction=0).item(), rel=1e-4)
    empty = model_of(
        "vae", {"condition": ("k",), "likelihood": "columns"}, (4,), examples=None, meaning=data.meaning, seed=0
    )
    assert empty.model.likelihood.network.cells.unit.tolist() == [1]


@pytest.mark.parametrize(("condition", "facts"), [
    (("a", "x"), ["`condition`: there is no column 'x'", "a, b, name, c"]),
    (("a", "b", "name", "c"), ["none is left to be modeled"]),
    (("id",), ["column 'id' is left out", "as asked for"]),
    (("label",), ["'label' holds classes", "`condition=labels`"]),
])  # fmt: skip
def test_conditions_that_cannot_be(condition: tuple[str, ...], facts: list[str]):
    frame = numbered().assign(label="p")
    kinds = {}
    if "id" in condition:
        frame, kinds = frame.assign(id=range(60)), {"id": "drop"}
    with assert_refused(*facts):
        contents_of(frame, kinds=kinds, condition=condition)


def test_the_condition_of_a_schema_file_is_what_was_asked_for(tmp_path):
    numbered().to_csv(tmp_path / "t.csv", index=False)
    first = subo.load_data(tmp_path / "t.csv", table=TableOptions(condition="c"))
    assert first.meaning.table is not None
    first.meaning.table.save(tmp_path / "schema.json")
    again = subo.load_data(tmp_path / "t.csv", table=TableOptions(columns=str(tmp_path / "schema.json")))
    assert again.train.context == {}
    assert again.train.event_shape == (4,)


def test_values_are_read_like_the_cells_of_a_file():
    cells = given_cells(VALUES, SCHEMA)
    assert list(cells.columns) == ["age", "city", "since", "grade", "sure", "wage", "visits"]
    coded = encode(cells, SCHEMA.given)
    assert coded.tolist() == [[pytest.approx(x) for x in (0.55, 0, 0.01, 2, 1, 0, 3)]]
    assert encode(given_cells({**VALUES, "grade": "5.0", "city": "=Bern", "age": 45.5}, SCHEMA), SCHEMA.given)[
        0, :4
    ].tolist() == [pytest.approx(x) for x in (0.55, 1, 0.01, 2)]
    for missing in ("", " ", "?", "NA", None):
        row = encode(given_cells(dict.fromkeys(VALUES, missing), SCHEMA), SCHEMA.given)
        assert row.isnan().all()
    comma = Schema(SCHEMA.columns, decimal=",")
    for schema in (comma, SCHEMA):  # where the mark was found out, both are understood
        assert encode(given_cells({**VALUES, "age": "45,5"}, schema), schema.given)[0, 0].item() == pytest.approx(0.55)


@pytest.mark.parametrize(("values", "facts"), [
    ({"age": "old"}, ["`given`: age cannot be 'old'", "not a number"]),
    ({"age": "inf"}, ["age cannot be 'inf'"]),
    ({"city": "Rome"}, ["city cannot be 'Rome'", "01, =Bern"]),
    ({"grade": "3"}, ["grade cannot be '3'", "1, 2, 5"]),
    ({"since": "soon"}, ["since cannot be 'soon'", "not a date"]),
    ({"wage": "0"}, ["wage cannot be '0'", "above 0"]),
    ({"visits": "1.5"}, ["visits cannot be '1.5'", "0, 1, 2"]),
    ({"n": "1"}, ["describes column 'n'"]),
    ({"id": "1"}, ["describes no column 'id'"]),
    ({"town": "1"}, ["there is no column 'town'", "age, city"]),
])  # fmt: skip
def test_values_that_cannot_be(values: dict[str, str], facts: list[str]):
    with assert_refused(*facts):
        given_cells({**VALUES, **values}, SCHEMA)


def test_each_column_of_the_condition_needs_a_value():
    with assert_refused("leaves out age, since", "age=40,city=01,since=2024-01-31"):
        given_cells({name: value for name, value in VALUES.items() if name not in ("age", "since")}, SCHEMA)
    with assert_refused("is not conditioned on columns"):
        given_cells({}, Schema((Column("a", "real"),)))
    assert math.isnan(encode(given_cells({**VALUES, "age": ""}, SCHEMA), SCHEMA.given)[0, 0])
