"""Data sets by name, made up at full size where the real ones are not at hand."""

import gzip
import struct
import warnings
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from assertions import assert_refused
from data_files import SUBO_DATA, labels_of, needs, rows_sorted, zipped
from subo.data.loading import load_data, load_rows
from subo.data.named_sets import read_idx

# Digits


def test_digits_are_scikit_learns():
    data = load_data("digits")
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
    assert load_data("digits", seed=1).fingerprint == load_data("digits", seed=1).fingerprint
    assert load_data("digits", seed=1).fingerprint != load_data("digits", seed=2).fingerprint


@pytest.mark.parametrize("policy", ["none", "static", "dynamic"])
def test_parts_of_a_named_set_are_those_that_load_gives(policy):
    data = load_data("digits", seed=3, binarize="none" if policy == "none" else "static")
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
    data = load_data("digits", binarize="dynamic", seed=3)
    assert (data.kind, data.binarize) == ("binary", "dynamic")
    assert data.train.resample
    assert torch.equal(data.validation.x, load_data("digits", binarize="static", seed=3).validation.x)


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
    assert_made_up(load_data("fashion-mnist", data_dir=idx_root))
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
    assert_made_up(load_data(name, data_dir=tmp_path))
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
    with assert_refused(
        "mnist",
        tmp_path / "a" / "mnist",
        tmp_path / "b" / "mnist",
        "no route",
        "train-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "data_dir",
        "SUBO_DATA",
    ):
        load_data("mnist", data_dir=tmp_path / "a")
    monkeypatch.delenv("SUBO_DATA")
    with assert_refused("neither data_dir nor SUBO_DATA is set"):
        load_data("mnist")


def test_a_download_of_something_else_is_refused(monkeypatch):
    def fetch(*args, **kwargs):
        return {"data": np.zeros((10, 784)), "target": np.zeros(10)}

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    with assert_refused("mnist", "(10, 784)"):
        load_data("mnist")


def test_idx_files_are_verified(tmp_path):
    path, values = tmp_path / "x.gz", np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    write_idx(path, values)
    assert np.array_equal(read_idx(path, shape=(4, 3, 2)), values)
    with assert_refused(path, "(4, 3, 2)", "(4, 2, 3)"):
        read_idx(path, shape=(4, 2, 3))
    with assert_refused(path, "isn't an IDX file"):  # as many axes as labels have
        read_idx(path, shape=(4,))
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-5]))
    with assert_refused(path, "19 values", "expected 24"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(gzip.compress(whole[:7]))
    with assert_refused(path, "isn't an IDX file"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(gzip.compress(whole)[:-12])
    with assert_refused(path, "cut off"):
        read_idx(path, shape=(4, 3, 2))
    path.write_bytes(b"<html>not found</html>")
    with assert_refused(path, "gzip"):
        read_idx(path, shape=(4, 3, 2))
    with assert_refused(tmp_path / "y.gz", "missing"):
        read_idx(tmp_path / "y.gz", shape=(4, 3, 2))


def test_a_folder_without_its_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_download)
    (tmp_path / "mnist").mkdir()
    with assert_refused(tmp_path / "mnist" / "train-images-idx3-ubyte.gz", "missing"):
        load_data("mnist", data_dir=tmp_path)


def test_binarized_mnist_is_unpacked(tmp_path):
    folder = tmp_path / "binarized-mnist"
    folder.mkdir()
    sizes = {"train": 50_000, "valid": 10_000, "test": 10_000}
    packed = {part: np.zeros((n, 98), dtype=np.uint8) for part, n in sizes.items()}
    packed["train"][0, 0] = 0b01000000  # pixel 1
    packed["valid"][7, 3] = 0b00001000  # pixel 28: the first of the second line
    packed["test"][-1, -1] = 0b00000001  # the very last
    zipped(folder / "binarized_mnist.npz", **packed)
    data = load_data("binarized-mnist", data_dir=tmp_path)
    assert data.kind == "binary"
    for part, where in (
        (data.train, [0, 0, 0, 1]),
        (data.validation, [7, 0, 1, 0]),
        (data.test, [9999, 0, 27, 27]),
    ):
        assert part.x.nonzero().tolist() == [where]
        assert (part.levels, part.labels, part.event_shape) == (1, None, (1, 28, 28))
    assert list(map(len, (data.train, data.validation, data.test))) == list(sizes.values())
    with assert_refused("binarized-mnist", "binary already"):
        load_data("binarized-mnist", data_dir=tmp_path, binarize="static")
    zipped(folder / "binarized_mnist.npz", train=packed["train"], test=packed["test"])
    with assert_refused("binarized_mnist.npz", "'valid': (10000, 98)", "packed"):
        load_data("binarized-mnist", data_dir=tmp_path)


def test_binarized_mnist_cant_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_download)
    monkeypatch.delenv("SUBO_DATA", raising=False)
    with assert_refused(tmp_path / "binarized-mnist", "OpenML has no copy", "binarized_mnist.npz", "SUBO_DATA"):
        load_data("binarized-mnist", data_dir=tmp_path)


@needs("mnist")
def test_the_real_mnist():
    data = load_data("mnist", data_dir=SUBO_DATA)
    assert data.describe()["sizes"] == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert labels_of(data.train)[:5].tolist() == [5, 0, 4, 1, 9]
    assert labels_of(data.validation)[:5].tolist() == [3, 8, 6, 9, 6]
    assert labels_of(data.test)[:5].tolist() == [7, 2, 1, 0, 4]
    assert labels_of(data.test).bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean = torch.cat([data.train.x, data.validation.x]).double().mean().item() / 255
    assert round(mean, 4) == 0.1307  # the well-known mean of the training images


@needs("fashion-mnist")
def test_the_real_fashion_mnist():
    data = load_data("fashion-mnist", data_dir=SUBO_DATA)
    assert labels_of(data.train)[:5].tolist() == [9, 0, 0, 3, 0]
    assert labels_of(data.test).bincount().tolist() == [1000] * 10
    mean = torch.cat([data.train.x, data.validation.x]).double().mean().item() / 255
    assert round(mean, 4) == 0.2860


@needs("binarized-mnist")
@needs("mnist")
def test_the_real_binarized_mnist_is_a_draw_of_mnist():
    bits, grey = load_data("binarized-mnist", data_dir=SUBO_DATA), load_data("mnist", data_dir=SUBO_DATA)
    assert bits.describe()["sizes"] == grey.describe()["sizes"]
    mean = bits.test.x.double().mean((0, 1))
    p = grey.test.x.double().mean((0, 1)) / 255
    assert (mean - p).abs().max() < 5 * 0.5 / 10_000**0.5


def test_scikit_learns_warnings_of_a_download_are_its_own_matter(monkeypatch, tmp_path):
    def retried(*args, **kwargs):
        warnings.warn("A network error occurred while downloading. Retrying...", stacklevel=2)
        raise OSError("no route")

    monkeypatch.delenv("SUBO_DATA", raising=False)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", retried)
    with assert_refused("mnist", "no route", "SUBO_DATA"):
        load_data("mnist", data_dir=tmp_path)
