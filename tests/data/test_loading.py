"""Where arrays come from and go to: names before files, parts, and files that are written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from assertions import assert_refused
from data_files import saved, text, zipped
from subo.data.loading import load_data, load_rows
from subo.data.named_sets import NAMES
from subo.data.saving import save_array
from subo.errors import InputError

# What isn't there


def test_parts_are_not_copied_to_tell_what_they_are(monkeypatch, tmp_path):
    parts = {"train": [[0.0, 1.0]], "validation": [[0.5, 0.0]], "test": [[3.0, 1.0]]}
    zipped(tmp_path / "x.npz", **{name: np.array(rows) for name, rows in parts.items()})
    monkeypatch.setattr("subo.data.loading._joined", None)
    assert load_data(tmp_path / "x.npz").kind == "real"


def test_an_unknown_name_is_answered_by_the_known(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    endings = [".npy", ".csv", ".png"]
    with assert_refused("'fashion_mnist'", "not found", "Did you mean 'fashion-mnist'?", *NAMES, *endings):
        load_data("fashion_mnist")
    with assert_refused("Did you mean 'mnist'?"):
        load_data("MNIST")
    with pytest.raises(InputError) as info:
        load_data("measurements.csv")
    assert "'measurements.csv' not found" in str(info.value)
    assert "Did you mean" not in str(info.value)
    with assert_refused("'digits' not found"):  # a path is never a name
        load_data(Path("digits"))


def test_a_name_goes_before_a_file_and_a_path_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "digits" / "a.png")
    assert load_data("digits").train.event_shape == (1, 8, 8)
    assert load_rows(Path("digits")).event_shape == (1, 2, 2)


def test_files_that_cant_be_used(tmp_path):
    with assert_refused(
        "table.xlsx", "unknown format '.xlsx'; save it as CSV", ".npy", ".npz", ".csv", "folder of images"
    ):
        load_data(text(tmp_path / "table.xlsx", "x"))
    for name in ("x.npy", "x.npz", "x.csv"):
        with assert_refused(name, "empty"):
            load_data(text(tmp_path / name, ""))
    for name in ("y.npy", "y.npz"):
        with assert_refused(name, "can't be read as a NumPy file"):
            load_data(text(tmp_path / name, "these are no numbers"))
    whole = saved(tmp_path / "z.npy", np.zeros((9, 4))).read_bytes()
    (tmp_path / "z.npy").write_bytes(whole[:-8])
    with assert_refused("z.npy", "cut off"):
        load_data(tmp_path / "z.npy")
    (tmp_path / "w.csv").write_bytes(b"a,b\n1,\xff\n")
    with assert_refused("w.csv", "UTF-8"):
        load_data(tmp_path / "w.csv")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    npy, table = saved(tmp_path / "x.npy", np.zeros((3, 2))), text(tmp_path / "x.csv", "a\n1\n2\n3\n")
    monkeypatch.setattr("numpy.load", forbidden)
    monkeypatch.setattr(Path, "open", forbidden)
    for path in (npy, table):
        with assert_refused(path, "Permission denied"):
            load_data(path, table=None)


# Writing


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".CSV", ".NPY"])
@pytest.mark.parametrize("kind", ["tensor", "array", "gradient"])
def test_what_is_saved_can_be_loaded(suffix, kind, tmp_path):
    array = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    array[0, 0, 0] = 1e-30
    given = array if kind == "array" else torch.from_numpy(array).requires_grad_(kind == "gradient")
    save_array(tmp_path / f"x{suffix}", given)
    back = load_rows(tmp_path / f"x{suffix}", table=None).x.numpy()
    assert np.array_equal(back, array if suffix.lower() == ".npy" else array.reshape(7, 6))
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]  # and nothing else is left


def test_npy_keeps_type_and_shape(tmp_path):
    for array in (np.arange(6.0).reshape(2, 3, 1), np.arange(4), np.array([True])):
        save_array(tmp_path / "x.npy", array)
        back = np.load(tmp_path / "x.npy")
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)


def test_csv_headers(tmp_path):
    path = tmp_path / "x.csv"
    save_array(path, np.array([[0.1, 2.0], [1 / 3, -1e300]]), names=["a, b", "c"])
    assert path.read_text() == '"a, b",c\n0.1,2.0\n0.3333333333333333,-1e+300\n'
    save_array(str(path), torch.tensor([3, 4]))
    assert path.read_text() == "x0\n3\n4\n"
    save_array(path, np.array([[True, False]]))
    assert path.read_text() == "x0,x1\n1,0\n"
    save_array(path, np.zeros((0, 2)))
    assert path.read_text() == "x0,x1\n"


def test_what_cant_be_saved(tmp_path):
    x = np.zeros((2, 3))
    with assert_refused("x.txt", ".npy or .csv", "'.txt'"):
        save_array(tmp_path / "x.txt", x)
    with assert_refused("2 names for 3 columns"):
        save_array(tmp_path / "x.csv", x, names=["a", "b"])
    with assert_refused(tmp_path / "none" / "x.npy", "exist"):
        save_array(tmp_path / "none" / "x.npy", x)
    text(tmp_path / "file", "")
    with assert_refused(tmp_path / "file" / "x.csv"):
        save_array(tmp_path / "file" / "x.csv", x)
    (tmp_path / "taken.csv").mkdir()
    with assert_refused(tmp_path / "taken.csv", "cannot write"):
        save_array(tmp_path / "taken.csv", x)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.csv"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    save_array(path, np.ones((2, 2)))

    def full(file, array, **kwargs):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with assert_refused(path, "No space left"):
        save_array(path, np.zeros((2, 2)))
    assert np.array_equal(np.load(path), np.ones((2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
