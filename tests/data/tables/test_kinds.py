"""What a column is taken for: clear cases, cases at the border, and cells that cannot be of a kind."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from assertions import assert_refused
from subo.data.tables import kinds
from subo.data.tables.kinds import counts_of, hold_to, kind_of_column, spike_of
from subo.data.tables.schema import plain

RNG = np.random.default_rng


def kind_of(cells, **options):
    return kind_of_column(pd.Series(cells, name="a", **options)).kind


# Clear cases


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    "kind, cells",
    [
        ("real", RNG(0).normal(size=500)),
        ("real", RNG(0).uniform(1, 2, size=500).round(2)),
        ("real", RNG(0).normal(170, 10, size=500).round()),
        ("real", RNG(0).integers(-50, 50, size=500)),
        ("positive", RNG(0).lognormal(3, 1, size=500)),
        ("positive", RNG(0).lognormal(10, 1, size=500).round()),
        ("count", RNG(0).poisson(12, size=500)),
        ("count", RNG(0).negative_binomial(2, 0.05, size=500)),
        ("spike", np.where(RNG(0).random(500) < 0.5, 0, RNG(1).normal(size=500))),
        ("spike", np.where(RNG(0).random(500) < 0.5, 0, RNG(1).lognormal(8, 1, size=500).round())),
        ("ordinal", RNG(0).integers(1, 6, size=500)),
        ("ordinal", RNG(0).integers(-3, 3, size=500)),
        ("boolean", RNG(0).integers(0, 2, size=500)),
        ("boolean", ["yes", "no"] * 250),
        ("boolean", ["T", "f"] * 250),
        ("category", ["red", "green", "blue", "blue"] * 125),
        ("date", pd.date_range("2020-01-01", periods=500)),
        ("date", [f"2020-0{1 + i % 9}-1{i % 7}" for i in range(500)]),
        ("date", [f"{1 + i % 28}/{1 + i % 12}/2021" for i in range(500)]),
        ("date", [f"{1 + i % 12}/{1 + i % 28}/2021" for i in range(500)]),
        ("date", [f"{1 + i % 28}.{1 + i % 12}.21" for i in range(500)]),
        ("date", [datetime.date(2020, 1, 1) + datetime.timedelta(i % 99) for i in range(500)]),
        ("drop", [f"person {i}" for i in range(500)]),
        ("drop", [7] * 500),
        ("drop", ["x"] * 500),
    ],
)
def test_clear_columns(kind, cells, missing):
    cells = pd.Series(cells, name="a")
    assert kind_of_column(cells.mask(cells.index % 499 == 498) if missing else cells).kind == kind


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_truth_values_of_all_types(dtype):
    reading = kind_of_column(pd.Series([True, False] * 5, dtype=dtype))
    assert reading == ("boolean", "true and false")


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float32", "Int64", "Float64", "object"])
def test_numbers_of_all_types(dtype):
    cells = pd.Series(RNG(0).integers(1, 6, size=100)).astype(dtype)
    assert kind_of_column(cells) == ("ordinal", "5 different whole numbers")


def test_decimal_objects_are_numbers():
    cells = [Decimal(i) / 7 for i in range(50)]
    assert kind_of(cells) == "real"


@pytest.mark.parametrize("kind, values", [("category", ["u", "v", "w"]), ("boolean", ["no", "yes"])])
def test_categories_of_pandas(kind, values):
    assert kind_of_column(pd.Series(pd.Categorical(values * 10))).kind == kind


@pytest.mark.parametrize(
    "cells, name",
    [
        ([[1], [2]], "list"),
        ([b"u", b"v"], "bytes"),
        ([datetime.time(1), datetime.time(2)], "time"),
        (pd.to_timedelta([1, 2], unit="D"), "Timedelta"),
        (pd.period_range("2020", periods=2, freq="M"), "Period"),
        ([1j, 2j], "complex"),
        ([{"u": 1}, {"v": 1}], "dict"),
    ],
)
def test_cells_of_other_types_are_dropped_with_the_reason(cells, name):
    reading = kind_of_column(pd.Series([*cells] * 10))
    assert reading == ("drop", f"no kind describes cells of the type {name}")


# Borders


def test_without_a_cell_or_with_one_value_a_column_is_dropped_with_the_reason():
    assert kind_of_column(pd.Series([None, np.nan] * 5)) == ("drop", "no cell is observed")
    assert kind_of_column(pd.Series([2.5, np.nan] * 5)) == ("drop", "constant: every observed cell is 2.5")
    assert kind_of_column(pd.Series(["x", None] * 5)) == ("drop", "constant: every observed cell is x")


def test_up_to_20_whole_numbers_are_ordinal():
    for distinct, kind in [(20, "ordinal"), (21, "real")]:
        assert kind_of(2 * np.arange(distinct).repeat(9) - 5) == kind
    assert kind_of((np.arange(20).repeat(9) - 5) / 2) == "real"


def test_two_whole_numbers_are_boolean_only_if_they_are_0_and_1():
    assert kind_of_column(pd.Series([0.0, 1.0, np.nan] * 9)) == ("boolean", "0 and 1")
    assert kind_of([1, 2] * 9) == kind_of([-1, 1] * 9) == kind_of([0, 1, 2] * 9) == "ordinal"


def test_whole_numbers_in_order_are_an_identifier_beyond_20():
    assert kind_of(range(20)) == "ordinal"
    assert kind_of(range(21)) == kind_of(range(5000, 0, -10)) == "drop"
    assert kind_of([*range(21), 20]) != "drop"
    assert kind_of([*range(21), 22]) != "drop"
    assert kind_of(np.arange(21) / 2) != "drop"


def test_a_fifth_of_the_cells_makes_a_spike():
    others = RNG(0).normal(size=80)
    assert spike_of(counts_of(pd.Series([*others, *[3.0] * 20]))) == 3.0
    assert spike_of(counts_of(pd.Series([*others, *[3.0] * 19]))) is None
    assert kind_of_column(pd.Series([*others, *[3.0] * 20])) == (
        "spike", "3 in 20% of the cells, and other values beside"
    )  # fmt: skip
    assert kind_of([*others, *[3.0] * 19]) == "real"


def test_what_is_beside_a_spike_varies():
    for distinct, found in [(20, None), (21, 0.0)]:
        assert spike_of(counts_of(pd.Series([*np.arange(1.5, distinct + 1).repeat(4), *[0.0] * 50]))) == found
    for distinct, found in [(50, None), (51, 0.0)]:  # however long the table
        assert spike_of(counts_of(pd.Series([*np.arange(1.5, distinct + 1).repeat(40), *[0.0] * 2000]))) == found


@pytest.mark.parametrize("share", [0.0, 0.02, 0.15, 0.19, 0.21, 0.9])
@pytest.mark.parametrize("rows", [19_999, 20_000, 50_000])
def test_long_columns_are_read_as_if_all_their_values_were_counted(rows, share, monkeypatch):
    """The value at the spike stands in one piece, where a sample of neighbors would miss it or see nothing else."""
    cells = pd.Series(RNG(0).normal(size=rows), name="a")
    cells[: round(share * rows)] = 1.5
    found = kind_of_column(cells)
    monkeypatch.setattr(kinds, "_LONG", rows + 1)
    assert found == kind_of_column(cells)
    assert found.kind == ("spike" if share > 0.2 else "real")


@pytest.mark.parametrize("rows", [80, 30_000])
def test_a_few_fractions_have_probabilities_if_each_has_ten_cells(rows):
    assert kind_of_column(pd.Series(np.arange(rows) % 8 / 2)) == ("ordinal", "8 different numbers")
    assert kind_of_column(pd.Series(np.arange(rows) % (rows // 4) / 2)).kind == "real"


def test_unique_whole_numbers_without_a_gap_identify_rows_in_any_order():
    shuffled = RNG(0).permutation(300)
    assert kind_of_column(pd.Series(shuffled + 5)).why == (
        "every row has a whole number of its own, none is left out: an identifier"
    )
    assert kind_of(shuffled * 3) != "drop"


def test_levels_whose_type_declares_an_order_are_ordinal():
    sizes = pd.Categorical(["S", "L", "M", None] * 9, categories=["S", "M", "L", "XL"], ordered=True)
    assert kind_of_column(pd.Series(sizes)) == ("ordinal", "3 levels, in the order of their type")
    assert kind_of(pd.Categorical(["S", "L"] * 9)) == "category"
    assert hold_to(pd.Series(sizes), "ordinal").kind == "ordinal"
    with assert_refused("row 1 has 'S'", "a schema file", '"levels"'):
        hold_to(pd.Series(["S", "M"]), "ordinal")


def test_an_infinite_cell_is_refused_in_a_long_column_too():
    cells = pd.Series(RNG(0).integers(8, size=30_000) / 2, name="a")
    cells[29_999] = np.inf
    with assert_refused("column 'a', row 30000"):
        kind_of_column(cells)


def test_text_is_a_category_with_5_rows_a_level_and_1000_levels():
    assert kind_of(["u", "v"] * 5) == "category"
    assert kind_of_column(pd.Series(["u", "v"] * 4 + ["u"])) == (
        "drop", "2 different texts in 9 cells: too many for a category"
    )  # fmt: skip
    assert kind_of([*["u", "v"] * 5, None]) == kind_of(["u", "v", *["u"] * 8]) == "category"
    levels = [f"level {i}" for i in range(1001)]
    assert kind_of(levels[:1000] * 5) == "category"
    assert kind_of(levels * 5) == "drop"


def test_words_are_boolean_only_in_their_pairs():
    assert kind_of_column(pd.Series(["No", "Yes"] * 9)) == ("boolean", "No and Yes")
    for cells in (["yes", "false"], ["yes", "no", "perhaps"], ["Yes", "yes", "no"], ["u", "n"]):
        assert kind_of(cells * 9) == "category"


def test_text_is_a_date_only_if_every_cell_is_one():
    some = [f"2020-01-{1 + i % 28}" for i in range(99)]
    assert kind_of(some) == kind_of([*some, None]) == kind_of([*some, "3/4/2020"]) == "date"
    assert kind_of(["2020-01-01", "2020-13-01"] * 9) == "category"
    assert kind_of(["2020-01-01", "later"] * 9) == "category"
    assert kind_of(["13/04/2020", "04/13/2020"] * 9) == "category"  # neither part is always a month


@pytest.mark.parametrize("scale", [1e-3, 1, 1e6])
def test_positive_needs_a_tail_that_the_logarithm_does_not_have(scale):
    tail = RNG(0).lognormal(0, 1, size=500)
    assert kind_of(tail * scale) == "positive"
    assert kind_of([*tail[1:] * scale, 0.0]) == "real"
    assert kind_of(RNG(0).lognormal(5, 0.1, size=500) * scale) == "real"
    assert kind_of(-tail * scale) == "real"


def test_counts_are_of_few_events():
    counts = RNG(0).negative_binomial(3, 0.2, size=300)
    assert counts.min() == 0
    assert kind_of(counts) == "count"
    assert kind_of(counts - 1) == kind_of(counts + 0.5) == "real"  # below 0, not whole
    assert kind_of(RNG(0).poisson(900, size=300)) == "real"  # far from 0: a count in name only
    ratio = np.var(counts, ddof=1) / np.mean(counts)
    why = f"whole numbers from 0 upwards, whose variance is {ratio:.3g} times their mean"
    assert kind_of_column(pd.Series(counts)).why == why


@pytest.mark.parametrize("cells", [[0.5, np.inf, 1.5], [0, 1, np.inf] * 9, [np.nan, -np.inf, 1.0]])
def test_infinite_numbers_are_refused(cells):
    row = 1 + int(np.argmax(np.isinf(cells)))
    with assert_refused("column 'a'", f"row {row}", f"{cells[row - 1]} is not a finite number"):
        kind_of(cells)


def test_whole_numbers_that_fill_a_range_up_to_its_ends_are_levels_in_order():
    rng = np.random.default_rng(0)
    reading = kind_of_column(pd.Series(rng.integers(1, 32, 600)))
    assert reading == ("ordinal", "all whole numbers from 1 to 31, the ends no rarer")
    assert kind_of(np.arange(153) % 31 + 1) == "ordinal"
    assert kind_of(np.arange(123) % 31 + 1) != "ordinal"  # fewer than four cells for each
    assert kind_of(rng.normal(40, 9, 900).round()) == "real"  # it has tails
    assert kind_of(2 * rng.integers(0, 40, 900)) != "ordinal"  # with gaps
    assert kind_of(rng.integers(0, 61, 9000)) != "ordinal"  # 61 of them


# Kinds that are asked for


@pytest.mark.parametrize(
    "kind, cells",
    [
        ("real", ["1.5", None, "-2"]),
        ("positive", [1e-9, np.nan]),
        ("count", [0, 1, 1e15]),
        ("count", ["3", "4"]),
        ("spike", [0, 0, 0]),
        ("ordinal", [0.5, -1.5]),
        ("boolean", ["u", "v", None]),
        ("boolean", [3, 3]),
        ("category", [1, "x", 2.5]),
        ("category", ["x"]),
        ("date", ["13/04/2020", "2020-05-06", None]),
        ("date", [2019, 2020]),
        ("date", pd.date_range("2020", periods=3)),
        ("drop", [None, None]),
        ("drop", [[1], [2]]),
    ],
)
def test_kinds_that_cells_can_be_of(kind, cells):
    assert hold_to(pd.Series(cells, name="a"), kind) == (kind, "as asked for")


@pytest.mark.parametrize("index", [None, [*"uvwx"], [7, 7, 7, 7]], ids=["plain", "named", "alike"])
@pytest.mark.parametrize(
    "kind, cells, row, fact",
    [
        ("real", [1, None, "x", "y"], 3, "numbers"),
        ("real", [1.5, np.nan, np.inf, 2], 3, "numbers"),
        ("positive", [1.5, 2, np.nan, 0], 4, "numbers above 0"),
        ("positive", [-1.5, 2, 1, 1], 1, "numbers above 0"),
        ("count", [1, 2.5, 3, -1], 2, "whole numbers, 0 or more"),
        ("count", [1, None, -1, 0.5], 3, "whole numbers, 0 or more"),
        ("count", [1, 2, 3, np.inf], 4, "whole numbers, 0 or more"),
        ("spike", [0, 0, "none", 1], 3, "numbers"),
        ("ordinal", ["low", "high", "low", "low"], 1, "numbers"),
        ("date", ["2020-01-01", None, "soon", "x"], 3, ""),
        ("date", ["13/04/2020", "04/13/2020", None, None], 2, ""),
    ],
)
def test_kinds_that_a_cell_cannot_be_of(kind, cells, row, fact, index):
    series = pd.Series(cells, name="a", index=index)
    cell = plain(series.iloc[row - 1])
    with assert_refused("column 'a'", f"of the kind {kind}", fact, f"row {row} has {cell!r}"):
        hold_to(series, kind)


@pytest.mark.parametrize(
    "kind, cells, fact",
    [
        ("boolean", ["u", "v", "w"], "3 different values"),
        ("ordinal", [2, 2, None], "one value only"),
        ("category", [b"u", b"v"], "b'u' is no text, number or date"),
        *[(kind, [None, np.nan], "no cell is observed") for kind in ("real", "count", "date", "category", "boolean")],
        ("colour", ["u"], "there is no kind 'colour'; there are real, positive, count"),
    ],
)
def test_kinds_that_a_column_cannot_be_of(kind, cells, fact):
    with assert_refused("column 'a'", fact):
        hold_to(pd.Series(cells, name="a"), kind)
