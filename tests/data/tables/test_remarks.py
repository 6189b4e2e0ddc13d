"""What is said of columns whose cells may mean something else than what they were read as."""

import numpy as np
import pandas as pd
import pytest

from assertions import assert_refused
from subo.data.tables.inferring import infer_schema
from subo.data.tables.misreadings import misreadings
from subo.data.tables.mixed import contents_of, read_mixed
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Column, Schema

DAYS = [f"2020-0{month}-{day:02d}" for month in (1, 2) for day in range(5, 27)]


def remarks(cells: list) -> list[str]:
    frame = pd.DataFrame({"a": cells, "n": np.arange(len(cells)) / 7})
    return misreadings(frame, infer_schema(frame))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1.5", "2.25", "-"] * 20, "40 of its 60 cells are numbers, but row 3 has '-'; if that is a missing cell"),
        (
            ["1.5", "2", "-", "?"] * 9,
            "but row 3 has '-', and others have '?'; if those are missing cells, clear them, or",
        ),
        (["1.5", "2", "-", "?"] * 9, "name them: `missing=-,?`"),
        (["1e3", "2.5", ".5", "n/a"] * 20, "60 of its 80 cells are numbers, but row 4 has 'n/a'"),
        (["2020-03-04", "2021-03-05", "unknown"] * 20, "40 of its 60 cells are dates, but row 3 has 'unknown'"),
        (["2020-03-04", "2021-03-05", "0000-00-00"] * 20, "40 of its 60 cells are dates, but row 3 has '0000-00-00'"),
        (
            [*(f"2021-{m}-{d}" for m in range(1, 10) for d in range(1, 26)), "2021-02-30"],
            "but row 226 has '2021-02-30'",
        ),
        ([f"${1200 + 7 * i:,}.50" for i in range(20)] * 3, "cells such as '$1,200.50' hold numbers"),
        ([f"1 8{i:02d},85 €" for i in range(20)] * 3, "cells such as '1 800,85 €' hold numbers"),
        (["37,582", *[f"1,0{i:02d}.59" for i in range(20)]] * 3, "cells such as '1,000.59' hold numbers"),
        ([f"{i}%" for i in range(20)] * 3, "cells such as '0%' hold numbers"),
        ([f"{170 + i / 2:g} cm" for i in range(20)] * 3, "cells such as '170 cm' hold numbers"),
        (
            ["1,5", "2,25", "3"] * 20,
            "40 of its 60 cells are numbers with a decimal comma, such as '1,5', while the deci",
        ),
        (["1,5", "2.25"] * 20, "20 of its 40 cells are numbers with a decimal comma, such as '1,5', while the decimal"),
        (
            ["1,5", "2,25"] * 20,
            "write them with a point, or, if all numbers of the file have a comma, give `decimal=,`",
        ),
        (["1,500", "2,250", "900"] * 20, "while the decimal mark is a point: remove it where it separates thousands"),
        (["0.7", "<0.5", "0.9"] * 20, "40 of its 60 cells are numbers, and 20 bounds, such as '<0.5' in row 2."),
        (["0.7", "<0.5", "0.9"] * 20, "write the limit itself in its place, 0.5, or half of it"),
        (
            [*["<5"] * 90, "> 100", *"56789"] * 2,
            "10 of its 192 cells are numbers, and 182 bounds, such as '<5' in row 1",
        ),
        (["7", ">100", "9"] * 20, "as if any value were possible: write the limit itself in its place, 100"),
        (
            ["a", "NULL", "b", "b"] * 6,
            "has 'NULL' in 6 cells as a level of its own; if it stands for a missing cell, name",
        ),
        (
            ["a", "N/A", "b", "?"] * 6,
            "has 'N/A' in 6 cells and '?' in 6 cells as levels of their own; if they stand for",
        ),
        (["a", "-", "b", None] * 6, "name it: `missing=-`"),
        (["yes", "no", "<NA>"] * 9, "'<NA>' in 9 cells"),
        (
            [20210301, 20210315, 20220101, 20230704] * 9,
            "all of them may be days, as 20210301 is: if they are, write them",
        ),
        (
            [20210301, 20210315, 20220101, 20230704] * 9,
            "such as 2021-03-01, or give `columns=",
        ),
        ([20210301, 20210315, 20220101, None] * 9, "all of them may be days, as 20210301 is"),
        (
            [202100 + m for m in range(1, 13)] * 9,
            "may be months, as 202101 is: if they are, write them as dates, such as 2",
        ),
        (
            [*DAYS, "9999-12-31", "9999-12-31"],
            "has 9999-12-31 in 2 cells, far from all others (2020-01-05 to 2020-02-26)",
        ),
        ([*DAYS, "31.12.9999", "31.12.9999"], "name it: `missing=31.12.9999`"),
        ([*pd.to_datetime(DAYS), *[pd.Timestamp("1900-01-01")] * 3], "has 1900-01-01 in 3 cells, far from all others"),
        ([20.5, 79.0, 33.0, -999.0] * 20, "has -999 in 20 cells, far from all others (20.5 to 79)"),
        ([1, 4, 5, 9, 2, 99] * 20, "has 99 in 20 cells, far from all others (1 to 9); if that stands"),
    ],
)
def test_cells_that_may_mean_something_else_are_said(cells: list, words: str):
    (said,) = remarks(cells)
    assert words in said
    assert said.startswith("column 'a'")


@pytest.mark.parametrize(
    "cells",
    [
        ["Oslo", "Rome"] * 30,
        ["2020-03-04", "2021-03-05", None] * 20,
        ["01234", "23456"] * 30,
        ["+49 123 456", "+47 99 12"] * 30,
        ["1a", "2b", "3c"] * 20,
        ["A1", "B2"] * 30,
        ["13:45", "07:10"] * 30,
        ["<=50K", ">50K"] * 30,
        ["2WD", "4WD"] * 30,
        ["a", "unknown", "none", "missing"] * 20,
        ["+", "-"] * 20,
        ["NULL"] * 20,
        [*(f"{i:x}d{i + 7:x}" for i in range(3000, 3290)), *map(str, range(934300, 934312))],  # codes, of which some...
        ["<5", "5-10", ">10"] * 20,
        DAYS,
        [*DAYS, "9999-12-31"],
        [*DAYS, "2020-01-01", "2020-01-01"],
        [f"{year}-01-01" for year in (1980, 2001, 2002, 2003, 2004)] * 5,
        [20210301, 20210332, 20210401, 20210402] * 9,
        [2021, 2022, 2023, 2024] * 9,
        [202101, 202105, 202113, 202207, 202208, 202209, 202210] * 9,
        [0, 1, -1] * 20,
        [-1, 1] * 30,
        [98, 99] * 30,
        [*range(100)] * 3,
        np.arange(300).astype("uint8") % 100,
        [1, 5, 99] * 20 + [98, 70, 60] * 20,
        [1.5, 2.5, 3.0] * 20 + [999.0],  # a single one is an outlier
        [999.0] * 59 + [3.0],
    ],
    ids=str,
)
def test_of_plain_cells_nothing_is_said(cells: list):
    assert remarks(cells) == []


def test_categories_and_numbers_among_objects_are_seen():
    assert "row 3 has 'low'" in remarks([1, 2, "low"] * 20)[0]
    cells = pd.Series([f"{i}%" for i in range(20)] * 3 + [None] * 9, dtype="category")
    frame = pd.DataFrame({"a": cells, "n": np.arange(69) / 7})
    assert "'0%' hold numbers" in misreadings(frame, infer_schema(frame))[0]
    frame["b"] = pd.Series([None] * 69, dtype="str")
    assert len(misreadings(frame, infer_schema(frame))) == 1


def test_the_decimal_mark_of_the_file_counts(tmp_path):
    rows = "".join(f"{n}.5;{n % 7}\n" for n in range(30))
    path = tmp_path / "x.csv"
    path.write_text("a;n\n" + rows)
    (said, *_) = read_mixed(path, options=TableOptions(decimal=",", separator=";")).notes
    assert (
        "30 of its 30 cells are numbers with a decimal point, such as '0.5', while the decimal mark is a comma" in said
    )
    path.write_text("a;n\n" + rows.replace(".", ",").replace("29,5;1", "29,5;1.5"))
    said = " ".join(read_mixed(path, options=TableOptions(separator=";")).notes)
    assert "column 'a' is read as text: 30 of its 30 cells are numbers with a decimal comma, such as '0,5'" in said
    path.write_text("a;n\n" + rows.replace(".", ","))
    assert read_mixed(path, options=TableOptions(separator=";", decimal=",")).notes == ()


def test_columns_without_a_cell_are_said_of_later_files(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5, 4.5] * 9, "b": ["u", "v", None] * 9, "c": [0.5, 0.25, 0.125] * 9})
    schema, path = contents_of(frame).table, tmp_path / "x.csv"
    for rows, names in ((27, "s 'b', 'c'"), (2, " 'c'")):  # a third of b is missing, as both may be by chance
        frame.assign(b=None, c=np.nan)[:rows].to_csv(path, index=False)
        said = f"no cell of column{names} is observed, of which the fit had cells"
        assert read_mixed(path, options=TableOptions(), schema=schema).notes == (said,)


def test_levels_of_a_schema_for_a_fit_that_no_cell_has_are_refused():
    frame = pd.DataFrame({"age": [31.5, 40.0, None] * 9, "city": ["Rome", "Oslo", "Bern"] * 9, "x": [0.5] * 27})
    schema = Schema((Column("age", "category", levels=("a", "b")), Column("city", "category", levels=("Rome",))))
    with assert_refused("column 'age': none of its 18 cells is one of the levels", "'a', 'b': row 1 has 31.5"):
        contents_of(frame, schema=schema, fit=True)
    assert "column 'age': 18 cells hold what the fit has never seen" in contents_of(frame, schema=schema).notes[1]
    notes = contents_of(frame.drop(columns="age"), schema=Schema(schema.columns[1:]), fit=True).notes
    assert notes == (
        "column 'x' is left out: not in the schema",
        "column 'city': 18 cells hold what is none of the schema's levels ('Oslo', 'Bern')",
    )
    with assert_refused("column 'age' of the schema is missing. Correct the name in the schema"):
        contents_of(frame.drop(columns=["age", "x"]), schema=schema, fit=True)


def test_what_cells_may_mean_is_said_where_no_column_is_left(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a b c\n" + "".join(f"{n} {n % 7} x\n" for n in range(30)))
    with assert_refused("no column is left", "each cell has as many blanks as the name", "`separator= `"):
        read_mixed(path, options=TableOptions())
    assert read_mixed(path, options=TableOptions(separator=" ")).names == ("b",)
    path.write_text("a  b\n" + "".join(f"{n}  {n}\n" for n in range(30)))
    with assert_refused("each cell has 2 words, as the name has: if blanks separate cells, write a comma"):
        read_mixed(path, options=TableOptions())
    with assert_refused("no column is left", "30 of its 30 cells are numbers with a decimal comma, such as '0,5'"):
        contents_of(pd.DataFrame({"a": [f"{n},5" for n in range(30)]}))
