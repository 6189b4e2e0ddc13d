"""Images as rows on disk: each is decoded when it is read, several at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from subo.data.image_folders import about_image, on_open_image, pixels_of
from subo.errors import InputError
from subo.runtime.jobs import num_cores

__all__ = ["ImageFiles"]


class ImageFiles:
    """Images of one size, ``(N, C, H, W)``, bytes; a source of :class:`~subo.data.rows_on_disk.RowsOnDisk`.

    Args:
        paths: The files.
        channels: 1 for grey images, 3 for colors.
        size: Height and width.
        resized: Whether images are brought to that size, which is then a square; else another one is refused.

    Example:
        >>> ImageFiles([Path("a.png"), Path("b.png")], channels=1, size=(28, 28), resized=False).shape
        (2, 1, 28, 28)
    """

    dtype, neighbors = np.dtype(np.uint8), 1

    def __init__(self, paths: Sequence[Path], *, channels: int, size: tuple[int, int], resized: bool):
        self.paths, self.resized = paths, resized
        self.shape = (len(paths), channels, *size)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The images of these numbers."""
        found = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        with ThreadPoolExecutor(num_cores()) as pool:
            for row, pixels in zip(found, pool.map(self._decoded, numbers.tolist()), strict=True):
                row[:] = pixels
        return found

    def place(self, number: int) -> str:
        """The path of an image."""
        return str(self.paths[number])

    def _decoded(self, number: int) -> np.ndarray:
        path, (_, channels, height, width) = self.paths[number], self.shape
        if not self.resized:
            came, _, _ = on_open_image(path, about_image)
            if came != (width, height):
                raise InputError(
                    f"{path} is {came[0]} x {came[1]} pixels (width x height), and the others are {width} x {height}: "
                    "`image_size=64` scales and crops all to 64 x 64"
                )
        size = height if self.resized else None
        read = on_open_image(path, partial(pixels_of, channels=channels, image_size=size))
        return np.moveaxis(read.reshape(height, width, channels), 2, 0)
