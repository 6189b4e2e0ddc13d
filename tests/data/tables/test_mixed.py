"""Tables of mixed columns as data: with and without a schema, what is said of them, and what does not fit."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from assertions import assert_refused
from data_files import labels_of, text
from subo.data.contents import Contents
from subo.data.tables.inferring import infer_schema
from subo.data.tables.mixed import contents_of, read_mixed
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Column, Schema

NAN = math.nan
SCHEMA = Schema(
    (
        Column("age", "real", center=40.0, unit=10.0, observed=9),
        Column("id", "drop"),
        Column("city", "category", levels=("Oslo", "Rome"), observed=9),
        Column("n", "count", observed=9),
    )
)


def coded(frame, schema=SCHEMA):
    contents = contents_of(pd.DataFrame(frame), schema=schema)
    return contents.parts[0].x, contents.notes


def schema_of(contents: Contents) -> Schema:
    assert contents.table is not None
    return contents.table


def is_near(x, expected):
    return torch.allclose(x, torch.tensor(expected), equal_nan=True)


def test_that_leading_zeros_keep_a_column_text_is_said(tmp_path):
    contents = read_mixed(text(tmp_path / "x.csv", "zip,n\n01067,1.5\n80331,2.5\n01067,3.5\n"), options=TableOptions())
    assert "zip stays text, since its numbers begin with 0" in contents.notes


# With a schema


def test_columns_are_put_right_by_name():
    frame = pd.DataFrame({"n": [3, 0], "city": ["Rome", None], "age": [50.0, 35.0], "id": ["u", "v"]})
    for names in (["n", "city", "age", "id"], ["age", "id", "city", "n"], ["city", "n", "age"]):
        x, notes = coded(frame[names])
        assert is_near(x, [[1.0, 1.0, 3.0], [-0.5, NAN, 0.0]])
        assert notes == ()
    contents = contents_of(frame, schema=SCHEMA)
    assert contents.names == ("age", "city", "n")
    assert contents.table == SCHEMA


def test_other_columns_are_left_out_and_named():
    frame = pd.DataFrame({"n": [3], "new": [1], "city": ["Rome"], "age": [50.0], "x": [2]})
    assert coded(frame.drop(columns="x"))[1] == ("column 'new' is left out: not in the fit",)
    x, notes = coded(frame)
    assert is_near(x, [[1.0, 1.0, 3.0]])
    assert notes == ("columns 'new', 'x' are left out: not in the fit",)
    many = frame.assign(**{f"c{i}": 0 for i in range(5)})
    assert coded(many)[1] == ("columns 'new', 'x', 'c0', 'c1', 'c2' and 2 more are left out: not in the fit",)


@pytest.mark.parametrize(
    "names, facts",
    [
        (["n", "city", "id"], ("column 'age' of the fit is missing. Give", "the fit's 3 columns, in any order")),
        (["id"], ("columns 'age', 'city', 'n' of the fit are missing. Give",)),
        (
            ["n", "city", "Age"],
            ("column 'age' of the fit is missing; column 'Age' is not in the fit, perhaps renamed",),
        ),
        (["town", "Age", "n"], ("'age', 'city' of the fit are missing; columns 'town', 'Age' are not in the fit",)),
    ],
)
def test_missing_and_renamed_columns_are_named(names, facts):
    with assert_refused(*facts):
        coded({name: [1] for name in names})


def test_levels_that_were_never_seen_are_said():
    frame = {"age": [1.0] * 4, "city": ["Bern", "Rome", None, "Lima"], "n": [0] * 4}
    x, notes = coded(frame)
    assert is_near(x[:, 1], [2.0, 1.0, NAN, 2.0])
    assert notes == ("column 'city': 2 cells hold what the fit has never seen ('Bern', 'Lima')",)
    assert coded(pd.DataFrame(frame)[:2])[1] == (
        "column 'city': 1 cell holds what the fit has never seen ('Bern')",
    )  # fmt: skip
    many = {"age": [1.0] * 9, "city": list("abcdefgha"), "n": [0] * 9}
    assert coded(many)[1] == (
        "column 'city': 9 cells hold what the fit has never seen ('a', 'b', 'c', 'd', 'e')",
    )  # fmt: skip
    numbers = Schema((Column("a", "ordinal", levels=(1, 2), observed=5),))
    assert coded({"a": [2, 7]}, numbers)[1] == ("column 'a': 1 cell holds what the fit has never seen (7)",)


def test_constants_of_the_fit_that_are_none_any_more_are_said():
    n = [0.5, 1.5, 2.5] * 9
    cells = {"n": n, "zero": [0] * 27, "city": ["Rome", None, "Rome"] * 9, "day": pd.Timestamp("2020-01-01")}
    schema = contents_of(pd.DataFrame(cells)).table
    assert schema is not None
    assert [(column.name, column.levels) for column in schema.dropped] == [
        ("zero", (0,)), ("city", ("Rome",)), ("day", ("2020-01-01 00:00:00",))
    ]  # fmt: skip
    assert Schema.from_json(schema.as_json()) == schema
    assert contents_of(pd.DataFrame(cells), schema=schema).notes == ()
    assert contents_of(pd.DataFrame(cells | {"zero": ["0"] * 27}), schema=schema).notes == ()
    infinite = contents_of(pd.DataFrame(cells | {"zero": [0.0, math.inf, 0.0] * 9}), schema=schema)
    assert "9 cells here are not (inf)" in infinite.notes[0]
    other = cells | {"zero": [0, 7, None] * 9, "city": ["Rome", "Oslo", "Bern"] * 9}
    of_zero, of_city = contents_of(pd.DataFrame(other), schema=schema).notes
    assert "every cell of the fit's was 0, and 9 cells here are not (7.0)" in of_zero
    assert "column 'city' is left out" in of_city
    assert "18 cells here are not ('Oslo', 'Bern')" in of_city


def test_rows_without_any_cell_are_said():
    frame = pd.DataFrame({"age": [None, 1.0, None], "city": [None, None, None], "n": [None, None, None]})
    x, notes = coded(frame)
    assert is_near(x, [[NAN] * 3, [-3.9, NAN, NAN], [NAN] * 3])
    assert notes == ("no cell of rows 1, 3 is observed",)
    assert coded(frame[:2])[1] == ("no cell of row 1 is observed",)
    assert coded(pd.concat([frame] * 4))[1] == ("no cell of rows 1, 3, 4, 6, 7 and 3 more is observed",)


@pytest.mark.parametrize("dtype", ["float64", "object", "str", "Int64"])
def test_a_column_without_cells_is_missing_whatever_its_type(dtype):
    frame = {name: pd.Series([None, None], dtype=dtype) for name in ("age", "city")}
    assert is_near(coded({**frame, "n": [1, 2]})[0], [[NAN, NAN, 1.0], [NAN, NAN, 2.0]])


@pytest.mark.parametrize("dtype", ["int64", "float32", "object", "str", "Int64", "uint8"])
def test_numbers_of_other_types_are_the_same_numbers(dtype):
    frame = pd.DataFrame({"age": pd.Series([50, 30]).astype(dtype), "n": pd.Series([3, 0]).astype(dtype)})
    x, notes = coded(frame.assign(city=pd.Categorical(["Rome", "Oslo"])))
    assert (x.tolist(), notes) == ([[1.0, 1.0, 3.0], [-1.0, 0.0, 0.0]], ())


def test_one_row_is_data_with_a_schema_only():
    row = pd.DataFrame({"age": [50.0], "city": ["Rome"], "n": [3]})
    assert coded(row)[0].tolist() == [[1.0, 1.0, 3.0]]
    with assert_refused("at least three rows", "one row"):
        contents_of(row)


@pytest.mark.parametrize("name, cell", [("age", "old"), ("n", "many"), ("age", math.inf)])
def test_cells_that_do_not_fit_are_named(name, cell):
    frame = {"age": [50.0, 50.0], "city": ["Rome"] * 2, "n": [3, 3], name: [1, cell]}
    with assert_refused(f"column {name!r}, row 2", cell):
        coded(frame)


# Without one


def test_a_frame_as_data():
    x = np.random.default_rng(0).normal(size=30)
    frame = pd.DataFrame({"x": x, "city": ["Rome", "Oslo", None] * 10, "id": range(30)}, index=range(100, 130))
    contents = contents_of(frame)
    assert contents.table == infer_schema(frame)
    assert (contents.names, contents.classes, contents.notes) == (("x", "city"), None, ())
    np.testing.assert_allclose(contents.parts[0].x[:, 0], (x - x.mean()) / x.std(), rtol=1e-5, atol=1e-6)
    assert is_near(contents.parts[0].x[:4, 1], [1.0, 0.0, NAN, 1.0])
    asked = contents_of(frame, kinds={"id": "count", "x": "drop"})
    assert asked.names == ("city", "id")
    assert asked.parts[0].x[:, 1].tolist() == list(range(30))


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame(np.zeros((9, 3)), columns=["a", "b", "a"])
    for schema in (None, SCHEMA):
        with assert_refused("two columns have the name 'a'"):
            contents_of(frame, schema=schema)


def test_numbers_with_text_among_them_are_said():
    cells = [str(i / 2) for i in range(29)]
    frame = pd.DataFrame({"a": [*cells[:9], "low", *cells[9:]], "b": ["u", "v"] * 15, "c": ["01", None] * 15})
    contents = contents_of(frame)
    assert contents.notes == (
        "column 'a' is read as text: 29 of its 30 cells are numbers, but row 10 has 'low'; if that is a missing cell, "
        "clear it, or name it: `missing=low`",
    )
    assert contents.names == ("b",)
    assert contents_of(frame, kinds={"a": "drop"}).notes == ()
    with assert_refused("column 'a' cannot be of the kind real", "row 10 has 'low'"):
        contents_of(frame, kinds={"a": "real"})
    mixed = pd.DataFrame({"a": [1, None, "x", 2.5, "x"] * 9})
    contents = contents_of(mixed)
    assert schema_of(contents).columns[0].levels == (1, 2.5, "x")
    assert is_near(contents.parts[0].x[:5, 0], [0.0, NAN, 2.0, 1.0, 2.0])
    assert "18 of its 36 cells are numbers, but row 3 has 'x'" in contents.notes[0]
    assert schema_of(contents_of(pd.DataFrame({"a": [True, "x"] * 9}))).columns[0].levels == (True, "x")


# Labels


@pytest.mark.parametrize(
    "labels, classes, numbers",
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([10, 9, 10], (9, 10), [1, 0, 1]),
        ([2.0, -1.0, 2.0], (-1, 2), [1, 0, 1]),
        ([0.5, 1.5, 0.5], ("0.5", "1.5"), [0, 1, 0]),
        ([1.0, math.inf, 1.0], ("1.0", "inf"), [0, 1, 0]),
        ([True, False, True], (0, 1), [1, 0, 1]),
        (pd.Categorical(["b", "a", "b"]), ("a", "b"), [1, 0, 1]),
    ],
)
def test_a_column_named_label_holds_labels(labels, classes, numbers):
    frame = pd.DataFrame({"label": labels, "a": [1, 2, 3]})
    contents = contents_of(frame)
    assert contents.names == ("a",)
    assert contents.classes == classes
    said = (
        f"column 'label' holds classes ({len(classes)} different) and is not modeled; `columns=label=category` models"
    )
    assert said in contents.notes[-1]
    assert contents_of(frame, schema=contents.table).notes == ()
    assert labels_of(contents.parts[0]).tolist() == numbers


def test_labels_are_data_if_their_kind_is_given():
    frame = pd.DataFrame({"label": [1, 2, 3], "a": [1, 2, 3]})
    contents = contents_of(frame, kinds={"label": "ordinal"})
    assert (contents.names, contents.classes, contents.parts[0].labels) == (("label", "a"), None, None)
    schema = Schema((Column("label", "real", observed=9), Column("a", "count", observed=9)))
    assert coded(frame, schema)[0].tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


def test_labels_that_cannot_be():
    frame = pd.DataFrame({"a": [1, 2, 3], "label": ["x", None, None]}, index=[7, 8, 9])
    with assert_refused("row 2, column 'label'", "missing", "drop the row, or", "`columns=label=category` models it"):
        contents_of(frame)
    schema = Schema((Column("a", "ordinal", levels=(1, 2, 3), observed=3),))
    later = contents_of(frame, schema=schema)  # of a run, which may have no classes
    assert later.parts[0].labels is None
    assert later.notes == ("column 'label': 2 cells without a class, so that all of them are left out",)
    with assert_refused("no column of data beside 'label'"):
        contents_of(frame[["label"]])


# Files


def written(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        (frame.to_parquet if path.suffix == ".parquet" else frame.to_feather)(path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".feather"])
def test_missing_words_mean_the_same_in_all_files(ending, tmp_path):
    frame = pd.DataFrame({"age": [50, -999, 30] * 5, "city": ["Rome", "Oslo", "?"] * 5, "w": [0.5, 2.25, -999] * 5})
    path = written(frame, tmp_path / f"x{ending}")
    contents = read_mixed(path, options=TableOptions(missing=("?", "-999"), columns="w=real"))
    table = schema_of(contents)
    assert table.missing == ("?", "-999")
    assert [(c.kind, c.missing, c.levels) for c in table.columns] == [
        ("ordinal", 5, (30, 50)), ("category", 5, ("Oslo", "Rome")), ("real", 5, ())
    ]  # fmt: skip
    assert is_near(contents.parts[0].x[:3], [[1.0, 1.0, -1.0], [NAN, 0.0, 1.0], [0.0, NAN, NAN]])
    again = read_mixed(path, options=TableOptions(), schema=table)
    assert torch.equal(again.parts[0].x.nan_to_num(7), contents.parts[0].x.nan_to_num(7))
    assert again.table == table
    assert schema_of(read_mixed(path, options=TableOptions(columns="w=real"))).columns[1].levels == (
        "?",
        "Oslo",
        "Rome",
    )


def test_a_file_is_read_as_it_was_asked_for(tmp_path):
    path = text(tmp_path / "x.csv", "a;b\n" + "1,5;x\n2,25;y\n" * 9)
    contents = read_mixed(path, options=TableOptions(columns="a=real"))
    assert contents.notes == ("cells are separated by semicolons", "numbers have a decimal comma")
    assert (schema_of(contents).separator, schema_of(contents).decimal) == (None, None)
    options = TableOptions(columns="a=real", separator=";", decimal=",")
    contents = read_mixed(path, options=options)
    assert contents.notes == ()
    assert (schema_of(contents).separator, schema_of(contents).decimal) == (";", ",")
    assert (schema_of(contents).columns[0].center, schema_of(contents).columns[0].unit) == (1.875, 0.375)
    row = text(tmp_path / "y.csv", "b;a\nx;3\n")
    assert is_near(read_mixed(row, options=TableOptions(), schema=contents.table).parts[0].x, [[3.0, 0.0]])


@pytest.mark.parametrize("with_options", [False, True])
def test_a_schema_file_of_names_and_kinds(with_options, tmp_path):
    path = text(tmp_path / "x.csv", "age|city|z\n" + "1.5|Rome|0\n?|Oslo|1\n2.5|-|2\n" * 9)
    said = {"columns": [{"name": "city", "kind": "category"}, {"name": "age", "kind": "real"}], "missing": ["?"]}
    file = text(tmp_path / "s.json", json.dumps({**said, "missing": ["?", "-"][: 2 - with_options]}))
    options = TableOptions(columns=str(file), missing=("-",) * with_options, separator="|" if with_options else None)
    contents = read_mixed(path, options=options)
    assert contents.names == ("city", "age")
    assert schema_of(contents).columns[0].levels == ("Oslo", "Rome")
    assert schema_of(contents).missing == ("?", "-")
    assert contents.notes[-1] == "column 'z' is left out: not in the schema"
    assert is_near(contents.parts[0].x[:3], [[1.0, -1.0], [0.0, NAN], [NAN, 1.0]])


@pytest.mark.parametrize(
    "columns, facts",
    [
        ([{"name": "city", "kind": "real"}], ("column 'city' cannot be of the kind real", "row 1 has 'Rome'")),
        ([{"name": "Age", "kind": "real"}], ("column 'Age' of the schema is missing", "'city' are not in the schema")),
        ([{"name": "gap", "kind": "category"}, {"name": "age", "kind": "real"}], ("'gap' of the schema is missing",)),
        ([{"name": "city", "kind": "real", "observed": 5}], ("column 'city', row 1: 'Rome' is not a number",)),
    ],
)
def test_a_schema_file_that_does_not_fit(columns, facts, tmp_path):
    path = text(tmp_path / "x.csv", "age,city\n1.5,Rome\n2.5,Oslo\n3.5,Rome\n")
    file = text(tmp_path / "s.json", json.dumps({"columns": columns}))
    with assert_refused(path, *facts):
        read_mixed(path, options=TableOptions(columns=str(file)))


def test_refusals_name_the_file(tmp_path):
    path = text(tmp_path / "x.csv", "a,b\n1,inf\n2,3\n4,5\n")
    with assert_refused(f"{path}: column 'b', row 1: inf is not a finite number", "name it: `missing=inf`"):
        read_mixed(path, options=TableOptions())
    with assert_refused(f"{path}: there is no column 'c'"):
        read_mixed(path, options=TableOptions(columns="c=real"))


def test_counts_narrower_than_any_negative_binomial_are_said():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"grade": 5 + rng.integers(0, 2, 200), "calls": rng.poisson(4, 200)})
    kinds = {"grade": "count", "calls": "count"}
    contents = contents_of(frame, kinds=kinds)
    (note,) = contents.notes
    assert "column 'grade' is a count whose variance, 0.248, is below its mean, 5.55" in note
    assert "`columns` grade=ordinal or grade=real" in note
    assert contents_of(frame, schema=contents.table).notes == ()  # of later rows nothing is decided
    assert contents_of(frame, kinds={"grade": "ordinal", "calls": "count"}).notes == ()
    written = Schema((Column("grade", "count"), Column("calls", "count")))
    assert contents_of(frame, schema=written).notes == (note,)


@pytest.mark.parametrize("cell", [[1, 2], np.array([1, 2]), {"a": 1}, {1, 2}], ids=str)
def test_cells_that_are_collections_are_left_out_and_named(cell):
    frame = pd.DataFrame({"x": np.arange(20) / 7, "c": [cell if i % 3 else None for i in range(20)]})
    contents = contents_of(frame)
    assert contents.table is not None
    assert contents.table.columns[1].why == f"no kind describes cells of the type {type(cell).__name__}"
    assert contents.notes == ()
