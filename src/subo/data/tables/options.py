"""How a table is read, as it was asked for."""

from dataclasses import dataclass
from pathlib import Path

from subo.data.tables.schema import Scaling, Schema
from subo.errors import InputError

__all__ = ["TABLES", "TEXTS", "TableOptions"]

TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Endings of tables that are text."""

TABLES = (*TEXTS, ".parquet", ".feather")
"""Endings of files that hold a table."""


@dataclass(frozen=True)
class TableOptions:
    """How a table is read, and which kinds of columns were asked for.

    Args:
        columns: Kinds of columns, such as age=count,income=positive,zip=category,id=drop, in place of those that their
            cells suggest; or a schema file (.json), such as the config.json of a run, which holds one. Kinds: real,
            positive (log-normal), count, boolean, category, ordinal, date, spike (one frequent value, numbers beside)
            and drop (left out).
        column_scaling: How numbers and dates are scaled for the model: by center and standard deviation (standard), or
            then brought to normal scores by a piecewise linear map, for heavy tails and several modes (quantile). In a
            schema file each column has a scaling of its own.
        min_level_count: Cells that a level of a category has at least; rarer ones are one level together, called other,
            in the model and in what it writes.
        missing: Words that stand for a missing cell, such as ?,-999; empty cells, NA, NaN, None and NaT always do.
        separator: What stands between the cells of text; by default what gives all rows the same number of cells.
        decimal: Decimal mark of text; by default a comma where numbers are seen to have one.
        condition: Columns that a model is to be conditioned on, a name or several: they leave x, and each example has
            their cells as its context ``given``.

    Example:
        >>> TableOptions(columns="age=count, zip=category").kinds()
        {'age': 'count', 'zip': 'category'}
    """

    columns: str | None = None
    column_scaling: Scaling = "standard"
    min_level_count: int = 1
    missing: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None
    condition: str | tuple[str, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """The columns of the condition."""
        return (self.condition,) if isinstance(self.condition, str) else tuple(self.condition)

    def kinds(self) -> dict[str, str]:
        """Kinds by the names of columns.

        Raises:
            InputError: A part is not a name and a kind.
        """
        if self.columns is None or self._is_file:
            return {}
        pairs = [part.strip().rpartition("=") for part in self.columns.split(",") if part.strip()]
        wrong = next((kind for name, _, kind in pairs if not name.strip()), None)
        if wrong is not None:
            raise InputError(
                f"`columns` are pairs such as age=count,zip=category; received {wrong!r}. Names with commas are given "
                "in a schema file: a .json, such as a run's config.json"
            )
        return {name.strip(): kind.strip() for name, _, kind in pairs}

    def schema(self) -> Schema | None:
        """The schema of a file; None where no file was given.

        Raises:
            InputError: It is no schema, or something that it sets was asked for beside it.
        """
        for name, plain in (("column_scaling", "standard"), ("min_level_count", 1)):
            if self._is_file and getattr(self, name) != plain:
                raise InputError(f"`{name}` has no effect with a schema file: write what it sets of columns there")
        return Schema.load(Path(self.columns)) if self.columns is not None and self._is_file else None

    @property
    def _is_file(self) -> bool:
        return self.columns is not None and self.columns.strip().lower().endswith(".json")
