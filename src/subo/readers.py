"""Reading files: arrays, tables, sequences and folders of images become splits in memory."""

import csv
import re
import zipfile
import zlib
from array import array as numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from subo.data import Split
from subo.errors import InputError
from subo.sequences import lined_up
from subo.tables import name_in
from subo.values import check_resolution, check_values

__all__ = ["FORMATS", "Contents", "read_file", "read_numpy"]

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
FORMATS = f".npy, .npz, .csv, or a folder of images ({', '.join(_IMAGES)}) or of sequences (.npy)"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a source holds.

    Attributes:
        parts: One split with all rows in their order, or train, validation and test.
        names: The names of a table's columns.
        classes: The names that the labels 0, 1, ... stand for.
    """

    parts: tuple[Split, ...]
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None


def read_file(path: Path) -> Contents:
    """Reads a file or folder that exists; what the formats mean is told at `subo.sources.load`.

    Raises:
        InputError: The format is unknown, or what is there can't be used; says why.
    """
    if path.is_dir():
        files = sorted((file for file in path.glob("*.npy") if file.name[0] != "."), key=_by_number)
        return _read_sequences({file.name: read_numpy(file) for file in files}, path) if files else _read_images(path)
    reader = {".npy": _read_arrays, ".npz": _read_arrays, ".csv": _read_csv}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown format {path.suffix!r}; known are {FORMATS}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); usually writing it was interrupted: write it again")
    return reader(path)


def _by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Names in the order in which people count: 2.npy before 10.npy; 01.npy before 1.npy, of the same number."""
    parts = re.split(r"(\d+)", path.name)  # every second one is digits
    return [(int(part), "") if odd % 2 else (-1, part) for odd, part in enumerate(parts)], path.name


def read_numpy(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Reads the array of a `.npy` file or the arrays of a `.npz`, by content; never unpickles.

    Raises:
        InputError: The file is missing, unreadable, empty, of another format, or holds Python objects.
    """
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} was not found: expected a NumPy file there") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} can't be read as a NumPy file ({error}). Usually it is cut off, of another format, "
            "or holds Python objects, which are never unpickled: write it again with numpy.save or "
            "numpy.savez from arrays of numbers"
        ) from error


def _read_arrays(path: Path) -> Contents:
    """Reads a NumPy file, by what is in it rather than by its ending."""
    content = read_numpy(path)
    if isinstance(content, np.ndarray):
        return Contents(_splits({"": content}, path))
    validation = "validation" if "validation" in content else "valid"
    if {"train", validation, "test"} <= content.keys():
        return Contents(_splits({key: content[key] for key in ("train", validation, "test")}, path))
    data_keys = [key for key in content if key not in ("labels", "y")]
    key = next((key for key in ("x", "data") if key in content), data_keys[0] if len(data_keys) == 1 else None)
    apart = not {"train", "validation", "valid", "test"} & content.keys()
    if key is None and apart and len(data_keys) > 1 and all(content[name].ndim == 2 for name in data_keys):
        return _read_sequences({name: content[name] for name in data_keys}, path, content.get("labels"))
    if key is None:
        raise InputError(
            f"{path} holds the arrays {', '.join(content) or '(none)'}; expected one array of data "
            "(the only one, or named x or data) with optional labels (or y), or train, validation and test, or several "
            "sequences (T, D): rename the arrays"
        )
    (rows,) = _splits({key: content[key]}, path)
    labels = next((content[key] for key in ("labels", "y") if key in content), None)
    return Contents((rows if labels is None else _labelled(rows, labels, path),))


def _labelled(rows: Split, labels: np.ndarray, path: Path) -> Split:
    if labels.dtype.kind not in "iub" or labels.shape != (len(rows),):
        raise InputError(
            f"{path}: labels must be {len(rows)} integers, one per row; got an array of shape {labels.shape} "
            f"of {labels.dtype}"
        )
    return replace(rows, labels=torch.from_numpy(labels.astype(np.int64)))


def _read_sequences(sequences: Mapping[str, Any], path: Path, labels: np.ndarray | None = None) -> Contents:
    """Makes a split of named arrays ``(T_i, D)``."""
    strange = next((name for name, array in sequences.items() if not isinstance(array, np.ndarray)), None)
    if strange is not None:
        raise InputError(f"{path}, sequence {strange}: expected one array (T, D), and the file holds several")
    x, lengths = lined_up(sequences, where=path)
    named = not all(re.fullmatch(r"arr_\d+", name) for name in sequences)  # which NumPy calls what has no name
    rows = Split(x, lengths=lengths, names=tuple(sequences) if named else None)
    return Contents((rows if labels is None else _labelled(rows, labels, path),))


def _splits(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[Split, ...]:
    """Makes one split of every array; they share the shape of a datum and the meaning of a value."""
    where = {key: f"{path}, array {key}" if key else str(path) for key in arrays}
    ready = {key: _arranged(array, where[key]) for key, array in arrays.items()}
    forms = {key: (a.shape[1:], str(a.dtype)) for key, a in ready.items()}
    if len(set(forms.values())) > 1:
        raise InputError(f"{path}: all parts must have one event shape and type; got {forms}")
    pixels = all(a.dtype == np.uint8 for a in ready.values()) and max(a.max() for a in ready.values()) > 1
    splits = tuple(Split(torch.from_numpy(a), levels=255 if pixels else 1) for a in ready.values())
    for key, part in zip(arrays, splits, strict=True):
        check_values(part.x, where=where[key])
    return splits


def _arranged(array: np.ndarray, where: str) -> np.ndarray:
    """Makes bytes of pixels and bits, with channels first, and float32 of everything else."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where}: expected numbers, got an array of {array.dtype}: convert it to float32 first")
    if array.ndim < 2:
        raise InputError(
            f"{where}: expected shape (N, ...), a row per datum, got {array.shape}: for N data of one "
            "feature reshape to (N, 1), for one datum of D features to (1, D)"
        )
    if array.size == 0:
        raise InputError(f"{where} is empty: an array of shape {array.shape} holds no values")
    if array.dtype != bool and (array.dtype != np.uint8 or array.ndim < 3):
        if array.ndim == 2:
            check_resolution(torch.from_numpy(array.astype(np.float64)), where=where)
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is reported as such
            return np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = np.moveaxis(array, 3, 1)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _read_csv(path: Path) -> Contents:
    """Reads numbers under a header."""
    values = numbers("d")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = _header(next((cells for cells in lines if cells), []), path)
            other = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
            if other is not None:
                what = "semicolons" if other == ";" else "tabs"
                raise InputError(
                    f"{path}: cells are separated by {what}, and commas are expected: write it with commas"
                )
            rows = 0
            for cells in lines:
                if not cells:  # a blank line, mostly the last
                    continue
                rows += 1
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}, row {rows} (line {lines.line_num}): {len(cells)} cells under a header of "
                        f"{len(header)}; usually a comma is missing, or stands in text or as a decimal mark"
                    )
                try:
                    values.extend(map(float, cells))
                except ValueError:
                    _refuse_text(cells, header, f"row {rows} (line {lines.line_num})", path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as comma-separated text in UTF-8 ({error}): write it again") from error
    if rows == 0:
        raise InputError(f"{path} is empty: it has a header and no rows")
    table = np.array(values).reshape(rows, len(header))
    features = [i for i, name in enumerate(header) if name != "label"]
    with np.errstate(over="ignore"):
        x = torch.from_numpy(table.astype(np.float32))
    check_values(x, where=str(path), names=header)
    check_resolution(torch.from_numpy(table), where=str(path), names=header)
    if len(features) == len(header):
        return Contents((Split(x),), header)
    labels = table[:, header.index("label")]
    if (labels != labels.round()).any():
        row = int((labels != labels.round()).argmax())
        raise InputError(f"{path}, row {row + 1}, column 'label': labels must be integers, got {labels[row]}")
    rows_read = Split(x[:, features], labels=torch.from_numpy(labels.astype(np.int64)))
    return Contents((rows_read,), tuple(header[i] for i in features))


def _header(cells: list[str], path: Path) -> tuple[str, ...]:
    """Checks a header, as data in its place would silently be lost."""
    header = tuple(name_in(name.strip()) for name in cells)
    if not header:
        raise InputError(f"{path} is empty: expected a header with a name per column, and rows of numbers")
    if "" in header:
        raise InputError(
            f"{path}: column {header.index('') + 1} has no name in the header; pandas writes its index so: "
            "use to_csv(..., index=False), or name the column"
        )
    if all(_is_number(name) for name in header) and header != tuple(map(str, range(len(header)))):
        raise InputError(f"{path}: the first line holds numbers; a header with a name per column is expected: add one")
    if len(set(header)) < len(header):
        raise InputError(f"{path}: two columns have one name; the header is {', '.join(header)}")
    if header == ("label",):
        raise InputError(f"{path}: there is no column of data beside 'label'")
    return header


def _refuse_text(cells: list[str], header: tuple[str, ...], place: str, path: Path) -> NoReturn:
    name, cell = next((name, cell) for name, cell in zip(header, cells, strict=True) if not _is_number(cell))
    found = f"{cell!r} isn't a number" if cell.strip() else "the cell is empty"
    raise InputError(
        f"{path}, column {name!r}, {place}: {found}; all cells must be numbers: encode or drop columns of "
        "text, fill or drop what is missing"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_images(folder: Path) -> Contents:
    """Reads the images of a folder, or of its subfolders, in the order of their names."""
    paths, labels, classes = _images_in(folder), None, None
    if not paths:
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        inside = [(path, label) for label, sub in enumerate(subfolders) for path in _images_in(sub)]
        paths, labels = [path for path, _ in inside], torch.tensor([label for _, label in inside])
        classes = tuple(subfolder.name for subfolder in subfolders)
    if not paths:
        raise InputError(
            f"{folder}: no images found in the folder or its subfolders ({', '.join(_IMAGES)}), and no sequences (.npy)"
        )
    size, modes = _on_image(paths[0], lambda image: image.size), set()
    for path in paths:  # headers only: a wrong size is found before pixels fill the memory
        found, mode = _on_image(path, lambda image: (image.size, image.mode))
        if found != size:
            raise InputError(
                f"{folder}: all images must have one size; {paths[0]} is {size[0]} x {size[1]} and {path} is "
                f"{found[0]} x {found[1]} pixels (width x height): resize or crop them"
            )
        if mode[0] in "IF":
            raise InputError(f"{path}: pixels of more than 8 bits (mode {mode}); save 8-bit images, or a .npy")
        modes.add(mode)
    mode = "L" if modes <= {"1", "L", "LA", "La"} else "RGB"
    pixels = np.empty((len(paths), size[1], size[0], len(mode)), dtype=np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = _on_image(path, lambda image: _pixels(image, mode)).reshape(row.shape)
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 3, 1)))
    names = tuple(str(path.relative_to(folder)) for path in paths)
    return Contents((Split(x, levels=255, labels=labels, names=names),), classes=classes)


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES and p.name[0] != ".")


def _pixels(image: Image.Image, mode: str) -> np.ndarray:
    if image.mode.startswith("P"):  # a palette with transparency must pass by RGBA
        image = image.convert("RGBA")
    return np.asarray(image.convert(mode))


def _on_image(path: Path, function: Callable[[Image.Image], Any]) -> Any:
    """Opens an image for a function, and says which one can't be read."""
    try:
        with Image.open(path) as image:
            return function(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for broken files
        raise InputError(f"{path} can't be read as an image ({error}): remove it or save it again") from error
