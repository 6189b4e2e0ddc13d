"""The size of a table, from which the defaults of a model of its rows follow."""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["TableSize"]

_MOST_LATENTS, _ROWS_PER_LATENT = 16, 10
_NARROWEST, _WIDEST = 32, 128


@dataclass(frozen=True)
class TableSize:
    """The number of a table's rows to train on and of its columns.

    Args:
        rows: Number of rows.
        columns: Number of columns.

    Example:
        >>> TableSize(112, 4).latent_dim, TableSize(112, 4).width
        (4, 32)
    """

    rows: int
    columns: int

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
    def width(self) -> int:
        """The width of a hidden layer, about four times the square root of the rows, from 32 to 128."""
        return min(_WIDEST, max(_NARROWEST, nearest_power(4 * math.sqrt(self.rows))))

    @property
    def batch_size(self) -> int:
        """About a tenth of the rows, from 16 to 256, and a thousandth of more than a quarter of a million, up to 1024.

        A batch of 1024 of mixed columns takes twice the time of one of 256, for four times the rows.
        """
        return max(min(256, max(16, nearest_power(self.rows / 10))), min(1024, nearest_power(self.rows / 1000)))


def nearest_power(number: float) -> int:
    """The power of two that is nearest in ratio."""
    return 2 ** round(math.log2(max(1.0, number)))
