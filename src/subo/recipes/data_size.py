"""The size of a table, or of a large set of images, from which the defaults of a model follow."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

__all__ = ["DataSize", "ImagesSize", "TableSize", "size_of"]

_MOST_LATENTS, _ROWS_PER_LATENT, _ROWS_PER_ENTRY = 16, 10, 10
_NARROWEST, _WIDEST = 32, 256
_MANY_IMAGES = 10_000


@dataclass(frozen=True)
class TableSize:
    """The number of a table's rows to train on and of its columns.

    Args:
        rows: Number of rows.
        columns: Number of columns.

    Example:
        >>> TableSize(112, 4).latent_dim, TableSize(112, 4).widths
        (4, (32, 32))
    """

    rows: int
    columns: int

    activation: ClassVar[str] = "silu"
    prior: ClassVar[str] = "mixture"
    scale: ClassVar[str] = "network"

    @classmethod
    def of(cls, data: Any) -> "TableSize | None":
        """The size of a :class:`~subo.data.Data` of rows, vectors of numbers or cells; None of images and sequences."""
        event = data.train.event_shape
        return cls(len(data.train), event[0]) if len(event) == 1 and not data.sequential else None

    @property
    def latent_dim(self) -> int:
        """As many latents as columns, at most 16 and one for ten rows: those that are not needed carry nothing."""
        return min(self.columns, max(2, self.rows // _ROWS_PER_LATENT), _MOST_LATENTS)

    @property
    def widths(self) -> tuple[int, ...]:
        """Two hidden layers, their width about four times the square root of the rows, from 32 to 256."""
        width = min(_WIDEST, max(_NARROWEST, nearest_power(4 * math.sqrt(self.rows))))
        return width, width

    def prior_covariance(self, entries: int) -> str:
        """Full ones, of a mixture, if there are ten rows for each of their entries: `benchmarks/small_tables.txt`."""
        return "full" if _ROWS_PER_ENTRY * entries <= self.rows else "diagonal"

    @property
    def dropout(self) -> float:
        """A fifth of the encoder's hidden units where there are more columns than rows: `benchmarks/counts.txt`."""
        return 0.2 if self.columns > self.rows else 0.0

    @property
    def batch_size(self) -> int:
        """About a tenth of the rows, from 16 to 256, and a thousandth of more than a quarter of a million, up to 1024.

        A batch of 1024 of mixed columns takes twice the time of one of 256, for four times the rows.
        """
        return max(min(256, max(16, nearest_power(self.rows / 10))), min(1024, nearest_power(self.rows / 1000)))


@dataclass(frozen=True)
class ImagesSize:
    """The number of images to train on, 10,000 or more: enough for wide networks and many latents.

    The settings were chosen on MNIST, at equal times, by its validation data: `benchmarks/defaults.txt`.

    Args:
        rows: Number of images.

    Example:
        >>> ImagesSize(50_000).widths
        (500, 500)
    """

    rows: int

    latent_dim: ClassVar[int] = 50
    widths: ClassVar[tuple[int, ...]] = (500, 500)
    activation: ClassVar[str] = "silu"
    prior: ClassVar[str] = "normal"
    scale: ClassVar[str] = "per-dimension"
    batch_size: ClassVar[int] = 250
    dropout: ClassVar[float] = 0.0

    def prior_covariance(self, entries: int) -> str:
        """Diagonal ones of a mixture, whatever the number of entries of full ones."""
        return "diagonal"

    @classmethod
    def of(cls, data: Any) -> "ImagesSize | None":
        """The size of a :class:`~subo.data.Data` of at least 10,000 images to train on; None of other data."""
        is_large = len(data.train.event_shape) == 3 and not data.sequential and len(data.train) >= _MANY_IMAGES
        return cls(len(data.train)) if is_large else None


DataSize: TypeAlias = TableSize | ImagesSize
"""What defaults follow from."""


def size_of(data: Any) -> DataSize | None:
    """The size of data from which defaults follow; None where the same ones hold for all sizes."""
    return TableSize.of(data) or ImagesSize.of(data)


def nearest_power(number: float) -> int:
    """The power of two that is nearest in ratio."""
    return 2 ** round(math.log2(max(1.0, number)))
