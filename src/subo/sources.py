"""Where arrays come from and go to: named sets, files, folders of images."""

import difflib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from subo.arguments import checked_arguments
from subo.data import Binarize, Data, Split
from subo.errors import InputError
from subo.files import replacing
from subo.named_sets import NAMES, read_named
from subo.quantisation import binarized, check_policies, dequantized, drawn_rows
from subo.readers import FORMATS, Contents, read_file
from subo.splitting import divided
from subo.tables import write_table
from subo.values import kind_of

__all__ = ["Part", "load", "load_rows", "save_array", "save_sequences"]

Part = Literal["all", "train", "validation", "test"]


@checked_arguments
def load(
    source: str | Path,
    *,
    data_dir: Path | None = None,
    binarize: Binarize = "none",
    dequantize: bool = False,
    seed: int = 0,
) -> Data:
    """Loads a data set in three splits.

    A source is one of

    - a name: `digits`, `mnist`, `fashion-mnist`, `binarized-mnist`, `jsb-chorales`; see
      `subo.named_sets.read_named`;
    - `.npy`: an array `(N, ...)`;
    - `.npz`: arrays `train`, `validation` (or `valid`), `test`, and no other is read; or one array of data
      (the only one, or `x`, or `data`), and optionally integers `labels` (or `y`);
    - `.csv`: numbers between commas, under a header. A column whose name is exactly `label` holds integer
      labels; no other name is special;
    - sequences, `(T_i, D)` each, of any lengths: a folder of `.npy` files, 2.npy before 10.npy, or a `.npz`
      of several two-dimensional arrays with other names than above, such as `numpy.savez(path, *sequences)` writes;
    - a folder of images of one size: grey ones give `(1, H, W)`, and if any has colours, all give
      `(3, H, W)`; alpha is dropped, and a moving image gives its first frame. If images lie in subfolders
      only, these are classes, numbered by sorted name.

    Arrays of bytes `(N, H, W)`, `(N, C, H, W)` or, with C of 1 or 3, `(N, H, W, C)` are pixels: they become
    `(N, C, H, W)`, and 255 means 1.0, unless none exceeds 1. Arrays of booleans are bits, of the same
    layouts. All others become float32 and stay as they are. What has no published parts is split 80/10/10.

    Args:
        source: A name or a path. A `Path` is never a name: `Path("digits")` is a file.
        data_dir: Where named sets are looked for first.
        binarize: What becomes of grey values: nothing (none), bits drawn once (static), or bits drawn afresh at every
            visit in training and once for held-out data (dynamic).
        dequantize: Whether 8-bit pixels y become real numbers y + u, with u uniform on [0, 1) drawn afresh at every
            visit in training and once for held-out data. The log p(x) of a gaussian or laplace likelihood is then a
            lower bound on the log-probability of y.
        seed: The seed of the split, the bits and the noise.

    Raises:
        InputError: There is no such source, or what is there can't be used; says why.

    Example:
        >>> load("digits").train.event_shape
        torch.Size([1, 8, 8])
    """
    check_policies(binarize, dequantize=dequantize)
    data = _data(_read(source, data_dir, seed), str(source), seed)
    return dequantized(data, seed=seed) if dequantize else binarized(data, binarize, seed=seed)


def load_rows(
    source: str | Path,
    *,
    part: Part = "all",
    data_dir: Path | None = None,
    binarize: Binarize = "none",
    dequantize: bool = False,
    seed: int = 0,
    names: Sequence[str] | None = None,
    sequences: bool = False,
) -> Split:
    """Loads data to be encoded or scored, even a single row; sources as for `load`.

    Args:
        source: A name or a path.
        part: `all`: every row of a file in its order, and train, validation, test one after the other where
            the source itself has these parts. Else that part, as `load` with the same seed gives it; what it takes of
            a file's rows at random is called by them, `row 1` the first.
        data_dir: Where named sets are looked for first.
        binarize: If `static` or `dynamic`, bits are drawn once; those of a part are those of
            `load(..., binarize="static")`. Rows of a file that are bits already are kept, as a few rows of a
            grey data set may well be.
        dequantize: Whether integers become real numbers, `y + u` with one draw of u; those of the validation and
            test parts are those of `load`.
        seed: The seed of the split, the bits and the noise.
        names: The columns that are wanted, in their order; a table with names is put into it.
        sequences: Whether sequences are wanted: one array `(T, D)` is then one of them, and no T data.

    Raises:
        InputError: As `load`; or the table has other columns.
    """
    check_policies(binarize, dequantize=dequantize)
    contents = _ordered(_read(source, data_dir, seed), names, where=str(source))
    if sequences and len(contents.parts) == 1 and contents.parts[0].lengths is None and contents.parts[0].x.ndim == 2:
        rows = contents.parts[0]
        contents = replace(contents, parts=(replace(rows, labels=None, context={}, lengths=torch.tensor([len(rows)])),))
    if part == "all" and len(contents.parts) == 1:
        return drawn_rows(contents.parts[0], binarize=binarize, dequantize=dequantize, seed=seed, where=str(source))
    rows = contents.parts[0]
    if len(contents.parts) == 1 and rows.names is None and rows.lengths is None:
        called = tuple(f"row {number}" for number in range(1, len(rows) + 1))
        contents = replace(contents, parts=(replace(rows, names=called),))
    data = _data(contents, str(source), seed)
    if dequantize:
        data = dequantized(data, seed=seed, once=True)
    else:
        data = binarized(data, "none" if binarize == "none" else "static", seed=seed)
    return _joined(data.train, data.validation, data.test) if part == "all" else getattr(data, part)


def save_array(
    path: str | Path,
    array: Tensor | np.ndarray,
    *,
    names: Sequence[str] | None = None,
    of: Sequence[str] | None = None,
) -> None:
    """Writes an array, whole or not at all: a reader never sees half of it.

    Args:
        path: `.npy`, for the array as it is; or `.csv`, for a line per row and a header, events flattened and
            every number with the digits that give it back exactly.
        array: `(N, *event)`.
        names: The columns of a `.csv`; `x0`, `x1`, ... if None.
        of: What each row is called, in a first column `name` of a `.csv`; without it there is none.

    Raises:
        InputError: Another ending, the wrong number of names, or the file can't be written.
    """
    path = Path(path)
    values = np.atleast_1d(array.detach().cpu().numpy() if isinstance(array, Tensor) else array)
    if path.suffix.lower() not in (".npy", ".csv"):
        raise InputError(
            f"{path}: an array is written as .npy or .csv, not as {path.suffix or 'a file without ending'!r}"
        )
    table = values.reshape(len(values), math.prod(values.shape[1:]))
    if table.dtype == bool:  # 0 and 1, which can be read back
        table = table.astype(np.uint8)
    header = [f"x{i}" for i in range(table.shape[1])] if names is None else list(names)
    if len(header) != table.shape[1]:
        raise InputError(f"{path}: {len(header)} names for {table.shape[1]} columns; give one name per column")
    if path.suffix.lower() == ".csv":
        first = {} if of is None else {"name": of}
        write_table(path, [*first, *header], _after([*first.values()], table))
        return
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def save_sequences(
    path: str | Path,
    steps: Tensor | np.ndarray,
    lengths: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    of: Sequence[str] | None = None,
) -> None:
    """Writes sequences, whole or not at all.

    Args:
        path: `.npz`, for an array `(T_i, D)` each, named 1, 2, ..., which :func:`load` reads; or `.csv`, for a line per
            step, with the numbers of its sequence and of the step in it, counted from 1, before its values.
        steps: All steps, one sequence after the other, `(sum of T_i, *event)`.
        lengths: T_i.
        names: The columns of a `.csv`; `x0`, `x1`, ... if None.
        of: What each sequence is called in a `.csv`, in place of its number.

    Raises:
        InputError: Another ending, or the file can't be written.
    """
    path = Path(path)
    values = steps.detach().cpu().numpy() if isinstance(steps, Tensor) else steps
    values = values.reshape(len(values), -1)
    if path.suffix.lower() == ".csv":
        called = range(1, len(lengths) + 1) if of is None else of
        places = [(name, step) for name, length in zip(called, lengths, strict=True) for step in range(1, length + 1)]
        columns = [f"x{i}" for i in range(values.shape[1])] if names is None else names
        write_table(path, ["sequence", "step", *columns], _after([*zip(*places, strict=True)], values))
        return
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: sequences are written as .npz or .csv, not as {path.suffix or 'without ending'!r}")
    arrays = np.split(values, np.cumsum(lengths)[:-1])
    named: Any = {str(i + 1): array for i, array in enumerate(arrays)}
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **named)


def _after(first: Sequence[Iterable[Any]], rows: np.ndarray) -> Iterator[list[Any]]:
    """Lines of numbers, each after its cells of the first columns."""
    beginnings = zip(*first, strict=True) if first else itertools.repeat(())
    for beginning, row in zip(beginnings, rows, strict=False):
        yield [*beginning, *map(str, row)]  # NumPy's shortest exact digits; row.astype(str) would lose a Ctrl-C


def _data(contents: Contents, name: str, seed: int) -> Data:
    """Makes three splits of what was read."""
    parts = contents.parts
    whole = parts[0] if len(parts) == 1 else _joined(*parts)
    if len(parts) == 1:
        parts = divided(whole, seed=seed, where=name)
    return Data(
        name,
        *parts,
        kind=kind_of(whole.x, whole.levels),
        seed=seed,
        feature_names=contents.names,
        class_names=contents.classes,
    )


def _ordered(contents: Contents, names: Sequence[str] | None, *, where: str) -> Contents:
    """The columns of a table by name; what has no names stays as it is."""
    if names is None or contents.names is None or tuple(names) == contents.names:
        return contents
    if len(names) == len(contents.names) and set(names) != set(contents.names):
        other = next(name for name in contents.names if name not in names)
        missing = next(name for name in names if name not in contents.names)
        raise InputError(f"{where}: there is a column {other!r}, and none is called {missing!r}, as was fitted to")
    if set(names) != set(contents.names):
        return contents  # another number of features, which is said where the model is known
    order = [contents.names.index(name) for name in names]
    parts = tuple(replace(part, x=part.x[:, order]) for part in contents.parts)
    return replace(contents, parts=parts, names=tuple(names))


def _joined(*splits: Split) -> Split:
    """Puts splits of one data set one after the other; labels, names and each context are kept if all have it."""

    def of_all(name: str) -> Tensor | None:
        found = [getattr(part, name) for part in splits]
        return None if any(tensor is None for tensor in found) else torch.cat(found)

    x = torch.cat([part.x for part in splits])
    named = all(part.names is not None for part in splits)
    names = tuple(name for part in splits for name in part.names or ()) if named else None
    shared = [name for name in splits[0].context if all(name in part.context for part in splits)]
    context = {name: torch.cat([part.context[name] for part in splits]) for name in shared}
    return replace(splits[0], x=x, labels=of_all("labels"), lengths=of_all("lengths"), names=names, context=context)


def _read(source: str | Path, data_dir: Path | None, seed: int) -> Contents:
    """Finds out what a source is, and reads it."""
    if isinstance(source, str) and source in NAMES:
        return Contents(read_named(source, data_dir=data_dir, seed=seed))
    path = Path(source)
    if not path.exists():
        _not_found(str(source))
    return read_file(path)


def _not_found(source: str) -> NoReturn:
    near = difflib.get_close_matches(source.lower(), NAMES, n=1)
    raise InputError(
        f"{source!r} not found: it is neither an existing file or folder nor a known name. "
        + (f"Did you mean {near[0]!r}? " if near else "")
        + f"Known names: {', '.join(NAMES)}; known files: {FORMATS}"
    )
