"""What the values of a data set mean: decided once, from all data that a model is fitted to, and kept with the run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from subo.data.values import Kind

__all__ = ["Meaning"]


@dataclass(frozen=True)
class Meaning:
    """How the numbers of a data set are read, such that those of any later file are read alike.

    A file alone does not tell: one picture of the levels 0 and 1 looks like bits, a folder of one class like the first
    class, a grey folder like data of one channel. Hence :func:`subo.load_data` decides from all of a fit's data, the
    run stores it, and :func:`subo.data.conforming.conform` holds later data to it.

    Attributes:
        kind: What the values are before anything is drawn from them; see :func:`subo.data.kind_of`.
        event_shape: The shape of one example; of sequences that of one step.
        levels: The stored value that means 1.0, of pixels; 1 of bits and of numbers as they are.
        pixels: Whether bytes are stored, ``0 .. levels``, and not numbers as they are.
        whole: Whether the model describes the levels themselves (dequantized, or as classes) and not ``x / levels``.
        sequential: Whether the data are sequences.
        image_size: The height and width to which the images of a folder were brought; None: they are as they came.
        feature_names: The names of a table's columns.
        class_names: The names of the classes that are numbered 0, 1, ...; None of data without labels.

    Example:
        >>> meaning = Meaning("grey", (1, 8, 8), levels=16, pixels=True)
        >>> Meaning.from_json(meaning.as_json()) == meaning
        True
    """

    kind: Kind
    event_shape: tuple[int, ...]
    levels: int = 1
    pixels: bool = False
    whole: bool = False
    sequential: bool = False
    image_size: int | None = None
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """In JSON's types, as ``config.json`` has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Meaning":
        """Reads what :meth:`as_json` gave."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return cls(**plain)
