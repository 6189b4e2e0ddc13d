"""Reading files: arrays, tables, sequences and folders of images become splits in memory."""

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from subo.data.contents import Contents, by_number, labeled
from subo.data.image_folders import IMAGES, holds_images, read_images
from subo.data.meaning import Meaning
from subo.data.on_disk import is_large, read_on_disk
from subo.data.sequences import lined_up
from subo.data.size_factors import OBSERVED
from subo.data.sparse_rows import SparseRows, checked
from subo.data.splits import Split
from subo.data.tables.options import TABLES, TableOptions
from subo.data.values import check_resolution, check_values
from subo.errors import InputError
from subo.runtime.memory import check_room

__all__ = ["FORMATS", "read_file", "read_numpy"]

FORMATS = (
    f".npy, .npz, .h5ad, a table ({', '.join(TABLES)}), or a folder of images ({', '.join(IMAGES)}) or of sequences "
    "(.npy)"
)
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_LABELS = ("labels", "y")
_SPARSE = {"format", "shape", "data"}  # the arrays that SciPy writes for a sparse matrix


def read_file(
    path: Path,
    *,
    meaning: Meaning | None = None,
    image_size: int | None = None,
    table: TableOptions | None = None,
    size: str | None = None,
    on_disk: bool | None = None,
    on_frame: Callable[[Any], object] | None = None,
) -> Contents:
    """Reads an existing file or folder; the formats are described at `subo.load_data`.

    Args:
        path: The file or folder.
        meaning: Meaning of the values, if a run has decided it; otherwise it is inferred from them.
        image_size: Size to which a folder's images are brought.
        table: How a table of mixed columns is read; None: all of its cells are numbers.
        size: Source of the sizes of rows: ``observed``, or a column, whose numbers become the context ``size``.
        on_disk: Whether rows stay in their files; None: those of a `.npy` that is large for the memory.
        on_frame: Receives the cells of a table, or those of `obs` beside counts, as they came.

    Raises:
        InputError: The format is unknown, or the content can't be used; says why.
    """
    column = None if size == OBSERVED else size
    if on_disk or (on_disk is None and is_large(path)):
        _check_no_column(column, path)
        return read_on_disk(path, meaning=meaning, image_size=image_size)
    if path.is_dir():
        _check_no_column(column, path)
        files = sorted((file for file in path.glob("*.npy") if file.name[0] != "."), key=by_number)
        if not files:
            return read_images(path, meaning=meaning, image_size=image_size)
        if holds_images(path):
            raise InputError(f"{path} holds images and sequences (.npy), but a data set is of one kind: separate them")
        return _read_sequences({file.name: read_numpy(file) for file in files}, path)
    is_table = path.name.lower().endswith(TABLES)
    if not (is_table or path.suffix.lower() in (".npy", ".npz", ".h5ad")):
        remedy = "; save it as CSV" if path.suffix.lower() in _SHEETS else ""
        raise InputError(f"{path}: unknown format {path.suffix!r}{remedy}; known are {FORMATS}")
    if not path.is_file():
        raise InputError(f"{path} is not a file but a device or a pipe: write the data to a file first")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); usually writing it was interrupted: write it again")
    if path.suffix.lower() == ".h5ad":
        from subo.data.annotated import read_annotated  # and with it pandas, which takes a second to import

        schema = None if meaning is None else meaning.beside
        options = table or TableOptions()
        return read_annotated(path, options=options, schema=schema, size=column, on_frame=on_frame)
    if meaning is not None and meaning.beside is not None:
        names = ", ".join(repr(known.name) for known in meaning.beside.given.modeled)
        raise InputError(f"{path}: the run is conditioned on {names} of obs, which only .h5ad files have: give it one")
    if is_table:
        return _read_table(path, meaning, table, size, on_frame)
    _check_no_column(column, path)
    return _read_arrays(path, meaning)


def _check_no_column(column: str | None, path: Path) -> None:
    if column is not None:
        raise InputError(
            f"`size_factor` names the column {column!r}, but {path} has no columns: use observed, for each row's total"
        )


def _read_table(
    path: Path,
    meaning: Meaning | None,
    table: TableOptions | None,
    size: str | None,
    on_frame: Callable[[Any], object] | None,
) -> Contents:
    """Reads a table of mixed columns, or of numbers of one kind."""
    schema = None if meaning is None else meaning.table
    if schema is not None or (table is not None and meaning is None):
        from subo.data.tables.mixed import read_mixed  # and with it pandas, which takes a second to import

        return read_mixed(path, options=table or TableOptions(), schema=schema, size=size, on_frame=on_frame)
    from subo.data.tables.numbers import read_numbers

    known = None if meaning is None else meaning.class_names
    contents = read_numbers(path, later=meaning is not None, known=known or (), on_frame=on_frame)
    return contents if size in (None, OBSERVED) else _sized(contents, size, path)


def _sized(contents: Contents, size: str, path: Path) -> Contents:
    """A table of numbers of one kind, of which one column is the size of each row, in place of a number to model."""
    names, (rows,) = contents.names or (), contents.parts
    if size not in names:
        raise InputError(f"{path}: `size_factor` names {size!r}; the columns are {', '.join(names)}")
    others = [number for number, name in enumerate(names) if name != size]
    if not others:
        raise InputError(f"{path}: no column is left beside the size {size!r}")
    context: dict[str, torch.Tensor] = {"size": rows.x[:, names.index(size)]}  # pyright: ignore
    kept = replace(rows, x=rows.x[:, others], context=context)
    return replace(contents, parts=(kept,), names=tuple(names[number] for number in others))


def read_numpy(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Reads the array of a `.npy` file or the arrays of a `.npz`, by content; never unpickles.

    Raises:
        InputError: The file is missing, unreadable, empty, encrypted, of another format, larger than the memory, or
            holds Python objects.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # which yields no more bytes than it declares here
                size = sum(member.file_size for member in archive.infolist())
                check_room(size, f"{path}, according to its header,", "Use a part of it, or an intact copy.")
        else:
            _check_length(path)
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            arrays = {key: content[key] for key in content.files}
        strange = next((key for key, array in arrays.items() if not isinstance(array, np.ndarray)), None)
        if strange is not None:
            raise ValueError(f"it is an archive, and its member {strange} is not an array")
        return arrays
    except FileNotFoundError as error:
        raise InputError(f"{path} was not found: expected a NumPy file there") from error
    except InputError:
        raise
    except Exception as error:  # zipfile and NumPy's parser raise nearly anything on bytes that are not such a file
        raise InputError(
            f"{path} can't be read as a NumPy file ({str(error) or type(error).__name__}). Usually it is cut off, of "
            "another format, encrypted, or holds Python objects, which are never unpickled: write it again with "
            "numpy.save or numpy.savez from arrays of numbers"
        ) from error


def _check_length(path: Path) -> None:
    """Refuses a `.npy` whose header promises more than the file holds, before memory is taken for it."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        if version[0] not in read:  # 3: names of fields in UTF-8, which are not numbers
            return
        shape, _, dtype = read[version[0]](file)
        promised, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if promised > there and not dtype.hasobject:
            raise ValueError(f"its header promises an array {shape} of {dtype}, and the file is cut off before its end")


def _read_arrays(path: Path, meaning: Meaning | None) -> Contents:
    """Reads a NumPy file, by its content rather than its ending."""
    content = read_numpy(path)
    if isinstance(content, np.ndarray):
        return Contents(_splits({"": content}, path, meaning))
    if content.keys() >= _SPARSE:
        return Contents((Split(checked(_sparse(content, path), where=str(path))),))
    validation = "validation" if "validation" in content else "valid"
    if {"train", validation, "test"} <= content.keys():
        parts = ("train", validation, "test")
        return Contents(_splits({key: content[key] for key in parts}, path, meaning), notes=_unread(content, parts))
    data_keys = [key for key in content if key not in _LABELS]
    key = next((key for key in ("x", "data") if key in content), data_keys[0] if len(data_keys) == 1 else None)
    named = next((name for name in _LABELS if name in content), None)
    labels = None if named is None else content[named]
    apart = not {"train", "validation", "valid", "test"} & content.keys()
    single = key is not None and not (meaning is not None and meaning.sequential)
    if not single and apart and data_keys and all(content[name].ndim == 2 for name in data_keys):
        return _read_sequences({name: content[name] for name in data_keys}, path, labels)
    if key is None:
        raise InputError(
            f"{path} holds the arrays {', '.join(content) or '(none)'}; expected one array of data "
            "(the only one, or named x or data) with optional labels (or y), or train, validation and test, or several "
            "sequences (T, D): rename the arrays"
        )
    (rows,) = _splits({key: content[key]}, path, meaning)
    return labeled(rows, labels, path, notes=_unread(content, (key, named)))


def _sparse(content: Mapping[str, Any], path: Path) -> Any:
    """A sparse matrix from the arrays that SciPy writes."""
    kind = content["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else kind
    try:
        shape = tuple(content["shape"].tolist())
        if kind == "coo":
            return SparseRows(sparse.coo_array((content["data"], (content["row"], content["col"])), shape=shape))
        make = {"csr": sparse.csr_array, "csc": sparse.csc_array}[kind]
        matrix = make((content["data"], content["indices"], content["indptr"]), shape=shape)
        matrix.check_format()
        return SparseRows(matrix)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not a whole sparse matrix of SciPy in the format csr, csc or coo ({error}): write it with "
            "scipy.sparse.save_npz(path, matrix.tocsr())"
        ) from error


def _unread(content: Mapping[str, Any], read: tuple[str | None, ...]) -> tuple[str, ...]:
    """Says which arrays are not read."""
    left = [name for name in content if name not in read]
    return (f"arrays that are not read: {', '.join(left)}",) if left else ()


def _read_sequences(sequences: Mapping[str, Any], path: Path, labels: np.ndarray | None = None) -> Contents:
    """Makes a split from named arrays ``(T_i, D)``."""
    strange = next((name for name, array in sequences.items() if not isinstance(array, np.ndarray)), None)
    if strange is not None:
        raise InputError(f"{path}, sequence {strange}: expected one array (T, D), but the file holds several")
    x, lengths = lined_up(sequences, where=path)
    named = not all(re.fullmatch(r"arr_\d+", name) for name in sequences)  # NumPy's name for unnamed arrays
    return labeled(Split(x, lengths=lengths, names=tuple(sequences) if named else None), labels, path)


def _splits(arrays: Mapping[str, np.ndarray], path: Path, meaning: Meaning | None) -> tuple[Split, ...]:
    """Makes one split from each array; they share the shape of an example and the meaning of a value."""
    where = {key: f"{path}, array {key}" if key else str(path) for key in arrays}
    ready = {key: _arranged(array, where[key], later=meaning is not None) for key, array in arrays.items()}
    bits = all(array.dtype == bool for array in arrays.values())
    forms = {key: (a.shape[1:], "bool" if arrays[key].dtype == bool else str(a.dtype)) for key, a in ready.items()}
    if len(set(forms.values())) > 1:
        raise InputError(f"{path}: all parts must have one event shape and type; got {forms}")
    pixels = all(a.dtype == np.uint8 for a in ready.values())
    if not pixels or bits:
        levels = 1
    elif meaning is not None:
        levels = meaning.levels
    else:
        levels = 255 if max(a.max() for a in ready.values()) > 1 else 1
    splits = tuple(Split(torch.from_numpy(a), levels=levels) for a in ready.values())
    for key, part in zip(arrays, splits, strict=True):
        gaps = meaning is not None and meaning.sequential  # NaN is a missing value of a sequence
        check_values(part.x.where(~part.x.isnan(), 0) if gaps else part.x, where=where[key])
    return splits


def _arranged(array: np.ndarray, where: str, *, later: bool) -> np.ndarray:
    """Converts pixels and bits to bytes and everything else to float32; images get their channels first."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where}: expected numbers, got an array of {array.dtype}: convert it to float32 first")
    if array.ndim < 2:
        raise InputError(
            f"{where}: expected shape (N, ...), one row per example, got {array.shape}: for N examples of one "
            "feature reshape to (N, 1), for one example of D features to (1, D)"
        )
    if array.size == 0:
        raise InputError(f"{where} is empty: an array of shape {array.shape} holds no values")
    if array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = np.moveaxis(array, 3, 1)
    if array.dtype != bool and (array.dtype != np.uint8 or array.ndim < 3):
        if array.ndim == 2 and not later:
            check_resolution(torch.from_numpy(array.astype(np.float64)), where=where)
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is reported as such
            return np.ascontiguousarray(array, dtype=np.float32)
    return np.ascontiguousarray(array[:, None] if array.ndim == 3 else array, dtype=np.uint8)
