import gzip
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from subo.data import Split, split
from subo.errors import InputError
from subo.named_sets import NAMES, read_idx
from subo.sources import load, load_rows, save_array

SUBO_DATA = Path(os.environ.get("SUBO_DATA") or "nowhere")


def needs(name):
    return pytest.mark.skipif(
        not (SUBO_DATA / name).is_dir(), reason=f"the folder {name} isn't in $SUBO_DATA, or that isn't set"
    )


@contextmanager
def refused(*facts):
    """The message of the error inside holds all facts."""
    with pytest.raises(InputError) as info:
        yield
    for fact in facts:
        assert str(fact) in str(info.value)


def labels_of(part: Split) -> Tensor:
    assert part.labels is not None
    return part.labels


def rows_sorted(*parts: Split) -> list:
    return sorted(row for part in parts for row in part.x.flatten(1).tolist())


def saved(path, array):
    np.save(path, array)
    return path


def zipped(path, **arrays: Any):
    np.savez(path, **arrays)
    return path


def text(path, content):
    path.write_text(content, encoding="utf-8")
    return path


# Digits


def test_digits_are_scikit_learns():
    data = load("digits")
    assert (data.name, data.kind, data.binarize, data.seed) == ("digits", "grey", "none", 0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1439, 179, 179]
    assert data.train.event_shape == (1, 8, 8)
    assert (data.train.x.dtype, data.train.levels) == (torch.uint8, 16)
    known: Any = load_digits()
    pairs = {(tuple(x.ravel().tolist()), int(y)) for x, y in zip(known["images"], known["target"], strict=True)}
    for part in (data.train, data.validation, data.test):
        for x, y in zip(part.x.flatten(1).tolist(), labels_of(part).tolist(), strict=True):
            assert (tuple(x), y) in pairs
    everything = rows_sorted(data.train, data.validation, data.test)
    assert everything == sorted(known["data"].tolist())


def test_the_seed_of_digits_is_that_of_the_split():
    assert load("digits", seed=1).fingerprint == load("digits", seed=1).fingerprint
    assert load("digits", seed=1).fingerprint != load("digits", seed=2).fingerprint


@pytest.mark.parametrize("policy", ["none", "static", "dynamic"])
def test_parts_of_a_named_set_are_those_that_load_gives(policy):
    data = load("digits", seed=3, binarize="none" if policy == "none" else "static")
    parts = [load_rows("digits", part=p, seed=3, binarize=policy) for p in ("train", "validation", "test")]
    for mine, expected in zip(parts, (data.train, data.validation, data.test), strict=True):
        assert torch.equal(mine.x, expected.x)
        assert torch.equal(labels_of(mine), labels_of(expected))
        assert mine.levels == expected.levels
        assert not mine.resample
    everything = load_rows("digits", seed=3, binarize=policy)
    assert torch.equal(everything.x, torch.cat([part.x for part in parts]))
    assert torch.equal(labels_of(everything), torch.cat([labels_of(part) for part in parts]))
    assert everything.levels == data.train.levels


def test_a_binarized_named_set():
    data = load("digits", binarize="dynamic", seed=3)
    assert (data.kind, data.binarize) == ("binary", "dynamic")
    assert data.train.resample
    assert torch.equal(data.validation.x, load("digits", binarize="static", seed=3).validation.x)


# The sets of files, made up at full size where the real ones aren't at hand


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header + values.tobytes())


def made_up(n, start):
    """Images whose first two pixels tell their number, and labels that follow from it."""
    number = np.arange(start, start + n)
    images = np.zeros((n, 28, 28), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1], images[:, 27, 27] = number % 256, number // 256 % 256, number // 65536
    return images, (number % 10).astype(np.uint8)


def numbers_of(part):
    x = part.x.long()
    return x[:, 0, 0, 0] + 256 * x[:, 0, 0, 1] + 65536 * x[:, 0, 27, 27]


def assert_made_up(data):
    for part, start, stop in (
        (data.train, 0, 50_000),
        (data.validation, 50_000, 60_000),
        (data.test, 60_000, 70_000),
    ):
        assert torch.equal(numbers_of(part), torch.arange(start, stop))
        assert torch.equal(labels_of(part), torch.arange(start, stop) % 10)
        assert (part.levels, part.x.dtype, part.event_shape) == (255, torch.uint8, (1, 28, 28))
    assert data.kind == "grey"


@pytest.fixture(scope="module")
def idx_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = root / "fashion-mnist"
    folder.mkdir()
    for prefix, n, start in (("train", 60_000, 0), ("t10k", 10_000, 60_000)):
        images, labels = made_up(n, start)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return root


def no_download(*args, **kwargs):
    raise AssertionError("files are at hand: nothing to download")


def test_idx_files_are_found_by_argument_or_environment(idx_root, monkeypatch, tmp_path):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_download)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    assert_made_up(load("fashion-mnist", data_dir=idx_root))
    monkeypatch.setenv("SUBO_DATA", str(idx_root))
    test = load_rows("fashion-mnist", data_dir=tmp_path, part="test")
    assert torch.equal(numbers_of(test), torch.arange(60_000, 70_000))


@pytest.mark.parametrize("name, openml", [("mnist", "mnist_784"), ("fashion-mnist", "Fashion-MNIST")])
def test_without_files_openml_is_asked(name, openml, monkeypatch, tmp_path):
    images, labels = made_up(70_000, 0)
    asked = []

    def fetch(*args, **kwargs):
        asked.append((args, kwargs))
        return {"data": images.reshape(70_000, 784), "target": labels.astype(str).astype(object)}

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    assert_made_up(load(name, data_dir=tmp_path))
    ((args, kwargs),) = asked
    assert args == (openml,)
    assert kwargs["version"] == 1
    assert kwargs["as_frame"] is False
    assert kwargs["data_home"] == str(tmp_path)


@pytest.mark.parametrize("error", [URLError("no route"), ValueError("no route"), TimeoutError("no route")])
def test_a_failed_download_says_what_to_do(error, monkeypatch, tmp_path):
    def fetch(*args, **kwargs):
        raise error

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.setenv("SUBO_DATA", str(tmp_path / "b"))
    with refused(
        "mnist",
        tmp_path / "a" / "mnist",
        tmp_path / "b" / "mnist",
        "no route",
        "train-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "data_dir",
        "SUBO_DATA",
    ):
        load("mnist", data_dir=tmp_path / "a")
    monkeypatch.delenv("SUBO_DATA")
    with refused("neither data_dir nor SUBO_DATA is set"):
        load("mnist")


def test_a_download_of_something_else_is_refused(monkeypatch):
    def fetch(*args, **kwargs):
        return {"data": np.zeros((10, 784)), "target": np.zeros(10)}

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    with refused("mnist", "(10, 784)"):
        load("mnist")


def test_idx_files_are_verified(tmp_path):
    path, values = tmp_path / "x.gz", np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    write_idx(path, values)
    assert np.array_equal(read_idx(path, shape=(4, 3, 2)), values)
    with refused(path, "(4, 3, 2)", "(4, 2, 3)"):
        read_idx(path, shape=(4, 2, 3))
    with refused(path, "isn't an IDX file"):  # as many axes as labels have
        read_idx(path, shape=(4,))
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-5]))
    with refused(path, "19 values", "expected 24"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(gzip.compress(whole[:7]))
    with refused(path, "isn't an IDX file"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(gzip.compress(whole)[:-12])
    with refused(path, "cut off"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(b"<html>not found</html>")
    with refused(path, "gzip"):
        read_idx(path, shape=(4, 3, 2))
    with refused(tmp_path / "y.gz", "missing"):
        read_idx(tmp_path / "y.gz", shape=(4, 3, 2))


def test_a_folder_without_its_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_download)
    (tmp_path / "mnist").mkdir()
    with refused(tmp_path / "mnist" / "train-images-idx3-ubyte.gz", "missing"):
        load("mnist", data_dir=tmp_path)


def test_binarized_mnist_is_unpacked(tmp_path):
    folder = tmp_path / "binarized-mnist"
    folder.mkdir()
    sizes = {"train": 50_000, "valid": 10_000, "test": 10_000}
    packed = {part: np.zeros((n, 98), dtype=np.uint8) for part, n in sizes.items()}
    packed["train"][0, 0] = 0b01000000  # pixel 1
    packed["valid"][7, 3] = 0b00001000  # pixel 28: the first of the second line
    packed["test"][-1, -1] = 0b00000001  # the very last
    zipped(folder / "binarized_mnist.npz", **packed)
    data = load("binarized-mnist", data_dir=tmp_path)
    assert data.kind == "binary"
    for part, where in (
        (data.train, [0, 0, 0, 1]),
        (data.validation, [7, 0, 1, 0]),
        (data.test, [9999, 0, 27, 27]),
    ):
        assert part.x.nonzero().tolist() == [where]
        assert (part.levels, part.labels, part.event_shape) == (1, None, (1, 28, 28))
    assert list(map(len, (data.train, data.validation, data.test))) == list(sizes.values())
    with refused("binarized-mnist", "binary already"):
        load("binarized-mnist", data_dir=tmp_path, binarize="static")
    zipped(folder / "binarized_mnist.npz", train=packed["train"], test=packed["test"])
    with refused("binarized_mnist.npz", "'valid': (10000, 98)", "packed"):
        load("binarized-mnist", data_dir=tmp_path)


def test_binarized_mnist_cant_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_download)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    with refused(tmp_path / "binarized-mnist", "OpenML has no copy", "binarized_mnist.npz", "SUBO_DATA"):
        load("binarized-mnist", data_dir=tmp_path)


@needs("mnist")
def test_the_real_mnist():
    data = load("mnist", data_dir=SUBO_DATA)
    assert data.describe()["sizes"] == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert labels_of(data.train)[:5].tolist() == [5, 0, 4, 1, 9]
    assert labels_of(data.validation)[:5].tolist() == [3, 8, 6, 9, 6]
    assert labels_of(data.test)[:5].tolist() == [7, 2, 1, 0, 4]
    assert labels_of(data.test).bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean = torch.cat([data.train.x, data.validation.x]).double().mean().item() / 255
    assert round(mean, 4) == 0.1307  # the well-known mean of the training images


@needs("fashion-mnist")
def test_the_real_fashion_mnist():
    data = load("fashion-mnist", data_dir=SUBO_DATA)
    assert labels_of(data.train)[:5].tolist() == [9, 0, 0, 3, 0]
    assert labels_of(data.test).bincount().tolist() == [1000] * 10
    mean = torch.cat([data.train.x, data.validation.x]).double().mean().item() / 255
    assert round(mean, 4) == 0.2860


@needs("binarized-mnist")
@needs("mnist")
def test_the_real_binarized_mnist_is_a_draw_of_mnist():
    bits, grey = load("binarized-mnist", data_dir=SUBO_DATA), load("mnist", data_dir=SUBO_DATA)
    assert bits.describe()["sizes"] == grey.describe()["sizes"]
    mean = bits.test.x.double().mean((0, 1))
    p = grey.test.x.double().mean((0, 1)) / 255
    assert (mean - p).abs().max() < 5 * 0.5 / 10_000**0.5


# What isn't there


def test_an_unknown_name_is_answered_by_the_known(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with refused("'fashion_mnist'", "not found", "Did you mean 'fashion-mnist'?", *NAMES, ".npy", ".csv", ".png"):
        load("fashion_mnist")
    with refused("Did you mean 'mnist'?"):
        load("MNIST")
    with pytest.raises(InputError) as info:
        load("measurements.csv")
    assert "'measurements.csv' not found" in str(info.value)
    assert "Did you mean" not in str(info.value)
    with refused("'digits' not found"):  # a path is never a name
        load(Path("digits"))


def test_a_name_goes_before_a_file_and_a_path_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "digits" / "a.png")
    assert load("digits").train.event_shape == (1, 8, 8)
    assert load_rows(Path("digits")).event_shape == (1, 2, 2)


def test_files_that_cant_be_used(tmp_path):
    with refused("table.xlsx", "unknown format '.xlsx'", ".npy", ".npz", ".csv", "folder of images"):
        load(text(tmp_path / "table.xlsx", "x"))
    for name in ("x.npy", "x.npz", "x.csv"):
        with refused(name, "empty"):
            load(text(tmp_path / name, ""))
    for name in ("y.npy", "y.npz"):
        with refused(name, "can't be read as a NumPy file"):
            load(text(tmp_path / name, "these are no numbers"))
    whole = saved(tmp_path / "z.npy", np.zeros((9, 4))).read_bytes()
    (tmp_path / "z.npy").write_bytes(whole[:-8])
    with refused("z.npy", "cut off"):
        load(tmp_path / "z.npy")
    (tmp_path / "w.csv").write_bytes(b"a,b\n1,\xff\n")
    with refused("w.csv", "UTF-8"):
        load(tmp_path / "w.csv")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    npy, table = saved(tmp_path / "x.npy", np.zeros((3, 2))), text(tmp_path / "x.csv", "a\n1\n2\n3\n")
    monkeypatch.setattr("numpy.load", forbidden)
    monkeypatch.setattr(Path, "open", forbidden)
    for path in (npy, table):
        with refused(path, "Permission denied"):
            load(path)


# Arrays


def test_an_array_of_reals(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 3))
    path = saved(tmp_path / "x.npy", array)
    rows = load_rows(path)
    assert rows.x.dtype == torch.float32
    assert np.array_equal(rows.x.numpy(), array.astype(np.float32))
    assert (rows.levels, rows.labels) == (1, None)
    data = load(str(path), seed=4)
    assert (data.name, data.kind, data.seed) == (str(path), "real", 4)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 2, 2]
    assert rows_sorted(data.train, data.validation, data.test) == rows_sorted(rows)
    assert torch.equal(data.test.x, split(rows.x, seed=4)[2].x)
    assert not torch.equal(data.test.x, load(path, seed=5).test.x)
    for part in ("train", "validation", "test"):
        assert torch.equal(load_rows(path, part=part, seed=4).x, getattr(data, part).x)


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_can_be_read_but_not_split(n, tmp_path):
    path = saved(tmp_path / "x.npy", np.full((n, 4), 0.5))
    assert load_rows(path).x.shape == (n, 4)
    with refused(path, "one row" if n == 1 else "2 rows"):
        load(path)


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
        (np.uint8, 256, (6, 5), (5,), 1, "counts"),
        (np.bool_, 2, (6, 5), (5,), 1, "binary"),
        (np.bool_, 2, (6, 5, 4), (1, 5, 4), 1, "binary"),
        (np.int64, 9, (6, 5), (5,), 1, "counts"),
        (np.int16, 9, (6, 5, 4), (5, 4), 1, "counts"),
        (np.float64, 9, (6, 5, 4, 3), (5, 4, 3), 1, "counts"),
        (">f4", 9, (6, 5), (5,), 1, "counts"),
    ],
)
def test_layouts_of_arrays(dtype, high, shape, event, levels, kind, tmp_path):
    array = np.random.default_rng(0).integers(high, size=shape).astype(dtype)
    data = load(saved(tmp_path / "x.npy", array))
    rows = load_rows(tmp_path / "x.npy")
    assert data.kind == kind
    assert rows.event_shape == event
    assert rows.levels == levels
    pixels = dtype == np.bool_ or (dtype == np.uint8 and len(shape) > 2)
    assert rows.x.dtype == (torch.uint8 if pixels else torch.float32)
    moved = array.transpose(0, 3, 1, 2) if pixels and event != shape[1:] and len(shape) == 4 else array
    assert np.array_equal(rows.x.numpy(), moved.reshape(6, *event))


def test_pixels_of_0_and_255_are_binary(tmp_path):
    array = np.zeros((4, 3, 3), dtype=np.uint8)
    array[::2] = 255
    data = load(saved(tmp_path / "x.npy", array))
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
    for read in (load, load_rows):
        with refused(tmp_path / "x.npy", *facts):
            read(tmp_path / "x.npy")


def test_values_that_arent_finite_are_refused(tmp_path):
    array = np.zeros((5, 4))
    array[3, 2] = np.nan
    for read in (load, load_rows):
        with refused("x.npy", "1 of 20", "nan", "row 4, column 3"):
            read(saved(tmp_path / "x.npy", array))
    array[3, 2], array[1, 0] = 0, -1e39  # in float64 it is finite
    with refused("1 of 20", "-inf", "row 2, column 1", "float32"):
        load(saved(tmp_path / "x.npy", array))


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
    data = load(path)
    for part in (data.train, data.validation, data.test):
        assert torch.equal(labels_of(part), (part.x[:, 0] / 2 % 3 > 0).long())


@pytest.mark.parametrize("labels", [np.arange(5), np.zeros(6), np.zeros((6, 1), dtype=int), np.array(list("abcdef"))])
def test_npz_labels_that_cant_be_used(labels, tmp_path):
    zipped(tmp_path / "x.npz", x=np.zeros((6, 2)), labels=labels)
    with refused("x.npz", "labels must be 6 integers", labels.shape, labels.dtype):
        load(tmp_path / "x.npz")


def test_npz_without_an_evident_array_is_refused(tmp_path):
    x = np.zeros((6, 2))
    for arrays in ({"a": x[None], "b": x[None]}, {"train": x, "test": x}, {"labels": x}):
        zipped(tmp_path / "x.npz", **arrays)
        with refused("x.npz", ", ".join(arrays), "train, validation and test", "labels"):
            load(tmp_path / "x.npz")


@pytest.mark.parametrize("validation", ["validation", "valid"])
def test_npz_of_three_parts(validation, tmp_path):
    path = tmp_path / "x.npz"
    parts = {"test": np.full((1, 2), 3.0), validation: np.full((2, 2), 2.5), "train": np.full((4, 2), 1.0)}
    zipped(path, **parts)
    data = load(path)
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
    data = load(path)
    assert data.kind == "grey"
    assert [part.levels for part in (data.train, data.validation, data.test)] == [255, 255, 255]
    zipped(path, train=np.zeros((3, 2)), validation=np.zeros((3, 2)), test=np.zeros((3, 4)))
    with refused("x.npz", "one event shape", "'test': ((4,)"):
        load(path)
    bad = np.zeros((3, 2))
    bad[0, 1] = np.inf
    zipped(path, train=np.zeros((3, 2)), validation=bad, test=np.zeros((3, 2)))
    with refused("x.npz, array validation", "row 1, column 2"):
        load(path)


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
    data = load(path, binarize="static", seed=1)
    for part in ("train", "validation", "test"):
        mine = load_rows(path, part=part, binarize="dynamic", seed=1)
        assert torch.equal(mine.x, getattr(data, part).x)


def test_what_binarisation_of_rows_refuses_and_keeps(tmp_path):
    bits = saved(tmp_path / "bits.npy", np.eye(4, dtype=np.uint8)[None])
    assert torch.equal(load_rows(bits, binarize="static").x, torch.eye(4, dtype=torch.uint8)[None, None])
    reals = saved(tmp_path / "reals.npy", np.array([[0.5, 2.0]]))
    with refused("reals.npy", "only grey", "real"):
        load_rows(reals, binarize="static")
    with refused("binary already"):
        load(saved(tmp_path / "many.npy", np.eye(4)), binarize="dynamic")


# Tables


def test_a_table(tmp_path):
    path = text(tmp_path / "x.csv", '\ufeff"height, cm", weight\r\n180,75.5\r\n\r\n1.6e2, -5\r\n170,60\r\n')
    rows = load_rows(path)
    assert rows.x.tolist() == [[180.0, 75.5], [160.0, -5.0], [170.0, 60.0]]
    assert rows.labels is None
    data = load(path)
    assert data.feature_names == ("height, cm", "weight")
    assert data.kind == "real"
    assert rows_sorted(data.train, data.validation, data.test) == rows_sorted(rows)


def test_only_a_column_named_label_holds_labels(tmp_path):
    path = text(tmp_path / "x.csv", "a,label,target\n1,2,3\n4,5.0,6\n7,-8,9\n")
    rows = load_rows(path)
    assert rows.x.tolist() == [[1.0, 3.0], [4.0, 6.0], [7.0, 9.0]]
    assert labels_of(rows).tolist() == [2, 5, -8]
    data = load(path)
    assert data.feature_names == ("a", "target")
    for part in (data.train, data.validation, data.test):
        assert labels_of(part).tolist() == [{1.0: 2, 4.0: 5, 7.0: -8}[v] for v in part.x[:, 0].tolist()]


def test_the_header_that_pandas_gives_nameless_columns(tmp_path):
    assert load_rows(text(tmp_path / "x.csv", "0,1\n5,6\n")).x.tolist() == [[5.0, 6.0]]


@pytest.mark.parametrize(
    "content, facts",
    [
        ("a,b\n1,2\n\n3,x\n", ("column 'b'", "row 2 (line 4)", "'x' isn't a number")),
        ("a,b\n1,2\n ,4\n", ("column 'a'", "row 2 (line 3)", "the cell is empty")),
        ("a,b\n1,2\n3\n", ("row 2 (line 3)", "1 cells", "header of 2")),
        ("a,b\n1,2,3\n", ("row 1 (line 2)", "3 cells", "header of 2")),
        ("a,b\n1,2\n3,nan\n", ("1 of 4", "row 2, column 'b'")),
        ("a,b\n1,2\n-inf,1e39\n", ("2 of 4", "row 2, column 'a'")),
        ("label,b\n1,2\nnan,3\n", ("1 of 4", "row 2, column 'label'")),
        ("a,label\n1,2\n3,4.5\n", ("row 2, column 'label'", "integers", "4.5")),
        ("a,b\n", ("no rows",)),
        ("\n\n", ("empty", "header")),
        ("1.5,2\n3,4\n", ("first line holds numbers", "header")),
        ("1,0\n3,4\n", ("first line holds numbers",)),
        (",a\n0,1\n", ("column 1 has no name", "index=False")),
        ("a,b,a\n1,2,3\n", ("two columns have one name", "a, b, a")),
        ("label\n1\n", ("no column of data",)),
        ("a;b\n1;2\n", ("semicolons", "commas")),
    ],
)
def test_tables_that_cant_be_used(content, facts, tmp_path):
    for read in (load, load_rows):
        with refused(tmp_path / "x.csv", *facts):
            read(text(tmp_path / "x.csv", content))


def test_a_table_of_one_row(tmp_path):
    path = text(tmp_path / "x.csv", "a,b\n1,2")
    assert load_rows(path).x.tolist() == [[1.0, 2.0]]
    with refused(path, "one row"):
        load(path)


# Images


def image(path, mode, *, size=(5, 4), seed=0):
    """Saves random pixels; the suffix must be that of a lossless format."""
    path.parent.mkdir(exist_ok=True, parents=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    pixels = np.random.default_rng(seed).integers(256, size=shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_of_grey_images(tmp_path):
    second, first = image(tmp_path / "b.PNG", "L", seed=1), image(tmp_path / "a.bmp", "L", seed=2)
    third = image(tmp_path / "c.png", "LA", seed=3)
    text(tmp_path / "notes.txt", "no image")
    text(tmp_path / ".hidden.png", "no image")
    rows = load_rows(tmp_path)
    assert rows.x.dtype == torch.uint8
    assert (rows.levels, rows.labels) == (255, None)
    assert np.array_equal(rows.x.numpy(), np.stack([first, second, third[..., 0]])[:, None])
    data = load(tmp_path)
    assert (data.kind, data.train.event_shape) == ("grey", (1, 4, 5))


def test_one_image_with_colours_gives_all_three_channels(tmp_path):
    grey, colour = image(tmp_path / "a.png", "L", seed=1), image(tmp_path / "b.png", "RGB", seed=2)
    alpha = image(tmp_path / "c.png", "RGBA", seed=3)
    x = load_rows(tmp_path).x.numpy()
    assert x.shape == (3, 3, 4, 5)
    assert np.array_equal(x[0], np.stack([grey] * 3))
    assert np.array_equal(x[1], colour.transpose(2, 0, 1))
    assert np.array_equal(x[2], alpha[..., :3].transpose(2, 0, 1))


def test_palettes_with_transparency(tmp_path):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    picture = Image.fromarray(pixels).convert("P")
    picture.putdata(pixels.ravel().tolist())
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert np.array_equal(load_rows(tmp_path).x[0].numpy(), 255 * (pixels == np.arange(3)[:, None, None]))


def test_black_and_white_images_are_binary(tmp_path):
    for name in "abc":
        Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / f"{name}.png")
    data = load(tmp_path)
    assert data.kind == "binary"
    x, _ = data.train.read(torch.tensor([0]))
    assert torch.equal(x, torch.eye(4)[None, None])


def test_subfolders_are_classes(tmp_path):
    for i, name in enumerate(("dog/b", "cat/z", "dog/a", "cat/y", "emu/c")):
        image(tmp_path / f"{name}.png", "L", seed=i)
    rows = load_rows(tmp_path)
    assert labels_of(rows).tolist() == [0, 0, 1, 1, 2]
    expected = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("cat/y", "cat/z", "dog/a", "dog/b", "emu/c")]
    assert np.array_equal(rows.x.numpy()[:, 0], np.stack(expected))
    assert load(tmp_path).class_names == ("cat", "dog", "emu")
    pixels = image(tmp_path / "top.png", "L", seed=9)
    rows = load_rows(tmp_path)  # images beside the subfolders: these are no classes
    assert rows.labels is None
    assert np.array_equal(rows.x.numpy(), pixels[None, None])


def test_image_folders_that_cant_be_used(tmp_path):
    with refused(tmp_path, "no images found", ".png"):
        load(tmp_path)
    image(tmp_path / "a.png", "L")
    image(tmp_path / "b.png", "L")
    image(tmp_path / "c.png", "L", size=(6, 4))
    image(tmp_path / "d.png", "L", size=(7, 4))
    with refused(f"{tmp_path / 'a.png'} is 5 x 4", f"{tmp_path / 'c.png'} is 6 x 4", "one size"):
        load(tmp_path)
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.full((2, 2), 1000, dtype=np.uint16)).save(deep / "a.png")
    with refused(deep / "a.png", "8 bits"):
        load(deep)
    text(deep / "a.png", "no image")
    with refused(deep / "a.png", "can't be read as an image"):
        load(deep)
    image(deep / "a.png", "L", size=(50, 50))
    (deep / "a.png").write_bytes((deep / "a.png").read_bytes()[:1000])
    with refused(deep / "a.png", "can't be read as an image"):
        load(deep)


# Writing


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".CSV", ".NPY"])
@pytest.mark.parametrize("kind", ["tensor", "array", "gradient"])
def test_what_is_saved_can_be_loaded(suffix, kind, tmp_path):
    array = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    array[0, 0, 0] = 1e-30
    given = array if kind == "array" else torch.from_numpy(array).requires_grad_(kind == "gradient")
    save_array(tmp_path / f"x{suffix}", given)
    back = load_rows(tmp_path / f"x{suffix}").x.numpy()
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
    with refused("x.txt", ".npy or .csv", "'.txt'"):
        save_array(tmp_path / "x.txt", x)
    with refused("2 names for 3 columns"):
        save_array(tmp_path / "x.csv", x, names=["a", "b"])
    with refused(tmp_path / "none" / "x.npy", "exist"):
        save_array(tmp_path / "none" / "x.npy", x)
    text(tmp_path / "file", "")
    with refused(tmp_path / "file" / "x.csv"):
        save_array(tmp_path / "file" / "x.csv", x)
    (tmp_path / "taken.csv").mkdir()
    with refused(tmp_path / "taken.csv", "can't be written"):
        save_array(tmp_path / "taken.csv", x)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.csv"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    save_array(path, np.ones((2, 2)))

    def full(file, array, **kwargs):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with refused(path, "No space left"):
        save_array(path, np.zeros((2, 2)))
    assert np.array_equal(np.load(path), np.ones((2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
