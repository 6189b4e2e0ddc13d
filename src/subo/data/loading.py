"""Loading data: named sets, files, folders of images."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from subo.data.classes import numbered
from subo.data.conforming import conform, in_order, numbered_alike
from subo.data.contents import Contents
from subo.data.dataset import Data, divided
from subo.data.meaning import Meaning
from subo.data.named_sets import NAMES, read_named
from subo.data.on_disk import held_to
from subo.data.quantization import binarized, check_policies, dequantized, drawn_rows
from subo.data.readers import FORMATS, read_file
from subo.data.size_factors import OBSERVED, with_sizes
from subo.data.splits import Binarize, Split
from subo.data.stored_rows import joined, stored
from subo.data.tables.options import TableOptions
from subo.data.values import kind_of
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = ["Part", "load_data", "load_rows"]

Part = Literal["all", "train", "validation", "test"]


@checked_arguments
def load_data(
    source: str | Path,
    *,
    data_dir: Path | None = None,
    binarize: Binarize = "none",
    dequantize: bool | None = None,
    image_size: int | None = None,
    size_factor: str = "none",
    on_disk: bool | None = None,
    seed: int = 0,
    table: TableOptions | None = TableOptions(),  # noqa: B008 (a frozen record)
    meaning: Meaning | None = None,
    note: Callable[[str], object] | None = None,
) -> Data:
    """Loads a data set in three splits.

    A source is one of

    - a name: `digits`, `mnist`, `fashion-mnist`, `binarized-mnist`, `jsb-chorales`; see
      `subo.data.named_sets.read_named`;
    - `.npy`: an array `(N, ...)`;
    - `.npz`: arrays `train`, `validation` (or `valid`), `test`, and no other is read; or one array of data
      (the only one, or `x`, or `data`), and optionally `labels` (or `y`), integers or names;
    - a table: `.csv` or `.tsv`, also `.gz`, `.parquet` or `.feather`, with a name for each column. Columns may be
      numbers, text, dates or truth values, and cells may be missing; `Data.meaning.table` says what each is taken for.
      A column whose name is exactly `label` holds labels, integers or names; no other name is special;
    - a sparse matrix: `.npz`, as `scipy.sparse.save_npz` writes it, or `.h5ad` (`subo[anndata]`), whose rows are `X`,
      or `layers["counts"]` if `X` is not whole numbers; columns of `obs` can be the condition, sizes, or `label`. Rows
      stay sparse, and only those that are read become dense;
    - sequences, `(T_i, D)` each, of any lengths: a folder of `.npy` files, 2.npy before 10.npy, or a `.npz`
      of several two-dimensional arrays with other names than above, such as `numpy.savez(path, *sequences)` writes;
    - a folder of images of one size: grey ones give `(1, H, W)`, and if any has colors, all give
      `(3, H, W)`; they are turned upright as EXIF says, alpha is dropped, and an animated image gives its first
      frame. If images lie in subfolders, at any depth, the path of its folder is the class of each.

    Arrays of bytes `(N, H, W)`, `(N, C, H, W)` or, with C of 1 or 3, `(N, H, W, C)` are pixels: they become
    `(N, C, H, W)`, and 255 means 1.0, unless none exceeds 1. Arrays of booleans are bits, of the same
    layouts. All others become float32 and stay as they are, with channels first. Data without published parts are
    split 80/10/10. Labels are numbered 0, 1, ... in the order of their names (`Data.class_names`).

    The meaning of the values is decided here, from all of them, and `Data.meaning` keeps it for later data.

    Args:
        source: A name or a path. A `Path` is never a name: `Path("digits")` is a file.
        data_dir: Folder in which named sets are looked for first, each in a folder of its name; then the folder in the
            environment variable SUBO_DATA. mnist and fashion-mnist are downloaded if they are in neither.
        binarize: How grey values are binarized: not at all (none), bits drawn once (static), or bits drawn again at
            every visit in training and once for held-out data (dynamic).
        dequantize: Whether 8-bit pixels y become real numbers y + u, with u uniform on [0, 1) drawn again at every
            visit in training and once for held-out data. The log p(x) of a gaussian or laplace likelihood is then a
            lower bound on the log-probability of y. By default a fit with a gaussian, laplace or auto likelihood does
            so, unless the pixels are binarized; data that are loaded without a model are not changed.
        image_size: Height and width of a folder's images: the shorter side is scaled to it, and the middle is cropped.
            Without it all images must have the same size.
        size_factor: The size of a row, which each example then has as its context ``size``, over the mean of the rows
            to train on: its total (``observed``), or a column, which is not modeled itself.
        on_disk: Whether rows stay in their files and are read batch by batch: those of a `.npy`, of a folder of `.npy`
            that are parts of one array, of `.parquet` files of numbers, or of a folder of images. By default those of a
            `.npy` that would take more than a quarter of the free memory.
        seed: Seed for the split, the bits and the noise.
        table: How a table of mixed columns is read. None: all of its cells are numbers, which one likelihood describes.
        meaning: Meaning of the values, if it was decided before; None: it is decided here.
        note: Receives messages about what is not read or is changed.

    Raises:
        InputError: There is no such source, or its content can't be used; says why.

    Example:
        >>> load_data("digits").train.event_shape
        torch.Size([1, 8, 8])
    """
    check_policies(binarize, dequantize=bool(dequantize))
    _check_image_size(source, image_size)
    mixed = None if binarize != "none" or dequantize else table  # bits and levels are numbers of one kind
    known = {"meaning": meaning, "image_size": image_size, "size": _source_of_sizes(size_factor, meaning)}
    contents = _read(source, data_dir, seed, **known, table=mixed, on_disk=on_disk, note=note)
    data = _data(contents, str(source), seed, **known)
    return dequantized(data, seed=seed) if dequantize else binarized(data, binarize, seed=seed)


def load_rows(
    source: str | Path,
    *,
    part: Part = "all",
    data_dir: Path | None = None,
    binarize: Binarize = "none",
    dequantize: bool = False,
    seed: int = 0,
    table: TableOptions | None = TableOptions(),  # noqa: B008 (a frozen record)
    meaning: Meaning | None = None,
    on_disk: bool | None = None,
    note: Callable[[str], object] | None = None,
    on_frame: Callable[[Any], object] | None = None,
) -> Split:
    """Loads data to be encoded or scored, even a single row; sources as for `load_data`.

    With the `meaning` of a fit's data, an example is read as they were, whatever else is in its file: its levels,
    columns, channels and classes are the run's. If a whole file without parts is read (`part="all"`), the bits or the
    noise drawn for an example depend only on its own values and the seed; for a part, and for a source that has parts
    itself, they are those of `load_data`, which also depend on an example's position.

    Args:
        source: A name or a path.
        part: `all`: every row of a file in order, or train, validation and test one after the other if
            the source itself has these parts. Otherwise that part, as `load_data` with the same seed gives it.
        data_dir: Folder in which named sets are looked for first.
        binarize: If `static` or `dynamic`, bits are drawn once; those of a part equal those of
            `load_data(..., binarize="static")`.
        dequantize: Whether integers become real numbers, `y + u` with one draw of u; for the validation and
            test parts it equals that of `load_data`.
        seed: Seed for the split, the bits and the noise.
        table: How a table of mixed columns is read, as for `load_data`.
        meaning: Meaning of the values of the data that a model was fitted to, `Data.meaning`; None: it is decided from
            the data being loaded.
        on_disk: Whether rows stay in their files, as for `load_data`.
        note: Receives messages about what is not read or is changed.
        on_frame: Receives the cells of a table, or those of `obs` beside counts, all rows as they came.

    Raises:
        InputError: As for `load_data`, or the data do not match those of the fit; says why.

    Example:
        >>> run = load_data("digits").meaning
        >>> load_rows("digits", part="test", meaning=run)
        Split(179 of shape (1, 8, 8), uint8, levels 16, labels)
    """
    check_policies(binarize, dequantize=dequantize)
    mixed = None if binarize != "none" or dequantize else table
    size = _source_of_sizes("none", meaning)
    how: dict[str, Any] = {"meaning": meaning, "table": mixed, "size": size, "on_disk": on_disk, "note": note}
    contents = _read(source, data_dir, seed, **how, on_frame=on_frame)
    if note is not None and meaning is not None and meaning.pixels and _may_be_bits(contents.parts, meaning):
        note(
            f"Careful: no value of {source} exceeds 1, but the run's pixels have the levels 0 to {meaning.levels}, so "
            "the data are read as nearly black. Write bits as booleans: x.astype(bool)"
        )
    if part == "all" and len(contents.parts) == 1:
        parts, _ = _understood(contents, meaning, str(source))
        if meaning is not None and meaning.sizes is not None:
            parts, _ = with_sizes(parts, meaning.sizes.source, unit=meaning.sizes.unit, where=str(source))
        (rows,) = parts
        return drawn_rows(rows, binarize=binarize, dequantize=dequantize, seed=seed, where=str(source))
    data = _data(contents, str(source), seed, meaning=meaning, size=size)
    bits = "none" if binarize == "none" else "static"
    data = dequantized(data, seed=seed, once=True) if dequantize else binarized(data, bits, seed=seed)
    return _joined(data.train, data.validation, data.test) if part == "all" else getattr(data, part)


def _source_of_sizes(asked: str, meaning: Meaning | None) -> str | None:
    """The source of the sizes of rows, as it was asked for, or as a run has it."""
    if meaning is not None:
        return None if meaning.sizes is None else meaning.sizes.source
    return None if asked == "none" else asked


def _data(
    contents: Contents,
    name: str,
    seed: int,
    *,
    meaning: Meaning | None = None,
    image_size: int | None = None,
    size: str | None = None,
) -> Data:
    """Makes three splits from what was read."""
    parts, classes = _understood(contents, meaning, name)
    if contents.table is not None:
        kind = "mixed"
    else:
        kind = kind_of(*(part.x for part in parts), levels=parts[0].levels) if meaning is None else meaning.kind
    if meaning is None:
        parts = tuple(held_to(kind, part) for part in parts)
    if divide := len(parts) == 1:
        parts = divided(parts[0], seed=seed, where=name)
    sizes = None if meaning is None else meaning.sizes
    if size is not None:
        parts, sizes = with_sizes(parts, size, unit=None if sizes is None else sizes.unit, where=name)
    at_random = f"at random by seed {seed}, 80% to train, 10% to validate and 10% to test on"
    data = Data(
        name,
        *parts,
        kind=kind,
        seed=seed,
        feature_names=contents.names if meaning is None else meaning.feature_names,
        class_names=classes,
        decided=meaning,
        division=at_random if divide or contents.divided else "the parts that the source has",
    )
    found = {"table": contents.table, "beside": contents.beside, "sizes": sizes}
    return replace(data, decided=replace(data.meaning, image_size=image_size or data.meaning.image_size, **found))


def _understood(
    contents: Contents, meaning: Meaning | None, where: str
) -> tuple[tuple[Split, ...], tuple[str, ...] | None]:
    """What was read, conformed to the run's data if there is a run, and the names of its classes."""
    known = None if meaning is None else meaning.class_names
    parts, names = contents.parts, None if contents.classes is None else tuple(map(str, contents.classes))
    if meaning is not None:
        named = [numbered_alike(part, contents.classes, known) for part in parts]
        parts, names = tuple(part for part, _ in named), named[0][1]
        if meaning.table is None:
            parts = (in_order(part, contents.names, meaning.feature_names, where=where) for part in parts)
        parts = (conform(part, meaning, where=where) for part in parts)
    return tuple(replace(part, class_names=names) for part in parts), names


def _check_image_size(source: str | Path, image_size: int | None) -> None:
    """Refuses an image size for data that are not a folder of images."""
    if image_size is None:
        return
    if (isinstance(source, str) and source in NAMES) or not _is_folder(Path(source)):
        raise InputError(f"{source} is not a folder of images, and `image_size` applies only to those: leave it out")


def _joined(*splits: Split) -> Split:
    """Concatenates splits of one data set; labels, names and each context are kept if all have them."""

    def of_all(name: str) -> Tensor | None:
        found = [getattr(part, name) for part in splits]
        return None if any(tensor is None for tensor in found) else torch.cat(found)

    x = joined([part.x for part in splits])
    named = all(part.names is not None for part in splits)
    names = tuple(name for part in splits for name in part.names or ()) if named else None
    shared = [name for name in splits[0].context if all(name in part.context for part in splits)]
    context = {name: torch.cat([part.context[name] for part in splits]) for name in shared}
    known = {name: of_all(name) for name in ("labels", "lengths", "rows")}
    return replace(splits[0], x=x, names=names, context=context, **known)


def _read(
    source: str | Path,
    data_dir: Path | None,
    seed: int,
    *,
    meaning: Meaning | None = None,
    image_size: int | None = None,
    table: TableOptions | None = None,
    size: str | None = None,
    on_disk: bool | None = None,
    note: Callable[[str], object] | None = None,
    on_frame: Callable[[Any], object] | None = None,
) -> Contents:
    """Finds out what a source is, and reads it."""
    if isinstance(source, str) and source in NAMES:
        if on_disk:
            raise InputError(f"{source} is read whole: `on_disk` is for files and folders of your own; leave it out")
        if size not in (None, OBSERVED):
            raise InputError(f"`size_factor` names the column {size!r}, but {source} has no columns: use observed")
        return _named(read_named(source, data_dir=data_dir, seed=seed), divided=source == "digits")
    if not str(source).strip():
        raise InputError(f"the name of the data is empty. Known names: {', '.join(NAMES)}; known files: {FORMATS}")
    path = Path(source)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or a folder without access
        raise InputError(f"{_short(source)} can't be looked for ({error.args[-1]}): give another path") from error
    if not there:
        _not_found(_short(source))
    try:
        how: dict[str, Any] = {"on_disk": on_disk, "on_frame": on_frame}
        contents = read_file(path, meaning=meaning, image_size=image_size, table=table, size=size, **how)
    except (OSError, MemoryError) as error:
        what = "there is not enough memory" if isinstance(error, MemoryError) else error.strerror or error
        raise InputError(f"{source} can't be read: {what}") from error
    if note is not None:
        for text in contents.notes:
            note(text)
    return contents


def _named(parts: tuple[Split, Split, Split], *, divided: bool) -> Contents:
    """A named set; its classes are the numbers in all parts."""
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) < len(parts):
        return Contents(parts, divided=divided)
    classes, numbers = numbered(torch.cat(labels).numpy())
    split = numbers.split([len(part) for part in parts])
    named = tuple(replace(part, labels=numbers) for part, numbers in zip(parts, split, strict=True))
    return Contents(named, classes=classes, divided=divided)


def _may_be_bits(parts: Sequence[Split], meaning: Meaning) -> bool:
    """Whether data to be read as levels hold only bits, some of them 1."""

    def are_levels(part: Split) -> bool:
        return meaning.whole if part.x.is_floating_point() else part.levels == meaning.levels > 1

    return all(are_levels(part) and int(stored(part.x).max()) <= 1 for part in parts) and any(
        bool(stored(part.x).any()) for part in parts
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _short(source: str | Path) -> str:
    text = str(source)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} letters)"


def _not_found(source: str) -> NoReturn:
    near = difflib.get_close_matches(source.lower(), NAMES, n=1)
    raise InputError(
        f"{source!r} not found: it is neither an existing file or folder nor a known name. "
        + (f"Did you mean {near[0]!r}? " if near else "")
        + f"Known names: {', '.join(NAMES)}; known files: {FORMATS}"
    )
