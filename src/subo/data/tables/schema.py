"""The columns of a table: what each is, why, and how its cells stand as numbers before a model. A record in JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from subo.errors import InputError
from subo.files.whole import read_json, write_json

__all__ = ["LEVELED", "PERIODS", "SCALED", "Column", "Kind", "Level", "Scaling", "Schema", "as_word", "plain"]

Kind = Literal["real", "positive", "count", "boolean", "category", "ordinal", "date", "spike", "drop"]
"""A kind of column; ``drop`` is left out of the model."""

LEVELED = ("boolean", "category", "ordinal")
"""Kinds whose cells are one of some levels."""

SCALED = ("real", "positive", "date", "spike")
"""Kinds with a density."""

PERIODS = {"D": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1000}
"""Periods of which dates may be whole ones, in microseconds."""

Level = str | int | float | bool

Scaling = Literal["standard", "quantile"]
"""How numbers with a density are scaled."""


def plain(value: Any) -> Any:
    """A cell as a value of Python's own types."""
    return value.item() if hasattr(value, "item") else value


def as_word(cell: Any) -> str:
    """A cell as one of the words between commas that stand for a missing one.

    Example:
        >>> as_word("N/K"), as_word("<0,5")
        ('N/K', '"<0,5"')
    """
    return f'"{cell}"' if "," in str(cell) else str(cell)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        kind: What its cells are; ``drop``: it is left out of the model.
        why: The reason, in words.
        missing: How many cells were missing in the data that the schema was made of.
        observed: How many were not.
        dtype: pandas' type of the cells, which is given back.
        levels: The values that a boolean, category or ordinal column has, in order; the one of a constant column.
        pooled: Rare values of a category, which are one level together, the last of `levels`.
        spike: The value that many cells of a ``spike`` column share.
        log: Whether numbers are the logarithms of cells, those of a spike apart.
        decimals: Decimal places that numbers are written with; None where they have many.
        day_first: Whether the day comes before the month in dates of text such as 03/04/2020.
        every: The longest of pandas' periods D, h, min, s and ms of which all dates are whole ones; empty: of none.
        form: How text has its dates, in `strftime`'s words; empty: in several forms, which are written as ISO 8601.
        center: The cell, or its logarithm or day, that stands as 0.
        unit: What stands as 1 from there.
        scaling: Whether numbers stay as they are by center and unit, or are then brought to normal scores.
        knots: For that, numbers by center and unit.
        scores: What stands for them; between and beyond them the way is linear.
        given: Whether the model is conditioned on it, in place of describing it.
    """

    name: str
    kind: Kind
    why: str = "as the schema says"
    missing: int = 0
    observed: int = 0
    dtype: str = "float64"
    levels: tuple[Level, ...] = ()
    pooled: tuple[Level, ...] = ()
    spike: float | None = None
    log: bool = False
    decimals: int | None = None
    day_first: bool = False
    every: str = ""
    form: str = ""
    center: float = 0.0
    unit: float = 1.0
    scaling: Scaling = "standard"
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    given: bool = False

    @property
    def is_modeled(self) -> bool:
        """Whether the model describes it."""
        return self.kind != "drop" and not self.given

    @property
    def described(self) -> str:
        """Kind and number of levels or knots, as a model's settings have them.

        Example:
            >>> Column("zip", "category", levels=("01", "02")).described
            'category 2'
        """
        count = len(self.levels or self.knots)
        return f"{self.kind} {count}" if count else self.kind


@dataclass(frozen=True)
class Schema:
    """What the columns of a table are.

    Attributes:
        columns: All of them, in the table's order.
        missing: Words in the file that stand for a missing cell, beside those that always do.
        separator: What stands between cells of text; None: it is found out.
        decimal: The decimal mark of text; None: it is found out.
    """

    columns: tuple[Column, ...]
    missing: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None

    @property
    def modeled(self) -> tuple[Column, ...]:
        """The columns that the model describes."""
        return tuple(column for column in self.columns if column.is_modeled)

    @property
    def dropped(self) -> tuple[Column, ...]:
        """The columns that are left out."""
        return tuple(column for column in self.columns if column.kind == "drop")

    @property
    def constants(self) -> tuple[Column, ...]:
        """Those of them that have one value in all rows."""
        return tuple(column for column in self.dropped if len(column.levels) == 1 and not column.missing)

    @property
    def given(self) -> "Schema":
        """The schema of the columns that the model is conditioned on: here they are the modeled ones.

        Example:
            >>> schema = Schema((Column("city", "category", levels=("a", "b"), given=True), Column("age", "real")))
            >>> schema.described, schema.given.described
            (('real',), ('category 2',))
        """
        return replace(self, columns=tuple(replace(column, given=False) for column in self.columns if column.given))

    @property
    def kept(self) -> tuple[Column, ...]:
        """The columns that are not left out: the modeled and the given ones, in the table's order."""
        return tuple(column for column in self.columns if column.kind != "drop")

    def conditioned_on(self, names: Sequence[str]) -> "Schema":
        """The schema with these columns, and no others, as the condition c of p(x|c).

        Raises:
            InputError: One is not there or left out, or none would remain to be modeled.
        """
        found = {column.name: column for column in self.columns}
        for name in names:
            if name not in found:
                raise InputError(f"`condition`: there is no column {name!r}; the columns are {', '.join(found)}")
            if found[name].kind == "drop":
                raise InputError(
                    f"`condition`: column {name!r} is left out ({found[name].why}): give it another kind in `columns`, "
                    "or condition on another column"
                )
        schema = replace(self, columns=tuple(replace(column, given=column.name in names) for column in self.columns))
        if not schema.modeled:
            raise InputError("`condition` names all columns, and none is left to be modeled: leave one out of it")
        return schema

    @property
    def described(self) -> tuple[str, ...]:
        """Kind and number of levels of each modeled column."""
        return tuple(column.described for column in self.modeled)

    def units(self) -> dict[str, Tensor]:
        r"""What turns a density of the numbers into one of the cells, see :class:`subo.parts.columns.Columns`.

        Returns:
            ``shift`` and ``slope``, with :math:`\log |dt / dy| = -(shift + slope \cdot t)`: ``log unit`` and, since
            ``log cell = center + unit * t``, ``center`` and ``unit`` of logarithms beside it; and ``unseen``, the
            probability of a new level after N cells without one, ``1 / (N + 2)`` by Laplace's rule of succession. Where
            columns have knots also ``knots`` and ``scores``, as many for each: linear tails go on.
        """
        columns = self.modeled
        shift = [math.log(column.unit) + column.center * column.log for column in columns]
        slope = [column.unit * column.log for column in columns]
        unseen = [1 / (column.observed + 2) for column in columns]
        units = {"shift": torch.tensor(shift), "slope": torch.tensor(slope), "unseen": torch.tensor(unseen)}
        if most := max(len(column.knots) for column in columns):
            units["knots"] = torch.tensor([_continued(column.knots, most) for column in columns])
            units["scores"] = torch.tensor([_continued(column.scores, most) for column in columns])
        return units

    def as_json(self) -> dict[str, Any]:
        """In JSON's types."""
        lists = [{name: list(getattr(column, name)) for name in _LISTS} for column in self.columns]
        columns = [{**asdict(column), **own} for column, own in zip(self.columns, lists, strict=True)]
        return {"columns": columns, "missing": [*self.missing], "separator": self.separator, "decimal": self.decimal}

    @classmethod
    def from_json(cls, stored: Any, *, where: str = "the schema") -> "Schema":
        """Reads what :meth:`as_json` gave; only the columns are needed, and of each its name and its kind.

        Raises:
            InputError: It is not a schema; says which column is wrong and how.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(stored, Mapping) or not {"columns"} <= {*stored} <= {*known}:
            others = ", ".join(known[1:])
            raise InputError(f"{where} is not a schema: expected a record of columns, and perhaps {others}")
        records, words = stored["columns"], stored.get("missing") or ()
        if not isinstance(records, list | tuple) or not isinstance(words, list | tuple):
            raise InputError(f"{where} is not a schema: columns and missing are lists")
        marks = {name: stored.get(name) for name in ("separator", "decimal")}
        if any(not isinstance(mark, str | None) for mark in marks.values()) or any(map(_is_no_word, words)):
            raise InputError(f"{where} is not a schema: missing, separator and decimal are text")
        columns = tuple(_column(record, f"{where}, column {number}") for number, record in enumerate(records, 1))
        names = [column.name for column in columns]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{where} has two columns of the name {twice[0]!r}")
        return cls(columns, missing=tuple(words), **marks)

    def save(self, path: Path) -> None:
        """Writes the schema as JSON, to be changed and given back."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path) -> "Schema":
        """Reads a schema from JSON, or from the ``config.json`` of a run, which holds that of its table."""
        found = read_json(path)
        of_run = found
        for name in ("data", "meaning", "table"):
            of_run = of_run.get(name) if isinstance(of_run, dict) else None
        return cls.from_json(found if of_run is None else of_run, where=str(path))


def _continued(values: Sequence[float], size: int) -> list[float]:
    """As many values, which go on in the last step; 0, 1, ... of none."""
    known = [*values] or [0.0, 1.0]
    return known + [known[-1] + k * (known[-1] - known[-2]) for k in range(1, size - len(known) + 1)]


def _is_no_word(value: Any) -> bool:
    return not isinstance(value, str)


_LISTS = ("levels", "pooled", "knots", "scores")

_TYPES: dict[str, Any] = {
    "name": str, "why": str, "dtype": str, "scaling": str, "every": str, "form": str, "missing": int, "observed": int,
    "log": bool, "day_first": bool, "given": bool, "decimals": int | None,
    "center": int | float, "unit": int | float, "spike": int | float | None,
}  # fmt: skip


def _column(record: Any, where: str) -> Column:
    """A column of a record that was read."""
    known = [field.name for field in fields(Column)]
    if not isinstance(record, dict) or not {"name", "kind"} <= {*record}:
        raise InputError(
            f'{where}: expected a record with a name and a kind, such as {{"name": "age", "kind": "real"}}'
        )
    if others := [name for name in record if name not in known]:
        raise InputError(f"{where} has {others[0]!r}, which no column has; expected some of {', '.join(known)}")
    if record["kind"] not in get_args(Kind):
        known_kinds = ", ".join(get_args(Kind))
        raise InputError(f"{where}: the kind {record['kind']!r} does not exist: give one of {known_kinds}")
    for name, kind in _TYPES.items():
        if name in record and (not isinstance(record[name], kind) or isinstance(record[name], bool) != (kind is bool)):
            raise InputError(f"{where}: {name} cannot be {record[name]!r}")
    levels, pooled = record.get("levels", ()), record.get("pooled", ())
    for name, values in (("levels", levels), ("pooled", pooled)):
        if not isinstance(values, list | tuple) or not all(isinstance(level, Level) for level in values):
            raise InputError(f"{where}: {name} are a list of values, not {values!r}")
    if len({*levels, *pooled}) < len(levels) + len(pooled):
        raise InputError(f"{where}: each level is given once, not {[*levels, *pooled]!r}")
    if pooled and not levels:
        raise InputError(f"{where}: pooled values are one level, the last of its levels: name these, too")
    if not 0 < record.get("unit", 1) < math.inf:
        raise InputError(f"{where}: the unit must be above 0 and finite, not {record['unit']}")
    if not math.isfinite(record.get("center", 0)):
        raise InputError(f"{where}: the center must be finite, not {record['center']}")
    if record.get("scaling", "standard") not in get_args(Scaling):
        raise InputError(f"{where}: the scaling must be standard or quantile, not {record['scaling']!r}")
    known, scores = record.get("knots") or [], record.get("scores") or []
    if not _increase(known) or not _increase(scores) or len(known) != len(scores) or len(known) == 1:
        raise InputError(f"{where}: knots and scores are equally many numbers that increase, at least two or none")
    if record.get("every", "") not in ("", *PERIODS):
        raise InputError(f"{where}: every must be one of {', '.join(PERIODS)}, or empty, not {record['every']!r}")
    if record["kind"] == "date" and record.get("decimals") == 0:  # how whole days were said before there was `every`
        record = {**record, "decimals": None, "every": "D"}
    lists = {"levels": tuple(levels), "pooled": tuple(pooled), "knots": tuple(known), "scores": tuple(scores)}
    return Column(**{"log": record["kind"] == "positive", **record, **lists})


def _increase(values: Any) -> bool:
    """Whether these are finite numbers, each larger than the one before."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
        return False
    return all(map(math.isfinite, values)) and all(a < b for a, b in pairwise(values))
