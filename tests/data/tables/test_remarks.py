"""What is said of columns whose cells may mean something else than what they were read as."""

import numpy as np
import pandas as pd
import pytest

from subo.data.tables.inferring import infer_schema
from subo.data.tables.remarks import misreadings


def remarks(cells: list) -> list[str]:
    frame = pd.DataFrame({"a": cells, "n": np.arange(len(cells)) / 7})
    return misreadings(frame, infer_schema(frame))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1,5", "2,25", "-"] * 20, "40 of its 60 cells are numbers, but row 3 has '-'; if that is a missing cell"),
        (["1e3", "2.5", ".5", "n/a"] * 20, "60 of its 80 cells are numbers, but row 4 has 'n/a'"),
        (["2020-03-04", "2021-03-05", "unknown"] * 20, "40 of its 60 cells are dates, but row 3 has 'unknown'"),
        ([f"${1200 + 7 * i:,}.50" for i in range(20)] * 3, "cells such as '$1,200.50' hold numbers"),
        ([f"1 8{i:02d},85 €" for i in range(20)] * 3, "cells such as '1 800,85 €' hold numbers"),
        (["37,582", *[f"1,0{i:02d}.59" for i in range(20)]] * 3, "cells such as '1,000.59' hold numbers"),
        ([f"{i}%" for i in range(20)] * 3, "cells such as '0%' hold numbers"),
        ([f"{170 + i / 2:g} cm" for i in range(20)] * 3, "cells such as '170 cm' hold numbers"),
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
