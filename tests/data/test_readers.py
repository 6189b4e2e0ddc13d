"""Reading files: arrays, tables and images, and what is said of those that can't be used."""

import io
import os
import zipfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from assertions import assert_refused
from data_files import labels_of, rows_sorted, saved, text, zipped
from subo.data.dataset import split
from subo.data.loading import load_data, load_rows
from subo.data.meaning import Meaning

# Arrays


def test_an_array_of_reals(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 3))
    path = saved(tmp_path / "x.npy", array)
    rows = load_rows(path)
    assert rows.x.dtype == torch.float32
    assert np.array_equal(rows.x.numpy(), array.astype(np.float32))
    assert (rows.levels, rows.labels) == (1, None)
    data = load_data(str(path), seed=4)
    assert (data.name, data.kind, data.seed) == (str(path), "real", 4)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 2, 2]
    assert rows_sorted(data.train, data.validation, data.test) == rows_sorted(rows)
    assert torch.equal(data.test.x, split(rows.x, seed=4)[2].x)
    assert not torch.equal(data.test.x, load_data(path, seed=5).test.x)
    for part in ("train", "validation", "test"):
        assert torch.equal(load_rows(path, part=part, seed=4).x, getattr(data, part).x)


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_can_be_read_but_not_split(n, tmp_path):
    path = saved(tmp_path / "x.npy", np.full((n, 4), 0.5))
    assert load_rows(path).x.shape == (n, 4)
    with assert_refused(path, "one row" if n == 1 else "2 rows"):
        load_data(path)


@pytest.mark.parametrize(
    "dtype, high, shape, event, levels, kind",
    [
        (np.uint8, 256, (6, 5, 4), (1, 5, 4), 255, "grey"),
        (np.uint8, 256, (6, 3, 5, 4), (3, 5, 4), 255, "grey"),
        (np.uint8, 256, (6, 5, 4, 3), (3, 5, 4), 255, "grey"),
        (np.uint8, 256, (6, 5, 4, 1), (1, 5, 4), 255, "grey"),
        (np.uint8, 256, (6, 3, 5, 3), (3, 5, 3), 255, "grey"),
        (np.uint8, 256, (6, 4, 5, 2), (4, 5, 2), 255, "grey"),
        (np.uint8, 2, (6, 5, 4), (1, 5, 4), 1, "binary"),
        (np.uint8, 256, (6, 5), (5,), 1, "whole"),
        (np.bool_, 2, (6, 5), (5,), 1, "binary"),
        (np.bool_, 2, (6, 5, 4), (1, 5, 4), 1, "binary"),
        (np.int64, 9, (6, 5), (5,), 1, "whole"),
        (np.int16, 9, (6, 5, 4), (5, 4), 1, "whole"),
        (np.float64, 9, (6, 5, 4, 3), (3, 5, 4), 1, "whole"),
        (np.float64, 9, (6, 5, 4, 7), (5, 4, 7), 1, "whole"),
        (">f4", 9, (6, 5), (5,), 1, "whole"),
    ],
)
def test_layouts_of_arrays(dtype, high, shape, event, levels, kind, tmp_path):
    array = np.random.default_rng(0).integers(high, size=shape).astype(dtype)
    data = load_data(saved(tmp_path / "x.npy", array))
    rows = load_rows(tmp_path / "x.npy")
    assert data.kind == kind
    assert rows.event_shape == event
    assert rows.levels == levels
    pixels = dtype == np.bool_ or (dtype == np.uint8 and len(shape) > 2)
    assert rows.x.dtype == (torch.uint8 if pixels else torch.float32)
    moved = array.transpose(0, 3, 1, 2) if event != shape[1:] and len(shape) == 4 else array
    assert np.array_equal(rows.x.numpy(), moved.reshape(6, *event))


def test_pixels_of_0_and_255_are_binary(tmp_path):
    array = np.zeros((4, 3, 3), dtype=np.uint8)
    array[::2] = 255
    data = load_data(saved(tmp_path / "x.npy", array))
    assert (data.kind, data.train.levels) == ("binary", 255)


@pytest.mark.parametrize(
    "array, facts",
    [
        (np.zeros(5), ("(5,)", "(N, 1)", "(1, D)")),
        (np.zeros(()), ("()", "(N, ...)")),
        (np.zeros((0, 3)), ("empty", "(0, 3)")),
        (np.zeros((3, 0)), ("empty", "(3, 0)")),
        (np.array([["a", "b"]]), ("expected numbers", "<U1")),
        (np.zeros((3, 2), dtype=complex), ("expected numbers", "complex128")),
        (np.array([[{}]]), ("Python objects", "never unpickled")),
    ],
)
def test_arrays_that_cant_be_used(array, facts, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    for read in (load_data, load_rows):
        with assert_refused(tmp_path / "x.npy", *facts):
            read(tmp_path / "x.npy")


def test_values_that_arent_finite_are_refused(tmp_path):
    array = np.zeros((5, 4))
    array[3, 2] = np.nan
    for read in (load_data, load_rows):
        with assert_refused("x.npy", "1 of 20", "nan", "row 4, column 3"):
            read(saved(tmp_path / "x.npy", array))
    array[3, 2], array[1, 0] = 0, -1e39  # in float64 it is finite
    with assert_refused("1 of 20", "-inf", "row 2, column 1", "float32"):
        load_data(saved(tmp_path / "x.npy", array))


def test_npz_of_one_array_and_labels(tmp_path):
    path = tmp_path / "x.npz"
    x, other, y = np.arange(12.0).reshape(6, 2), np.zeros(3), np.arange(6) % 3
    for arrays in ({"points": x}, {"x": x, "other": other}, {"other": other, "data": x}):
        for labels in ({}, {"labels": y}, {"y": y.astype(np.uint8)}, {"y": y > 0}):
            zipped(path, **arrays, **labels)
            rows = load_rows(path)
            assert np.array_equal(rows.x.numpy(), x)
            if labels:
                assert labels_of(rows).dtype == torch.int64
                assert np.array_equal(labels_of(rows).numpy(), next(iter(labels.values())))
            else:
                assert rows.labels is None
    data = load_data(path)
    for part in (data.train, data.validation, data.test):
        assert torch.equal(labels_of(part), (part.x[:, 0] / 2 % 3 > 0).long())


@pytest.mark.parametrize("labels", [np.arange(5), np.zeros(6), np.zeros((6, 1), dtype=int), np.zeros(6, complex)])
def test_npz_labels_that_cant_be_used(labels, tmp_path):
    zipped(tmp_path / "x.npz", x=np.zeros((6, 2)), labels=labels)
    with assert_refused("x.npz", "labels must be 6 integers", labels.shape, labels.dtype):
        load_data(tmp_path / "x.npz")


def test_npz_without_an_evident_array_is_refused(tmp_path):
    x = np.zeros((6, 2))
    for arrays in ({"a": x[None], "b": x[None]}, {"train": x, "test": x}, {"labels": x}):
        zipped(tmp_path / "x.npz", **arrays)
        with assert_refused("x.npz", ", ".join(arrays), "train, validation and test", "labels"):
            load_data(tmp_path / "x.npz")


@pytest.mark.parametrize("validation", ["validation", "valid"])
def test_npz_of_three_parts(validation, tmp_path):
    path = tmp_path / "x.npz"
    parts = {"test": np.full((1, 2), 3.0), validation: np.full((2, 2), 2.5), "train": np.full((4, 2), 1.0)}
    zipped(path, **parts)
    data = load_data(path)
    assert data.kind == "real"
    assert np.array_equal(data.train.x.numpy(), parts["train"])
    assert np.array_equal(data.validation.x.numpy(), parts[validation])
    assert np.array_equal(data.test.x.numpy(), parts["test"])
    assert load_rows(path).x[:, 0].tolist() == [1.0] * 4 + [2.5] * 2 + [3.0]
    assert load_rows(path, part="validation").x[:, 0].tolist() == [2.5] * 2


def test_npz_parts_share_the_meaning_of_a_value(tmp_path):
    path = tmp_path / "x.npz"
    dark, bright = np.ones((3, 2, 2), dtype=np.uint8), np.full((3, 2, 2), 200, dtype=np.uint8)
    zipped(path, train=bright, validation=dark, test=dark)
    data = load_data(path)
    assert data.kind == "grey"
    assert [part.levels for part in (data.train, data.validation, data.test)] == [255, 255, 255]
    zipped(path, train=np.zeros((3, 2)), validation=np.zeros((3, 2)), test=np.zeros((3, 4)))
    with assert_refused("x.npz", "one event shape", "'test': ((4,)"):
        load_data(path)
    bad = np.zeros((3, 2))
    bad[0, 1] = np.inf
    zipped(path, train=np.zeros((3, 2)), validation=bad, test=np.zeros((3, 2)))
    with assert_refused("x.npz, array validation", "row 1, column 2"):
        load_data(path)


def test_rows_of_a_file_are_drawn_once(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(30, 4, 4)).astype(np.uint8)
    path = saved(tmp_path / "x.npy", array)
    static, dynamic = (load_rows(path, binarize=policy, seed=1) for policy in ("static", "dynamic"))
    assert torch.equal(static.x, dynamic.x)
    assert not dynamic.resample
    assert static.x.unique().tolist() == [0, 1]
    assert (static.x.numpy()[:, 0][array == 0] == 0).all()
    assert (static.x.numpy()[:, 0][array == 255] == 1).all()
    assert not torch.equal(static.x, load_rows(path, binarize="static", seed=2).x)
    data = load_data(path, binarize="static", seed=1)
    for part in ("train", "validation", "test"):
        mine = load_rows(path, part=part, binarize="dynamic", seed=1)
        assert torch.equal(mine.x, getattr(data, part).x)


def test_what_binarization_of_rows_refuses_and_keeps(tmp_path):
    bits = saved(tmp_path / "bits.npy", np.eye(4, dtype=np.uint8)[None])
    assert torch.equal(load_rows(bits, binarize="static").x, torch.eye(4, dtype=torch.uint8)[None, None])
    reals = saved(tmp_path / "reals.npy", np.array([[0.5, 2.0]]))
    with assert_refused("reals.npy", "only grey", "real"):
        load_rows(reals, binarize="static")
    with assert_refused("binary already"):
        load_data(saved(tmp_path / "many.npy", np.eye(4)), binarize="dynamic")


# Tables of numbers of one kind

numbers, number_rows = partial(load_data, table=None), partial(load_rows, table=None)


def test_a_table(tmp_path):
    path = text(tmp_path / "x.csv", '\ufeff"height, cm", weight\r\n180,75.5\r\n\r\n1.6e2, -5\r\n170,60\r\n')
    rows = number_rows(path)
    assert rows.x.tolist() == [[180.0, 75.5], [160.0, -5.0], [170.0, 60.0]]
    assert rows.labels is None
    data = numbers(path)
    assert data.feature_names == ("height, cm", "weight")
    assert data.kind == "real"
    assert rows_sorted(data.train, data.validation, data.test) == rows_sorted(rows)


def test_only_a_column_named_label_holds_labels(tmp_path):
    path = text(tmp_path / "x.csv", "a,label,target\n1,2,3\n4,5.0,6\n7,-8,9\n")
    rows = number_rows(path)
    assert rows.x.tolist() == [[1.0, 3.0], [4.0, 6.0], [7.0, 9.0]]
    assert labels_of(rows).tolist() == [1, 2, 0]
    data = numbers(path)
    assert data.feature_names == ("a", "target")
    assert data.class_names == ("-8", "2", "5")
    for part in (data.train, data.validation, data.test):
        assert labels_of(part).tolist() == [{1.0: 1, 4.0: 2, 7.0: 0}[v] for v in part.x[:, 0].tolist()]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".feather"])
def test_a_table_of_numbers_comes_in_every_format_of_tables(ending, tmp_path):
    path = tmp_path / f"x{ending}"
    frame = pd.DataFrame({"a": [1.5, 2.5, -3.0], "label": ["rose", "lily", "rose"], "zip": [1067, 80331, 7]})
    if ending == ".parquet":
        frame.to_parquet(path)
    elif ending == ".feather":
        frame.to_feather(path)
    else:
        frame.to_csv(path, sep="\t" if "tsv" in ending else ",", index=False)
    rows = number_rows(path)
    assert rows.x.tolist() == [[1.5, 1067.0], [2.5, 80331.0], [-3.0, 7.0]]
    assert (rows.class_names, labels_of(rows).tolist()) == (("lily", "rose"), [1, 0, 1])


def test_dates_and_truth_values_are_no_numbers(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0], "day": pd.to_datetime(["2020-01-01", "2020-01-02"])})
    frame.to_parquet(tmp_path / "x.parquet")
    with assert_refused("column 'day'", "row 1:", "isn't a number"):
        number_rows(tmp_path / "x.parquet")
    with assert_refused("column 'b'", "'True' isn't a number"):
        number_rows(text(tmp_path / "x.csv", "a,b\n1,True\n2,False\n"))


def test_marks_and_leading_zeros_of_a_table_of_numbers(tmp_path):
    said: list[str] = []
    path = text(tmp_path / "x.csv", "a;zip;label\n1,5;01067;07\n-2,25;80331;7\n")
    rows = number_rows(path, note=said.append)
    assert rows.x.tolist() == [[1.5, 1067.0], [-2.25, 80331.0]]
    assert rows.class_names == ("7",)
    assert [note.partition(" ")[0] for note in said] == ["cells", "numbers", "column"]
    assert said[-1] == "column 'label' holds classes (1 different) and is not modeled; rename it to model it"
    later = Meaning("real", (2,), feature_names=("a", "zip"), class_names=("7",))
    assert number_rows(path, note=said.append, meaning=later).x.shape == (2, 2)
    assert len(said) == 5


def test_a_label_that_looks_like_a_number_is_the_runs_name(tmp_path):
    run = Meaning("real", (1,), feature_names=("a",), class_names=("4.5", "lily"))
    rows = number_rows(text(tmp_path / "x.csv", "a,label\n1,4.5\n"), meaning=run)
    assert (rows.class_names, labels_of(rows).tolist()) == (("4.5", "lily"), [0])


def test_the_header_that_pandas_gives_nameless_columns(tmp_path):
    assert number_rows(text(tmp_path / "x.csv", "0,1\n5,6\n")).x.tolist() == [[5.0, 6.0]]


@pytest.mark.parametrize(
    "content, facts",
    [
        ("a,b\n1,2\n\n3,x\n", ("column 'b'", "row 2:", "'x' isn't a number", "auto")),
        ("a,b\n1,2\n ,4\n", ("column 'a'", "row 2:", "the cell is empty")),
        ("a,b\n1,2\n3\n", ("row 2 (line 3)", "1 cell under", "header of 2")),
        ("a,b\n1,2,3\n", ("row 1 (line 2)", "3 cells", "header of 2")),
        ("a,b\n1,2\n3,nan\n", ("column 'b'", "row 2:", "the cell is empty")),
        ("a,b\n1,2\n-inf,1e39\n", ("2 of 4", "row 2, column 'a'")),
        ("label,b\n1,2\nnan,3\n", ("row 2, column 'label'", "missing")),
        ("a,label\n1,2\n3,4.5\n", ("row 2, column 'label'", "integers", "4.5")),
        ("a,b\n", ("no rows",)),
        ("\n\n", ("empty", "header")),
        ("1.5,2\n3,4\n", ("first line holds numbers", "header")),
        ("1,0\n3,4\n", ("first line holds numbers",)),
        (",a\n0,1\n", ("column 1 has no name", "index=False")),
        ("a,b,a\n1,2,3\n", ("two columns have the name 'a'", "a, b, a")),
        ("label\n1\n", ("no column of data",)),
    ],
)
def test_tables_that_cant_be_used(content, facts, tmp_path):
    for read in (numbers, number_rows):
        with assert_refused(tmp_path / "x.csv", *facts):
            read(text(tmp_path / "x.csv", content))


def test_a_table_of_one_row(tmp_path):
    path = text(tmp_path / "x.csv", "a,b\n1,2")
    assert number_rows(path).x.tolist() == [[1.0, 2.0]]
    with assert_refused(path, "one row"):
        numbers(path)


@pytest.mark.parametrize("cell", ["1_000", "１２", "٣", "0x10", "1e", "--1"])
def test_numbers_as_only_python_writes_them_are_text(cell, tmp_path):
    with assert_refused("column 'a'", "row 1:", f"{cell!r} isn't a number"):
        numbers(text(tmp_path / "x.csv", f"a,b\n{cell},2\n3,4\n"))


def test_labels_are_integers_of_any_size_or_names(tmp_path):
    def labels(cells: list[str]) -> tuple:
        path = text(tmp_path / "x.csv", "a,label\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
        rows = number_rows(path)
        return rows.class_names, labels_of(rows).tolist()

    assert labels(["75000", "75002", "75001"]) == (("75000", "75001", "75002"), [0, 2, 1])
    assert labels(["9007199254740993", "9007199254740992"])[1] == [1, 0]  # beyond float64
    assert labels(["10", "9", "2.0"]) == (("2", "9", "10"), [2, 1, 0])
    assert labels(["rose", " lily", "7"]) == (("7", "lily", "rose"), [2, 1, 0])
    assert labels(["1_0", "x"]) == (("1_0", "x"), [0, 1])
    named = zipped(tmp_path / "x.npz", x=np.zeros((3, 2)), labels=np.array([b"rose", b"lily", b"rose"]))
    assert load_rows(named).class_names == ("lily", "rose")
    huge = zipped(tmp_path / "x.npz", x=np.zeros((2, 2)), y=np.array([2**64 - 1, 2**63], dtype=np.uint64))
    assert load_rows(huge).class_names == (str(2**63), str(2**64 - 1))
    with assert_refused("row 2, column 'label'", "missing"):
        labels(["rose", ""])


def test_what_an_archive_holds_beside_is_said(tmp_path):
    said: list[str] = []
    load_rows(zipped(tmp_path / "x.npz", x=np.zeros((3, 2)), w=np.zeros(3), y=np.arange(3)), note=said.append)
    assert said == ["arrays that are not read: w"]


def test_bytes_that_may_be_bits_are_said(tmp_path):
    said: list[str] = []
    path = saved(tmp_path / "x.npy", np.eye(4, dtype=np.uint8)[None])
    load_rows(path, meaning=Meaning("grey", (1, 4, 4), levels=255, pixels=True), note=said.append)
    assert "levels 0 to 255" in said[0]
    assert "astype(bool)" in said[0]


# Files that are damaged, or made to do harm


def header_of(shape: tuple[int, ...]) -> bytes:
    """A `.npy` file that promises an array and holds eight bytes of it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    return file.getvalue() + bytes(8)


def test_headers_of_petabytes_and_zip_bombs_are_refused_before_memory_is_taken(tmp_path, monkeypatch):
    for shape in ((10**15, 2), (10**30, 10**30)):
        (tmp_path / "x.npy").write_bytes(header_of(shape))
        with assert_refused("x.npy", "promises", "cut off"):
            load_data(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10**6))
    monkeypatch.setattr("subo.runtime.memory.available_bytes", lambda: 10**5)
    with assert_refused("x.npz", "memory"):
        load_data(tmp_path / "x.npz")


def test_archives_that_are_damaged_encrypted_or_hold_something_else(tmp_path):
    path = zipped(tmp_path / "x.npz", x=np.arange(100.0).reshape(50, 2))
    whole = path.read_bytes()
    wounds = {
        "encrypted": (whole.replace(b"PK\1\2-\3-\0\0\0", b"PK\1\2-\3-\0\1\0"), "encrypted"),
        "of a method that nobody knows": (whole.replace(b"PK\1\2-\3-\0\0\0\0\0", b"PK\1\2-\3-\0\0\0\x63\0"), "x.npz"),
        "cut off": (whole[:-40], "cut off"),
        "other bytes": (whole[:200] + bytes(8) + whole[208:], "CRC"),
    }
    for what, (content, fact) in wounds.items():
        assert content != whole, what
        path.write_bytes(content)
        with assert_refused(path, "can't be read as a NumPy file", fact):
            load_data(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    with assert_refused(path, "notes.txt is not an array"):
        load_data(path)
    sparse.save_npz(path, sparse.eye_array(5, format="dia"))
    with assert_refused(path, "sparse matrix of SciPy", "csr, csc or coo"):
        load_data(path)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "x.csv")  # which would be waited for without end
    with assert_refused("x.csv", "a pipe"):
        load_data(tmp_path / "x.csv")
    with assert_refused("letters)", "can't be looked for"):
        load_data("a" * 5000)
    for name in ("", "  "):
        with assert_refused("is empty", "digits"):
            load_data(name)
    with assert_refused("not found"):
        load_data("a\0b.csv")
