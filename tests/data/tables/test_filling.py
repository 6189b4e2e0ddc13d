"""Filled tables and best guesses, and tables in files: what was observed stays as it was."""

import csv
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

from assertions import assert_refused
from subo.data.tables.coding import decode, encode
from subo.data.tables.filling import filled, most_likely, observed_texts
from subo.data.tables.inferring import infer_schema
from subo.data.tables.parsing import Written
from subo.data.tables.reading import read_frame, read_texts
from subo.data.tables.schema import Column, Schema
from subo.data.tables.writing import save_frame

NAN, INF = math.nan, math.inf


def gappy():
    """A table with a column of most types, each with a missing cell in every third row."""
    some = np.arange(30) % 3 != 1
    return pd.DataFrame(
        {
            "id": [f"row {i}" if i % 4 else None for i in range(30)],
            "x": pd.Series(np.arange(30) / 4).where(some),
            "grade": pd.Series(np.arange(30) % 5).where(some),
            "n": pd.Series(np.arange(30) % 4).astype("Int64").where(some),
            "city": pd.Series(["Rome", "Oslo", "Oslo"] * 10).where(some),
            "object": pd.Series(["Rome", "Oslo", "=x"] * 10, dtype=object).where(some),
            "level": pd.Series(pd.Categorical(["u", "v", "w"] * 10)).where(some),
            "flag": pd.Series([True, False, False] * 10, dtype="boolean").where(some),
            "day": pd.Series(pd.date_range("2020-01-01", periods=30)).where(some),
            "zone": pd.Series(pd.date_range("2020-01-01", periods=30, tz="Asia/Tokyo")).where(some),
            "text day": pd.Series([f"{1 + i % 28}/02/2021" for i in range(30)]).where(some),
            "full": np.arange(30) % 6 * 2,
        }
    )


# Filled tables


def test_filled_tables_keep_what_was_observed():
    frame = gappy()
    schema = infer_schema(frame)
    found = filled(frame, [encode(frame, schema).nan_to_num(0)], schema)
    assert list(found) == list(frame)
    assert found.dtypes.to_dict() == frame.dtypes.to_dict()
    pd.testing.assert_frame_equal(found.where(frame.notna()), frame, check_dtype=False)
    pd.testing.assert_series_equal(found["id"], frame["id"])
    assert not found.drop(columns="id").isna().any(axis=None)
    middle = {column.name: column.center for column in schema.columns}
    gap = found.iloc[1]
    assert (gap["grade"], gap["n"], gap["city"], gap["object"], gap["level"], gap["flag"]) == (
        0, 0, "Oslo", "=x", "u", False
    )  # fmt: skip
    assert gap["x"] == round(middle["x"], 2)
    assert gap["day"] == pd.Timestamp("1970-01-01") + pd.Timedelta(round(middle["day"]), unit="D")
    assert gap["zone"] == pd.Timestamp(middle["zone"] * 86400, unit="s", tz="Asia/Tokyo").round("D")
    day = pd.Timestamp("1970-01-01") + pd.Timedelta(round(middle["text day"]), unit="D")
    assert gap["text day"] == day.strftime("%Y-%m-%d")


def test_filled_cells_are_those_of_each_table_in_turn():
    frame = pd.DataFrame({"a": [1.5, None, None], "b": ["u", None, "v"]}, index=[5, 5, 9])
    schema = Schema((Column("a", "real", center=1.0), Column("b", "category", levels=("u", "v"), dtype="str")))
    tables = [torch.tensor([[9.0, 1.0], [2.0, 1.0], [3.0, 0.0]]), torch.tensor([[8.0, 1.0], [-2.0, 0.0], [-3.0, 0.0]])]
    found = filled(frame, tables, schema, numbered=True)
    assert list(found) == ["draw", "a", "b"]
    assert found["draw"].tolist() == [1, 1, 1, 2, 2, 2]
    assert found["a"].tolist() == [1.5, 3, 4, 1.5, -1, -2]
    assert found["b"].tolist() == ["u", "v", "v", "u", "u", "v"]
    assert list(found.index) == [5, 5, 9, 5, 5, 9]
    counted = filled(frame.reset_index(drop=True), tables, schema)
    assert list(counted.index) == list(range(6))
    assert list(filled(frame, tables[:1], schema)) == ["a", "b"]
    assert frame["a"].isna().tolist() == [False, True, True]


def test_a_column_without_cells_takes_the_type_of_the_fit():
    schema = Schema((Column("b", "boolean", levels=(False, True), dtype="bool"), Column("d", "date", every="D")))
    found = filled(pd.DataFrame({"b": [NAN, NAN], "d": [None, None]}), [torch.tensor([[1.0, 2.0], [0.0, 3.0]])], schema)
    assert found["b"].tolist() == [True, False]
    assert found["b"].dtype == bool
    assert found["d"].tolist() == [pd.Timestamp("1970-01-03"), pd.Timestamp("1970-01-04")]


def test_types_give_way_to_cells_that_they_cannot_hold():
    schema = Schema((Column("n", "real"), Column("c", "category", levels=("u", "v"), dtype="category")))
    frame = pd.DataFrame({"n": pd.array([2, None], dtype="Int64"), "c": pd.Categorical(["v", None])})
    found = filled(frame, [torch.tensor([[0.0, 0.0], [0.5, 0.0]])], schema)
    assert found["n"].tolist() == [2.0, 0.5]
    assert found["c"].tolist() == ["v", "u"]
    assert list(found["c"].cat.categories) == ["v", "u"]


@pytest.mark.parametrize("texts", [
    ["24.12.2020 05:30", None, "04.03.2020 06:00"],
    ["2020-03-07 16:00:00 UTC", None, "2020-03-09 10:00:00 UTC"],
    ["2020-03-07T16:00:00+0000", None, "2020-03-09T10:00:00+0000"],
], ids=str)  # fmt: skip
def test_dates_are_filled_and_drawn_in_the_form_of_the_text(texts, tmp_path):
    frame = pd.DataFrame({"d": texts * 9, "n": np.arange(27) / 7})
    schema = infer_schema(frame)
    coded = encode(frame, schema)
    coded[1::3, 0] = coded[0, 0]
    assert filled(frame, [coded], schema)["d"].tolist() == [texts[0], texts[0], texts[2]] * 9
    save_frame(tmp_path / "x.csv", decode(coded, schema), schema)
    assert pd.read_csv(tmp_path / "x.csv")["d"].tolist() == [texts[0], texts[0], texts[2]] * 9


@pytest.mark.parametrize(
    "dtype",
    ["date32[day][pyarrow]", "timestamp[us][pyarrow]", "timestamp[us, tz=Europe/Oslo][pyarrow]", "date", "object"],
)
def test_dates_are_filled_and_drawn_as_the_type_that_they_had(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    days = pd.Series(pd.date_range("2020-03-04", periods=20, freq="7D"))
    days = days.dt.date if dtype == "date" else days.astype("object" if dtype in ("date", "object") else dtype)
    cells = days.mask(np.arange(20) == 3, None)
    frame = pd.DataFrame({"d": cells, "n": np.arange(20) / 7})
    schema = infer_schema(frame)
    assert (schema.columns[0].kind, schema.columns[0].why) == ("date", "dates")
    coded = encode(frame, schema)
    coded[3, 0] = coded[5, 0]
    found = filled(frame, [coded], schema)["d"]
    assert found.tolist() == [*days[:3], days[5], *days[4:]]
    assert found.dtype == days.dtype
    drawn = decode(coded, schema)["d"]
    assert drawn.dtype == days.dtype or dtype in ("date", "object")
    assert (pd.to_datetime(drawn, utc=True) == pd.to_datetime(found, utc=True)).all()


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float64"])
def test_days_that_are_numbers_are_filled_and_drawn_as_such_numbers(dtype):
    days = pd.Series(pd.date_range("2019-12-20", periods=40)).dt.strftime("%Y%m%d").astype(int).astype(dtype)
    cells = days if dtype == "int64" else days.mask(np.arange(40) == 3)
    frame = pd.DataFrame({"d": cells})
    schema = infer_schema(frame, {"d": "date"})
    assert schema.columns[0].form == "%Y%m%d"
    coded = encode(frame, schema)
    coded[3, 0] = coded[5, 0]
    found = filled(frame, [coded], schema)["d"]
    assert found.dtype == dtype
    assert found.tolist() == [*days[:3], days[3 if dtype == "int64" else 5], *days[4:]]


def test_types_that_pandas_cannot_name_become_numbers():
    pyarrow = pytest.importorskip("pyarrow")
    decimals = pd.Series([Decimal(number) / 100 for number in range(150, 190)])
    frame = pd.DataFrame({"n": decimals.astype(pd.ArrowDtype(pyarrow.decimal128(7, 2)))})
    schema = infer_schema(frame)
    np.testing.assert_allclose(decode(encode(frame, schema), schema)["n"], decimals.astype(float), atol=1e-5)


def test_cells_are_filled_in_the_form_of_their_own_table():
    schema = infer_schema(pd.DataFrame({"d": ["12/24/2020", "03/04/2020"] * 9}))
    frame = pd.DataFrame({"d": ["2020-12-24", None, "2020-03-04"]})
    coded = encode(frame, schema)
    coded[1] = coded[0]
    assert filled(frame, [coded], schema)["d"].tolist() == ["2020-12-24", "2020-12-24", "2020-03-04"]


# Best guesses


def guesses(draws, **column):
    return most_likely(torch.tensor(draws)[:, :, None], Schema((Column("a", **column),)))[:, 0]


def test_the_guess_of_a_number_is_the_mean_of_its_cells():
    draws = [[1.0, -1.0], [2.0, 0.0], [6.0, 4.0]]
    assert guesses(draws, kind="real", center=5.0, unit=2.0).tolist() == [3.0, 1.0]
    assert guesses(draws, kind="count").tolist() == [3.0, 1.0]
    assert guesses(draws, kind="date", center=5.0, unit=2.0).tolist() == [3.0, 1.0]
    cells = np.exp(0.5 + 2.0 * np.array(draws)).mean(0)  # not the exponential of the mean, which is far below
    found = guesses(draws, kind="positive", log=True, center=0.5, unit=2.0)
    torch.testing.assert_close(found, torch.tensor((np.log(cells) - 0.5) / 2).float())


@pytest.mark.parametrize("kind, levels", [("category", "uvw"), ("boolean", "uv")])
def test_the_guess_of_a_level_is_the_most_frequent_one(kind, levels):
    draws = [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert guesses(draws, kind=kind, levels=tuple(levels)).tolist() == [0.0, 1.0]


def test_the_guess_of_ordered_levels_is_their_median():
    draws = [[0.0, 2.0], [0.0, 2.0], [1.0, 0.0], [2.0, 2.0], [2.0, 0.0]]
    assert guesses(draws, kind="ordinal", levels=(1, 2, 3)).tolist() == [1.0, 2.0]
    assert guesses(draws, kind="category", levels=("u", "v", "w")).tolist() == [0.0, 2.0]


def test_the_guess_is_the_spike_from_half_of_the_draws():
    draws = [[INF, INF, INF, 2.0], [INF, 1.0, INF, 4.0], [1.0, 3.0, INF, 0.0], [3.0, 5.0, INF, 2.0]]
    assert guesses(draws, kind="spike", spike=0.0, unit=7.0).tolist() == [INF, 3.0, INF, 2.0]
    found = guesses([[INF], [0.0], [math.log(3.0)]], kind="spike", spike=0.0, log=True)
    assert found.item() == pytest.approx(math.log(2.0))


# Files


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_text_comes_back_as_it_was(ending, tmp_path):
    frame = pd.DataFrame(
        {
            "=name": ["=1+1", "+x", "-x", "@x", "'=1", "'tis", "-5", "a,b", 'say "no"', "two\nlines", "a\tb", "＝x"],
            "zip": ["01234", "90210", *["00001"] * 10],
            "x": [0.1, -2.5, 1e-300, 1 / 3, None, 5.0, 1e20, 2.0, 0.0, -0.0, 12345.678901, 7.0],
            "i": range(12),
            "b": [True, False] * 6,
        }
    )
    save_frame(tmp_path / f"x.{ending}", frame, infer_schema(frame))
    pd.testing.assert_frame_equal(read_frame(tmp_path / f"x.{ending}").frame, frame, check_exact=True)
    lines = (tmp_path / f"x.{ending}").read_text().splitlines()
    assert lines[0].split("\t" if ending == "tsv" else ",")[0] == "'=name"
    assert lines[1].startswith("'=1+1")


def test_a_single_column_keeps_its_missing_cells(tmp_path):
    frame = pd.DataFrame({"a": ["u", None, "v", None]})
    save_frame(tmp_path / "x.csv", frame, Schema((Column("a", "category"),)))
    pd.testing.assert_frame_equal(read_frame(tmp_path / "x.csv").frame, frame)


def test_whole_numbers_have_no_point_where_the_data_had_none(tmp_path):
    rows = "".join(f"{i},{i % 5},{i}.25,{10 * (i % 7 - 3)},{i % 2},{i}\n" for i in range(30))
    (tmp_path / "x.csv").write_text(f"id,grade,x,tens,flag,gap\n{rows}7,,,,,\n,1,0.5,10,,\n")
    frame = read_frame(tmp_path / "x.csv").frame
    assert set(frame.dtypes) == {np.dtype("float64")}
    schema = infer_schema(frame, {"id": "drop"})
    save_frame(tmp_path / "y.csv", frame, schema)
    assert (tmp_path / "y.csv").read_text() == (tmp_path / "x.csv").read_text()


def test_counts_are_written_as_whole_numbers(tmp_path):
    save_frame(tmp_path / "x.csv", pd.DataFrame({"n": [3.0, None], "x": [3.0, 4.5]}), Schema((Column("n", "count"),)))
    assert (tmp_path / "x.csv").read_text() == "n,x\n3,3.0\n,4.5\n"


def test_dates_are_written_in_iso_8601(tmp_path):
    frame = pd.DataFrame(
        {
            "day": pd.to_datetime(pd.Series(["2020-03-04", None, "2021-12-31"])),
            "time": pd.to_datetime(pd.Series(["2020-03-04T10:30:00", "2020-03-04T00:00:00", None])),
            "text": ["04/03/2020", None, "soon"],
        }
    )
    save_frame(tmp_path / "x.csv", frame, Schema(()))
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        "day,time,text",
        "2020-03-04,2020-03-04T10:30:00,04/03/2020",
        ",2020-03-04T00:00:00,",
        "2021-12-31,,soon",
    ]


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_frames_come_back_with_their_types(ending, tmp_path):
    pytest.importorskip("pyarrow")
    frame = gappy().drop(columns="object")
    save_frame(tmp_path / f"x.{ending}", frame, infer_schema(frame))
    pd.testing.assert_frame_equal(read_frame(tmp_path / f"x.{ending}").frame, frame)


@pytest.mark.parametrize(
    "rows", [pd.RangeIndex(5, 45), pd.Index(range(39, -1, -1)), pd.Index([f"r{i}" for i in range(40)])]
)
def test_an_index_without_a_name_stays_it_or_is_a_column(rows, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.arange(40) / 7}, index=rows)
    frame.to_parquet(tmp_path / "x.parquet")
    read = read_frame(tmp_path / "x.parquet").frame
    pd.testing.assert_frame_equal(read, frame)
    read.iloc[3, 0] = None
    schema = infer_schema(read)
    whole = filled(read, [torch.zeros(40, 1)], schema)
    assert (whole.index == rows).all()
    save_frame(tmp_path / "y.parquet", whole, schema)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "y.parquet"), whole)
    for ending, back in (("csv", pd.read_csv), ("feather", pd.read_feather)):
        save_frame(tmp_path / f"y.{ending}", whole, schema)
        assert back(tmp_path / f"y.{ending}")["index"].tolist() == rows.tolist()


def test_an_index_with_names_is_columns_and_an_index_again(tmp_path):
    pytest.importorskip("pyarrow")
    index = pd.MultiIndex.from_product([["u", "v"], range(20)], names=["group", "n"])
    frame = pd.DataFrame({"a": np.arange(40) / 7}, index=index)
    frame.to_parquet(tmp_path / "x.parquet")
    read = read_frame(tmp_path / "x.parquet").frame
    assert list(read.columns) == ["group", "n", "a"]
    twice = filled(read, [torch.zeros(40, 3)] * 2, infer_schema(read), numbered=True)
    save_frame(tmp_path / "y.parquet", twice, infer_schema(read))
    back = pd.read_parquet(tmp_path / "y.parquet")
    assert back.index.names == ["group", "n"]
    pd.testing.assert_frame_equal(back.query("draw == 2").drop(columns="draw"), frame)
    save_frame(tmp_path / "y.csv", twice, infer_schema(read))
    assert pd.read_csv(tmp_path / "y.csv").columns.tolist() == ["draw", "group", "n", "a"]


def test_files_that_are_not_written(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, "x"]})
    for name in ("x.parquet", "x.feather"):
        with assert_refused(tmp_path / name, "write a .csv"):
            save_frame(tmp_path / name, frame, Schema(()))
    with assert_refused("x.xlsx", ".csv, .tsv, .parquet, .feather", "'.xlsx'"):
        save_frame(tmp_path / "x.xlsx", frame, Schema(()))
    with assert_refused("a file without ending"):
        save_frame(tmp_path / "x", frame, Schema(()))
    assert list(tmp_path.iterdir()) == []


# Cells as they are written


RAW = (
    "id;x;flag;day;note;left\r\n"
    "007;1,10;TRUE;3.4.2020;'-a;NA\r\n"
    "008;;FALSE;13.4.2020;b;a\r\n"
    '009;2,5;;4.4.2020;"z\r\nw";b\r\n'
    "010;+3,0;TRUE;;c;?\r\n"
) + "".join(f"{i:03d};{i % 9},{i}0;FALSE;{i % 28 + 1}.5.2020;c;t{i}\r\n" for i in range(11, 40))


def test_observed_cells_stay_as_they_are_written_and_filled_ones_are_written_alike(tmp_path):
    (tmp_path / "x.csv").write_bytes(RAW.encode())
    read = read_frame(tmp_path / "x.csv")
    schema = infer_schema(read.frame, {"left": "drop", "x": "real", "note": "category"})
    coded = encode(read.frame, schema)
    coded[1, 0], coded[2, 1], coded[3, 2] = coded[2, 0] + 0.2, 1.0, coded[0, 2]
    whole = filled(read.frame, [coded, coded], schema, numbered=True)
    written = observed_texts(read_texts(tmp_path / "x.csv"), read.frame, schema)
    assert save_frame(tmp_path / "y.csv", whole, schema, written=written) == 2
    with (tmp_path / "x.csv").open(newline="") as before, (tmp_path / "y.csv").open(newline="") as after:
        old, new = csv.reader(before, delimiter=";"), csv.reader(after, delimiter=";")
        expected = [*old]
        found = [line[1:] for line in new]
    expected[3][2], expected[4][3] = "TRUE", "3.4.2020"
    assert 2.5 < float(found[2][1].replace(",", ".")) < 20
    assert "," in found[2][1]
    expected[2][1] = found[2][1]
    assert found == [*expected, *expected[1:]]
    assert read_frame(tmp_path / "y.csv").frame["note"].tolist() == read.frame["note"].tolist() * 2


@pytest.mark.parametrize("texts, cell, written", [
    (["1.10", "2.35"], 2.1, "2.10"), (["1.1", "2.35"], 2.1, "2.1"), (["181.0", "95.0"], 2.0, "2.0"),
    (["181", "95"], 2.0, "2"), (["1e3", "95"], 2.1, "2.1"),
])  # fmt: skip
def test_filled_numbers_have_as_many_decimals_as_all_others(texts, cell, written, tmp_path):
    frame = pd.DataFrame({"x": [*map(float, texts), cell]})
    known = Written(pd.DataFrame({"x": [*texts, None]}), ",", ".")
    save_frame(tmp_path / "x.csv", frame, Schema((Column("x", "real"),)), written=known)
    assert (tmp_path / "x.csv").read_text().split()[1:] == [*texts, written]


def test_moments_are_written_with_their_fractions_and_zone(tmp_path):
    days = pd.Series(pd.to_datetime(["2020-03-04 10:20:30.250", "2020-03-05"], format="ISO8601"))
    frame = pd.DataFrame({"a": days, "b": days.dt.tz_localize("America/New_York"), "c": days + pd.Timedelta("1us")})
    save_frame(tmp_path / "x.csv", frame, Schema(()))
    assert (tmp_path / "x.csv").read_text().splitlines()[1:] == [
        "2020-03-04T10:20:30.250,2020-03-04T10:20:30.250-0500,2020-03-04T10:20:30.250001",
        "2020-03-05T00:00:00.000,2020-03-05T00:00:00.000-0500,2020-03-05T00:00:00.000001",
    ]
