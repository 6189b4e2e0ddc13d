"""The columns of a table: what each is, why, and how its cells become the numbers that a model sees, and cells again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subo.data.tables.kinds import Kind, hold_to, kind_of_column, spike_of
from subo.errors import InputError
from subo.files.whole import read_json, write_json

__all__ = ["Column", "Schema", "infer_schema"]

_DAY = 86_400e9  # nanoseconds
Level = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        kind: What its cells are; ``drop``: it is left out of the model.
        why: The reason, in words.
        missing: How many cells are missing in the data that the schema was made of.
        dtype: pandas' type of the cells, which is given back.
        levels: The values that a boolean, category or ordinal column has, in order.
        spike: The value that many cells of a ``spike`` column share.
        decimals: Decimal places that numbers are written with; None where they have many.
    """

    name: str
    kind: Kind
    why: str
    missing: int
    dtype: str
    levels: tuple[Level, ...] = ()
    spike: float | None = None
    decimals: int | None = None

    @property
    def is_modeled(self) -> bool:
        """Whether the model describes it."""
        return self.kind != "drop"


@dataclass(frozen=True)
class Schema:
    """What the columns of a table are.

    Attributes:
        columns: All of them, in the table's order.

    Example:
        >>> schema = infer_schema(pd.DataFrame({"age": [20.5, 31.0, None] * 9, "city": ["Rome", "Oslo", "Rome"] * 9}))
        >>> [(column.name, column.kind, column.missing) for column in schema.columns]
        [('age', 'ordinal', 9), ('city', 'category', 0)]
    """

    columns: tuple[Column, ...]

    @property
    def modeled(self) -> tuple[Column, ...]:
        """The columns that the model describes."""
        return tuple(column for column in self.columns if column.is_modeled)

    def as_json(self) -> list[dict[str, Any]]:
        """In JSON's types, a record for each column."""
        return [{**asdict(column), "levels": list(column.levels)} for column in self.columns]

    @classmethod
    def from_json(cls, stored: Any, *, where: str = "the schema") -> "Schema":
        """Reads what :meth:`as_json` gave.

        Raises:
            InputError: It is not a schema.
        """
        known = {field.name for field in fields(Column)}
        if not isinstance(stored, list) or not all(isinstance(record, dict) for record in stored):
            raise InputError(f"{where} is not a schema: a list with a record for each column")
        for record in stored:
            if others := {*record} - known or {"name", "kind"} - {*record}:
                raise InputError(f"{where} is not a schema: a column has {', '.join(sorted(known))}; see {sorted(others)}")
        plain = {"why": "as asked for", "missing": 0, "dtype": "float64"}
        return cls(tuple(Column(**{**plain, **record, "levels": tuple(record.get("levels", ()))}) for record in stored))

    def save(self, path: Path) -> None:
        """Writes the schema as JSON, to be changed and given back."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path) -> "Schema":
        """Reads a schema from JSON."""
        return cls.from_json(read_json(path), where=str(path))


def infer_schema(frame: pd.DataFrame, asked: Mapping[str, str] | None = None) -> Schema:
    """The schema of a table: of each column the kind that was asked for, or that its cells suggest.

    Args:
        frame: The table.
        asked: Kinds by the names of columns.

    Raises:
        InputError: A column that was asked for is not there, or its cells cannot be of that kind.
    """
    asked = asked or {}
    if unknown := [name for name in asked if name not in frame.columns]:
        raise InputError(f"there is no column {unknown[0]!r}; the columns are {', '.join(map(str, frame.columns))}")
    return Schema(tuple(_column(frame[name], asked.get(name)) for name in frame.columns))


def _column(cells: pd.Series, kind: str | None) -> Column:
    reading = kind_of_column(cells) if kind is None else hold_to(cells, kind)
    known = cells.dropna()
    column = Column(str(cells.name), reading.kind, reading.why, int(cells.isna().sum()), str(cells.dtype))
    if reading.kind in ("boolean", "category", "ordinal"):
        return replace(column, levels=_levels(known))
    if reading.kind == "spike":
        numbers = known.astype("float64")
        spike = spike_of(numbers)
        return replace(column, spike=numbers.mode().iloc[0] if spike is None else spike, decimals=_decimals(numbers))
    if reading.kind in ("real", "positive"):
        return replace(column, decimals=_decimals(known.astype("float64")))
    return column


def _levels(known: pd.Series) -> tuple[Level, ...]:
    """The distinct values in order, as plain values; false comes before true, and no before yes."""
    values = [value.item() if hasattr(value, "item") else value for value in known.unique()]
    return tuple(sorted(values, key=lambda value: (isinstance(value, str), value)))


def _decimals(known: pd.Series) -> int | None:
    """The decimal places that suffice for all numbers, up to 6."""
    values = known.to_numpy()
    for places in range(7):
        if np.allclose(values, values.round(places), rtol=0, atol=1e-9):
            return places
    return None
