"""Data that stay on disk, of which only the rows at hand are read: arrays in files, and folders of images."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subo.data.contents import Contents, by_number, labeled
from subo.data.image_files import ImageFiles
from subo.data.image_folders import about_image, classes_of, listed, notes_of, on_image
from subo.data.meaning import Meaning
from subo.data.parquet_rows import ParquetRows
from subo.data.rows_on_disk import HeldTo, RowsOnDisk, spread_positions
from subo.data.shards import NpyShards
from subo.data.splits import Split
from subo.data.values import Kind, check_resolution
from subo.errors import InputError
from subo.runtime.memory import free_bytes

__all__ = ["can_stay_on_disk", "held_to", "is_large", "read_on_disk"]

_SHARE = 0.25  # of the free memory: data are divided into splits, which takes as much again
_HEADERS = 1000  # images whose headers are looked at
_LABELS = "labels.npy"


def is_large(path: Path) -> bool:
    """Whether a `.npy` would take more than a quarter of the free memory."""
    return path.suffix.lower() == ".npy" and path.is_file() and path.stat().st_size > _SHARE * free_bytes()


def can_stay_on_disk(source: str | Path) -> bool:
    """Whether a source is of a kind whose rows can stay in their files.

    Example:
        >>> can_stay_on_disk("rows.npy"), can_stay_on_disk("rows.csv")
        (True, False)
    """
    return Path(source).is_dir() or Path(source).suffix.lower() in (".npy", ".parquet")


def held_to(kind: Kind, part: Split) -> Split:
    """Rows on disk that are checked when they are read to be of the kind inferred from some; others as they are."""
    x: Any = part.x
    if not isinstance(x, RowsOnDisk) or kind == "real":  # which any number is
        return part
    return replace(part, x=x.then(HeldTo(kind, part.levels)))


def read_on_disk(path: Path, *, meaning: Meaning | None = None, image_size: int | None = None) -> Contents:
    """Data whose rows stay in their files.

    Args:
        path: A `.npy` file; a folder of them, arrays ``(n, ...)`` of one type, in natural order, and optionally
            `labels.npy`, integers or names for all rows; a `.parquet` file of numbers, or a folder of such; or a folder
            of images as for :func:`subo.data.image_folders.read_images`.
        meaning: Meaning of the values, if a run has decided it.
        image_size: Height and width to which images are brought.

    Raises:
        InputError: The data are none of these, or cannot be used; says why.
    """
    if not can_stay_on_disk(path):
        raise InputError(
            f"{path}: only .npy and .parquet files, folders of them, and folders of images can stay on disk: leave "
            "`on_disk` out, or write the rows as .npy, in several files if one is too large"
        )
    if path.suffix.lower() == ".parquet":
        return _tables([path])
    if path.is_dir():
        if tables := _files(path, "*.parquet"):
            return _tables(tables)
        files = _files(path, "*.npy")
        if not files:
            return _images(path, meaning, image_size)
        shards = [file for file in files if file.name != _LABELS]
        rows = _arrays(shards or files, meaning)
        labels = None if len(shards) == len(files) else _read_labels(path / _LABELS)
        return labeled(rows, labels, path / _LABELS)
    return Contents((_arrays([path], meaning),))


def _tables(paths: list[Path]) -> Contents:
    """The rows of Parquet files of numbers; the column `label` holds labels."""
    source = ParquetRows(paths, apart=["label"])
    x: Any = RowsOnDisk(source)
    _check_resolution(source, x, str(paths[0]), source.names)
    rows = Split(x)
    labels, where = source.column("label"), f"{paths[0]}, column label"
    if labels is not None and labels.dtype == object:  # as pyarrow has text
        if any(label is None for label in labels):
            raise InputError(f"{where}: a label is missing: fill it, or leave the row out")
        labels = labels.astype(str)
    return replace(labeled(rows, labels, where), names=source.names)


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted((file for file in folder.glob(pattern) if file.name[0] != "."), key=by_number)


def _arrays(paths: list[Path], meaning: Meaning | None) -> Split:
    """The rows of `.npy` files, with channels first."""
    source = NpyShards(paths)
    event, is_bytes = source.shape[1:], source.dtype in (np.uint8, bool)
    x: Any = RowsOnDisk(source)
    if len(event) == 3 and event[0] not in (1, 3) and event[2] in (1, 3):
        x = x.then(_channels_first)
    if len(event) == 2 and is_bytes:
        x = x.then(partial(torch.unsqueeze, dim=1))
    if len(event) == 1 and meaning is None and source.dtype.itemsize > 4:
        _check_resolution(source, x, str(paths[0]))
    if source.dtype == bool or x.is_floating_point():
        return Split(x)
    if meaning is not None:
        return Split(x, levels=meaning.levels)
    return Split(x, levels=255 if int(x.spread().max()) > 1 else 1)


def _check_resolution(source: Any, x: RowsOnDisk, where: str, names: tuple[str, ...] | None = None) -> None:
    """Refuses columns that float32 cannot resolve, judged from some rows as they are stored."""
    some = source.rows(x.looked_at().numpy()).astype(np.float64)
    check_resolution(torch.from_numpy(some[np.isfinite(some).all(1)]), where=where, names=names)


def _channels_first(x: Tensor) -> Tensor:
    return x.movedim(3, 1).contiguous()


def _read_labels(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} can't be read ({error}). Usually it holds Python objects, which are never unpickled: write names "
            "as text, with numpy.save(path, labels.astype(str))"
        ) from error


def _images(folder: Path, meaning: Meaning | None, image_size: int | None) -> Contents:
    """A folder of images, of which only some headers are read; another size is refused where it is met."""
    files, paths = listed(folder)
    classes, labels = classes_of(folder, paths)
    image_size = meaning.image_size if meaning is not None else image_size
    some = spread_positions(len(paths), _HEADERS, block=1).tolist()
    about = [on_image(paths[number], about_image) for number in some]
    grey = all(mode in ("1", "L", "LA", "La") for _, mode, _ in about)
    channels = (1 if grey else 3) if meaning is None else meaning.event_shape[0]
    width, height = about[0][0] if image_size is None else (image_size, image_size)
    if meaning is not None and len(meaning.event_shape) == 3:
        height, width = meaning.event_shape[1:]
    source = ImageFiles(paths, channels=channels, size=(height, width), resized=image_size is not None)
    moving = [paths[number] for number, (_, _, moves) in zip(some, about, strict=True) if moves]
    cut = len(str(folder)) + 1
    x: Any = RowsOnDisk(source)
    return Contents(
        (Split(x, levels=255, labels=labels, names=tuple(str(path)[cut:] for path in paths)),),
        classes=classes,
        notes=tuple(notes_of(folder, files, [str(path)[cut:] for path in moving], image_size)),
    )
