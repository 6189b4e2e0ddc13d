"""The size of a table, or the number of images or sequences, from which defaults of a model and its training follow."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

__all__ = ["DataSize", "ImagesSize", "SequencesSize", "TableSize", "size_of"]

_MOST_LATENTS, _ROWS_PER_LATENT, _ROWS_PER_ENTRY = 16, 10, 10
_NARROWEST, _WIDEST = 32, 256
_MANY_IMAGES = 10_000
_STEPS, _EPOCHS = (4000, 8000), 100  # at least, for few rows; at most, for many; between these
_STEPS_FOR_IMAGES, _EPOCHS_OF_IMAGES, _STEPS_FOR_FEW_IMAGES = 12_000, (10, 100), 6000
_STEPS_FOR_SEQUENCES, _LONG_SEQUENCE = (300, 2000), 100
_IN_WINDOWS, _WINDOW = 1000, 100


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
    kl_warmup: ClassVar[float] = 0.2
    most_unwatched: ClassVar[float] = math.inf

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
        return max(_tenth(self.rows, most=256), min(1024, nearest_power(self.rows / 1000)))

    def epochs(self, steps_per_epoch: int) -> int:
        """100, or as many as 4,000 steps take for few rows, and 8,000 steps for many."""
        fewest, most = _STEPS
        return math.ceil(min(max(fewest, _EPOCHS * steps_per_epoch), most) / steps_per_epoch)


@dataclass(frozen=True)
class ImagesSize:
    """The number of images to train on: 10,000 are enough for wide networks and many latents.

    The settings were chosen by the validation data of MNIST, and for fewer images by those of digits and of 2,000
    images of MNIST and Fashion-MNIST: `benchmarks/defaults.txt`.

    Args:
        rows: Number of images.

    Example:
        >>> ImagesSize(50_000).widths, ImagesSize(1_500).widths
        ((500, 500), (256, 256))
    """

    rows: int

    activation: ClassVar[str] = "silu"
    prior: ClassVar[str] = "normal"
    scale: ClassVar[str] = "per-dimension"
    dropout: ClassVar[float] = 0.0
    kl_warmup: ClassVar[float] = 0.2
    most_unwatched: ClassVar[float] = 100

    @classmethod
    def of(cls, data: Any) -> "ImagesSize | None":
        """The size of a :class:`~subo.data.Data` of images; None of other data."""
        return cls(len(data.train)) if len(data.train.event_shape) == 3 and not data.sequential else None

    @property
    def latent_dim(self) -> int:
        """Those that are not needed carry nothing, and cost nothing but time."""
        return 50 if self._are_many else 16

    @property
    def widths(self) -> tuple[int, ...]:
        """Two hidden layers."""
        return (500, 500) if self._are_many else (256, 256)

    def prior_covariance(self, entries: int) -> str:
        """Diagonal ones of a mixture, whatever the number of entries of full ones."""
        return "diagonal"

    @property
    def batch_size(self) -> int:
        """Of fewer than 10,000 images about a tenth, from 16 to 128."""
        return 250 if self._are_many else _tenth(self.rows, most=128)

    def epochs(self, steps_per_epoch: int) -> int:
        """For 12,000 steps, in 10 to 100 epochs; for 6,000 steps with fewer than 10,000 images."""
        if not self._are_many:
            return math.ceil(_STEPS_FOR_FEW_IMAGES / steps_per_epoch)
        fewest, most = _EPOCHS_OF_IMAGES
        return min(most, max(fewest, math.ceil(_STEPS_FOR_IMAGES / steps_per_epoch)))

    @property
    def _are_many(self) -> bool:
        return self.rows >= _MANY_IMAGES


@dataclass(frozen=True)
class SequencesSize:
    """The number of sequences to train on, from which training follows; the recipe's networks are the same for all.

    Args:
        rows: Number of sequences.
        length: Their mean number of time steps.
        longest: The largest number of time steps.

    Example:
        >>> SequencesSize(229, 60.0, 160).batch_size
        32
    """

    rows: int
    length: float
    longest: int

    kl_warmup: ClassVar[float] = 0.2
    most_unwatched: ClassVar[float] = math.inf

    @classmethod
    def of(cls, data: Any) -> "SequencesSize | None":
        """The size of a :class:`~subo.data.Data` of sequences; None of other data."""
        if not data.sequential or len(data.train) == 0:
            return None
        return cls(len(data.train), data.train.num_steps / len(data.train), int(data.train.lengths.max()))

    @property
    def batch_size(self) -> int:
        """About a tenth of the sequences, from 16 to 128."""
        return _tenth(self.rows, most=128)

    def epochs(self, steps_per_epoch: int) -> int:
        """For 2,000 steps, and as much work for sequences of more than 100 time steps, but for 300 steps at least."""
        fewest, most = _STEPS_FOR_SEQUENCES
        steps = max(fewest, most * min(1.0, _LONG_SEQUENCE / self.length))
        return math.ceil(steps / steps_per_epoch)

    @property
    def window(self) -> int | None:
        """Time steps in an update, where sequences are longer than 1,000: `benchmarks/windows.txt`."""
        return _WINDOW if self.longest > _IN_WINDOWS else None


DataSize: TypeAlias = TableSize | ImagesSize
"""What the defaults of a model follow from."""


def size_of(data: Any) -> DataSize | None:
    """The size of data from which a model's defaults follow; None where the same ones hold for all sizes."""
    return TableSize.of(data) or ImagesSize.of(data)


def _tenth(rows: int, *, most: int) -> int:
    """About a tenth of the examples, at least 16."""
    return min(most, max(16, nearest_power(rows / 10)))


def nearest_power(number: float) -> int:
    """The power of two that is nearest in ratio."""
    return 2 ** round(math.log2(max(1.0, number)))
