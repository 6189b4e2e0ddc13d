"""Named data sets, read from local files or downloaded once."""

import gzip
import importlib.util
import math
import os
import struct
import warnings
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from subo.data.dataset import split
from subo.data.readers import read_numpy
from subo.data.sequences import lined_up
from subo.data.splits import Split
from subo.errors import InputError

__all__ = ["NAMES", "read_idx", "read_named"]

NAMES = ("digits", "mnist", "fashion-mnist", "binarized-mnist", "jsb-chorales")

_OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
_IDX_FILES = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}
_ROLLS_FILE = "JSB_Chorales.mat"
_ROLLS_PARTS = {"traindata": 229, "validdata": 76, "testdata": 77}
_BITS_FILE = "binarized_mnist.npz"
_BITS_PARTS = {"train": 50_000, "valid": 10_000, "test": 10_000}


def read_named(name: str, *, data_dir: Path | None = None, seed: int = 0) -> tuple[Split, Split, Split]:
    """Reads train, validation and test of a named data set.

    - `digits`: 1,797 images of 1 x 8 x 8 with 17 grey levels, part of scikit-learn; split 80/10/10 by `seed`.
    - `mnist`, `fashion-mnist`: 1 x 28 x 28 pixels. The test set is the published one, of 10,000 images;
      validation is the last 10,000 of the 60,000 published training images, and train the 50,000 before.
    - `binarized-mnist`: MNIST in the fixed binarization of Larochelle and Murray (2011), 50,000 / 10,000 /
      10,000 images, without labels.
    - `jsb-chorales`: 382 chorales as piano rolls, `(T, 88)` bits each, one row per eighth note; 229 / 76 / 77 as
      published by Boulanger-Lewandowski et al. (2012). The file is that of the sequence models of Bai et al. (2018).

    Files are looked for in a folder of the set's name in `data_dir`, then in the folder in the environment
    variable SUBO_DATA. The two sets of pixels are otherwise downloaded from OpenML and kept in `data_dir`
    or scikit-learn's own folder.

    Args:
        name: One of `NAMES`.
        data_dir: Folder to look in first, and to keep downloads in.
        seed: Seed for the split of `digits`; the other splits are fixed.

    Raises:
        InputError: The files aren't there and can't be downloaded, or hold something else.
    """
    if name == "digits":
        from sklearn.datasets import load_digits  # here and below: scikit-learn takes a second to import

        digits: Any = load_digits()
        x = torch.from_numpy(digits.images.astype(np.uint8)[:, None])
        return split(x, labels=torch.from_numpy(digits.target.astype(np.int64)), levels=16, seed=seed)
    if name == "binarized-mnist":
        return _binarized_mnist(data_dir)
    if name == "jsb-chorales":
        return _chorales(data_dir)
    folder = _folder(name, data_dir)
    if folder is None:
        images, labels = _download(name, data_dir)
    else:
        arrays = [read_idx(folder / file, shape=shape) for file, shape in _IDX_FILES.items()]
        images, labels = np.concatenate(arrays[0::2]), np.concatenate(arrays[1::2])
    whole = Split(
        torch.from_numpy(images.reshape(-1, 1, 28, 28)),
        levels=255,
        labels=torch.from_numpy(labels.astype(np.int64)),
    )
    train, validation, test = map(whole.take, torch.arange(70_000).split([50_000, 10_000, 10_000]))
    return train, validation, test


def _places(name: str, data_dir: Path | None) -> list[Path]:
    """The folders that may hold a named set's files, in search order."""
    roots = [data_dir, os.environ.get("SUBO_DATA")]
    return [Path(root) / name for root in roots if root]


def _folder(name: str, data_dir: Path | None) -> Path | None:
    return next((place for place in _places(name, data_dir) if place.is_dir()), None)


def _looked(name: str, data_dir: Path | None) -> str:
    """Says where files were looked for."""
    places = " and ".join(map(str, _places(name, data_dir)))
    return f"no folder {places}" if places else "no folder to look in (neither data_dir nor SUBO_DATA is set)"


def _download(name: str, data_dir: Path | None) -> tuple[UInt8[np.ndarray, "N D"], UInt8[np.ndarray, " N"]]:
    """Downloads images and labels from OpenML, where the training images come first."""
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about retries: the outcome is reported below
            bunch: Any = fetch_openml(
                _OPENML[name],
                version=1,
                as_frame=False,
                data_home=None if data_dir is None else str(data_dir),
                parser="pandas" if importlib.util.find_spec("pandas") else "liac-arff",  # the fast one, if installed
            )
        images, labels = np.asarray(bunch["data"]), np.asarray(bunch["target"]).astype(np.uint8)
        if images.shape != (70_000, 784) or labels.shape != (70_000,):
            raise ValueError(f"expected 70,000 images of 784 pixels, got an array of shape {images.shape}")
    except (OSError, EOFError, ValueError, HTTPException) as error:
        raise InputError(
            f"{name}: there is {_looked(name, data_dir)}, and the download from OpenML failed ({error}). "
            f"Without internet, put the original files {', '.join(_IDX_FILES)} into a folder named {name}, "
            "and give the folder around it as data_dir or in the environment variable SUBO_DATA"
        ) from error
    return images.astype(np.uint8), labels


def _binarized_mnist(data_dir: Path | None) -> tuple[Split, Split, Split]:
    """Reads the bits, packed eight to a byte along axis 1."""
    folder = _folder("binarized-mnist", data_dir)
    if folder is None:
        raise InputError(
            f"binarized-mnist: there is {_looked('binarized-mnist', data_dir)}, and OpenML has no copy to "
            f"download. Put {_BITS_FILE} (arrays train, valid and test, of bits packed along axis 1) into "
            "a folder named binarized-mnist, and give the folder around it as data_dir or in the "
            "environment variable SUBO_DATA; or use mnist with binarize static"
        )
    arrays = read_numpy(folder / _BITS_FILE)
    expected = {part: (size, 98) for part, size in _BITS_PARTS.items()}
    found = {part: array.shape for part, array in arrays.items()} if isinstance(arrays, Mapping) else {}
    if not isinstance(arrays, Mapping) or any(found.get(part) != shape for part, shape in expected.items()):
        raise InputError(
            f"{folder / _BITS_FILE}: expected arrays of the shapes {expected}, found {found}; usually the "
            "file is another binarization: its bits must be packed along axis 1, by numpy.packbits(x, axis=1)"
        )
    bits = (np.unpackbits(arrays[part].astype(np.uint8), axis=1) for part in expected)
    train, validation, test = (Split(torch.from_numpy(b.reshape(-1, 1, 28, 28))) for b in bits)
    return train, validation, test


def _chorales(data_dir: Path | None) -> tuple[Split, Split, Split]:
    """Reads a MATLAB file with arrays of objects, each a piano roll."""
    from scipy.io import loadmat

    folder = _folder("jsb-chorales", data_dir)
    if folder is None:
        raise InputError(
            f"jsb-chorales: there is {_looked('jsb-chorales', data_dir)}, and nowhere to download it from: put "
            f"{_ROLLS_FILE} into a folder named jsb-chorales, and give the folder around it as data_dir or in the "
            "environment variable SUBO_DATA"
        )
    path = folder / _ROLLS_FILE
    try:
        content = loadmat(path)
        rolls = [[np.asarray(roll, np.uint8) for roll in content[part].ravel()] for part in _ROLLS_PARTS]
    except Exception as error:  # SciPy's parser raises nearly anything on bytes that are not such a file
        raise InputError(f"{path} is missing, or not the file of piano rolls ({error}): fetch it again") from error
    if [len(part) for part in rolls] != list(_ROLLS_PARTS.values()):
        raise InputError(
            f"{path} holds {[len(part) for part in rolls]} chorales, expected {list(_ROLLS_PARTS.values())}"
        )
    steps = [lined_up({str(i + 1): roll for i, roll in enumerate(part)}, where=path) for part in rolls]
    train, validation, test = (Split(x.to(torch.uint8), lengths=lengths) for x, lengths in steps)
    return train, validation, test


def read_idx(path: Path, *, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Reads a gzipped IDX file of bytes.

    The format: two zero bytes, 8 (unsigned bytes), the number of axes; each axis's size as a big-endian
    32-bit integer; the values, the last axis fastest.

    Args:
        path: The file.
        shape: Expected shape of the array.

    Raises:
        InputError: The file is missing, of another format or shape, or cut off.
    """
    remedy = "fetch the original file again"
    try:
        with gzip.open(path) as file:
            content = file.read(5 + 4 * len(shape) + math.prod(shape))  # one byte more, to detect excess
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing, but its folder exists: add the file, or remove {path.parent}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} isn't a whole gzip file ({error}); a download was cut off: {remedy}") from error
    magic = bytes([0, 0, 8, len(shape)])
    start = 4 + 4 * len(shape)
    if len(content) < start or content[:4] != magic:
        raise InputError(f"{path} isn't an IDX file of bytes: begins with {content[:4]!r}, not {magic!r}; {remedy}")
    found = struct.unpack(f">{len(shape)}I", content[4:start])
    if found != shape:
        raise InputError(f"{path} holds an array of shape {found}, expected {shape}: {remedy}")
    if len(content) - start != math.prod(shape):
        raise InputError(f"{path} holds {len(content) - start} values, expected {math.prod(shape)}: {remedy}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # copied: bytes are read-only
