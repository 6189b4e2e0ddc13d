"""Reading folders of images: all upright, of one size and number of channels; the folder of an image is its class."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from subo.data.classes import numbered
from subo.data.contents import Contents
from subo.data.meaning import Meaning
from subo.data.splits import Split
from subo.errors import InputError
from subo.runtime.memory import check_room

__all__ = [
    "IMAGES",
    "about_image",
    "classes_of",
    "holds_images",
    "listed",
    "notes_of",
    "on_image",
    "on_open_image",
    "pixels_of",
    "read_images",
]

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112  # the EXIF tag: how a camera was held
_LISTED = 5


def holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder, at any depth."""
    return any(path.suffix.lower() in IMAGES for path in _files(folder))


def read_images(folder: Path, *, meaning: Meaning | None = None, image_size: int | None = None) -> Contents:
    """Reads all images of a folder and its subfolders, in the order of their paths.

    Args:
        folder: The folder.
        meaning: Meaning of the run's data, which sets size and number of channels; None: the images keep their own.
        image_size: Target height and width: the shorter side is scaled to it, then the middle is cropped.

    Raises:
        InputError: There are no images, they differ in size or are too large, or one can't be read; says which.
    """
    files, paths = listed(folder)
    classes, labels = classes_of(folder, paths)
    image_size = meaning.image_size if meaning is not None else image_size
    about = [on_image(path, about_image) for path in paths]  # headers only, before pixels fill the memory
    width, height = about[0][0] if image_size is None else (image_size, image_size)
    if image_size is None:
        _check_sizes(folder, paths, [size for size, _, _ in about], meaning)
    grey = all(mode in ("1", "L", "LA", "La") for _, mode, _ in about)
    channels = (1 if grey else 3) if meaning is None else meaning.event_shape[0]
    check_room(len(paths) * width * height * channels, str(folder), "Use a part of it.")
    pixels = np.empty((len(paths), channels, height, width), dtype=np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        read = on_image(path, lambda image: pixels_of(image, channels, image_size))
        row[:] = np.moveaxis(read.reshape(height, width, channels), 2, 0)
    x = torch.from_numpy(pixels)
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    moving = [name for name, (_, _, moves) in zip(names, about, strict=True) if moves]
    return Contents(
        (Split(x, levels=255, labels=labels, names=names),),
        classes=classes,
        notes=tuple(notes_of(folder, files, moving, image_size)),
    )


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files of a folder and its subfolders, and those of them that are images."""
    files = list(_files(folder))
    paths = [path for path in files if path.suffix.lower() in IMAGES]
    if not paths:
        raise InputError(
            f"{folder}: no images found in the folder or its subfolders ({', '.join(IMAGES)}), and no sequences (.npy)"
        )
    return files, paths


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder except hidden ones, sorted by path; links to a folder above are not followed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} can't be read ({error.strerror}): allow it, or move it elsewhere")

    found, seen = [], set[str]()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "."]
        found += [] if real in seen else [Path(place) / name for name in names if name[0] != "."]
        seen.add(real)
    yield from sorted(found, key=lambda path: path.relative_to(folder).parts)


def classes_of(folder: Path, paths: Sequence[Path]) -> tuple[tuple[int | str, ...] | None, torch.Tensor | None]:
    """The class of each image, which is the path of its folder; none if all lie in the top folder.

    Raises:
        InputError: Some lie beside the class folders and have no class.
    """
    inside = [path.parent.relative_to(folder).as_posix() for path in paths]
    beside = [path.name for path, place in zip(paths, inside, strict=True) if place == "."]
    if len(beside) == len(paths):
        return None, None
    if beside:
        names = sorted({place for place in inside if place != "."})
        raise InputError(
            f"{folder}: {len(beside)} images ({_some(beside)}) lie beside the folders {_some(names)}, which are the "
            "classes of the images in them: move them into the folder of their class, or all images into one folder"
        )
    return numbered(inside)


def _check_sizes(
    folder: Path, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], meaning: Meaning | None
) -> None:
    """Refuses images of several sizes, or of a size other than the run's."""
    wanted = sizes[0] if meaning is None or len(meaning.event_shape) != 3 else meaning.event_shape[:0:-1]
    other = next((i for i, size in enumerate(sizes) if size != wanted), None)
    if other is None:
        return
    came = f"{paths[other]} is {sizes[other][0]} x {sizes[other][1]} pixels (width x height)"
    if meaning is not None:
        raise InputError(
            f"{folder}: the run was fitted to images of {wanted[0]} x {wanted[1]}, but {came}: resize or crop it, or "
            "fit with `image_size`, which brings all images to one size, also in later data"
        )
    raise InputError(
        f"{folder}: all images must have one size; {paths[0]} is {wanted[0]} x {wanted[1]} and {came}: "
        "`image_size=64` scales and crops all to 64 x 64"
    )


def about_image(image: Image.Image) -> tuple[tuple[int, int], str, bool]:
    """Width and height as displayed, mode, and whether the image has several frames."""
    (width, height), turned = image.size, image.getexif().get(_ORIENTATION, 1) >= 5
    if image.mode[0] in "IF":
        raise InputError(f"pixels of more than 8 bits (mode {image.mode}); save 8-bit images, or a .npy")
    return ((height, width) if turned else (width, height)), image.mode, getattr(image, "is_animated", False)


def pixels_of(image: Image.Image, channels: int, image_size: int | None) -> np.ndarray:
    """The pixels of an open image, upright: ``(H, W)`` of grey ones, ``(H, W, 3)`` of colors."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("P"):  # a palette with transparency must go through RGBA
        upright = upright.convert("RGBA")
    if channels == 3:
        upright = upright.convert("RGB")
    elif upright.mode not in ("1", "L", "LA", "La"):
        colors = np.asarray(upright.convert("RGB"))
        if (colors != colors[..., :1]).any():
            raise InputError("it has colors, but the run was fitted to grey images: give it grey ones")
        upright = Image.fromarray(colors[..., 0])
    upright = upright.convert("RGB" if channels == 3 else "L")
    if image_size is not None:
        upright = ImageOps.fit(upright, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.asarray(upright)


def on_image(path: Path, function: Callable[[Image.Image], Any]) -> Any:
    """Opens an image for a function, and says which one can't be read; not in threads, which share all filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata; damaged pixels raise
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return on_open_image(path, function)


def on_open_image(path: Path, function: Callable[[Image.Image], Any]) -> Any:
    """As :func:`on_image`, with the warnings' filters as they are."""
    try:
        with Image.open(path) as image:
            return function(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on bytes that are not an image
        raise InputError(f"{path} can't be read as an image ({error}): remove it or save it again") from error


def notes_of(folder: Path, files: Sequence[Path], moving: Sequence[str], image_size: int | None) -> Iterator[str]:
    """What was not read, and what was done to the images."""
    left = Counter(path.suffix.lower() or "no ending" for path in files if path.suffix.lower() not in IMAGES)
    if left:
        counts = _some([f"{ending} ({count})" for ending, count in left.most_common()])
        yield f"{sum(left.values())} files in {folder} are not readable images and are left out: {counts}"
    if moving:
        yield f"only the first frame of {len(moving)} images with several frames is read: {_some(moving)}"
    if image_size is not None:
        yield f"images are scaled and cropped to {image_size} x {image_size}, here and in later data"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
