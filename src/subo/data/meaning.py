"""The meaning of a data set's values: decided once, from all data that a model is fitted to, and kept with the run."""

from dataclasses import dataclass

from subo.data.size_factors import SizeFactor
from subo.data.tables.schema import Schema
from subo.data.values import Kind

__all__ = ["Meaning"]


@dataclass(frozen=True)
class Meaning:
    """How the numbers of a data set are read, so that those of any later file are read in the same way.

    A single file is ambiguous: a picture with the levels 0 and 1 looks like bits, a folder of one class like the first
    class, a grey folder like data with one channel. So :func:`subo.load_data` decides from all of a fit's data, the
    run stores the decision, and :func:`subo.data.conforming.conform` holds later data to it.

    Attributes:
        kind: Kind of the values before anything is drawn from them; see :func:`subo.data.kind_of`.
        event_shape: Shape of one example; for sequences, of one step.
        levels: The stored value that means 1.0, for pixels; 1 for bits and unscaled numbers.
        pixels: Whether bytes ``0 .. levels`` are stored rather than unscaled numbers.
        whole: Whether the model describes the levels themselves (dequantized, or as classes), not ``x / levels``.
        sequential: Whether the data are sequences.
        image_size: Height and width to which the images of a folder were resized; None if they were not.
        feature_names: Names of a table's columns.
        class_names: Names of the classes numbered 0, 1, ...; None for data without labels.
        table: What the columns of a table are, if it is of mixed columns; None if all cells are numbers of one kind.
        beside: What the columns beside such numbers are, of which a model may be conditioned on some.
        sizes: What the size of a row is, by which a model multiplies means of counts; None without a size.
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
    table: Schema | None = None
    beside: Schema | None = None
    sizes: SizeFactor | None = None

    @property
    def given(self) -> Schema | None:
        """What the columns are that a model is conditioned on; None without any."""
        schema = self.beside if self.table is None else self.table
        return schema.given if schema is not None and schema.given.modeled else None
