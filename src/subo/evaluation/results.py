"""How results are presented: as a text table, in a notebook, as plain values and as a data frame."""

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from subo.evaluation.numbers import Number
from subo.runtime.digits import in_digits

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Result", "Table", "flat", "rows_of", "with_error"]


@dataclass(frozen=True)
class Table:
    """What is shown of a result.

    Attributes:
        title: What is shown, for which data and in which unit.
        columns: Names of the columns; the first contains the names of the rows.
        rows: Cells of the rows.
        notes: Remarks on the numbers, one sentence or more each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def _filled(self) -> list[tuple[str, ...]]:
        """The non-empty columns, each with its header."""
        return [column for column in zip(self.columns, *self.rows, strict=True) if any(column[1:])]

    def text(self) -> str:
        """The table with aligned columns, without the empty ones.

        Example:
            >>> print(Table("Two models", ("", "log p(x)"), (("a", "-1.50"), ("b", "-12.25"))).text())
            Two models
               log p(x)
            a     -1.50
            b    -12.25
        """
        columns = self._filled()
        right = [_is_numeric(column[1:]) for column in columns]
        widths = [max(map(len, column)) for column in columns]
        aligned = [
            "  ".join(
                cell.rjust(width) if ends else cell.ljust(width)
                for cell, width, ends in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in zip(*columns, strict=True)
        ]
        return "\n".join((self.title, *aligned, *self.notes))

    def html(self) -> str:
        """The same for a notebook; all text is escaped."""

        def row(cells: Iterable[str], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in cells)}</tr>"

        header, *rows = zip(*self._filled(), strict=True)
        body = "".join(row(cells, "td") for cells in rows)
        notes = "".join(f"<p>{_escaped(note)}</p>" for note in self.notes)
        head = f"<caption>{_escaped(self.title)}</caption><thead>{row(header, 'th')}</thead>"
        return f"<table>{head}<tbody>{body}</tbody></table>{notes}"


class Result(ABC):
    """What was measured: a record defines what is shown of it, and its plain values."""

    @abstractmethod
    def table(self) -> Table:
        """What is shown."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The record in JSON types; None for what does not exist.

        Numbers that are not finite are the strings ``"-inf"``, ``"inf"`` and ``"nan"``, which ``float`` reads.
        """

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """The rows of :meth:`to_frame`, as plain values by the names of the columns."""

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def to_frame(self) -> "DataFrame":
        """The numbers as a pandas ``DataFrame``."""
        from pandas import DataFrame  # here, since it takes a second to import

        return DataFrame(self.records())


def with_error(value: float | None, standard_error: float | None = None) -> str:
    """A value and its error, both to two digits of the error.

    Example:
        >>> with_error(-22.3841, 0.2612), with_error(0.5), with_error(None)
        ('-22.38 ± 0.26', '0.5', '')
    """
    return "" if value is None else " ± ".join(filter(None, in_digits(value, standard_error)))


def rows_of(numbers: Iterable[Number], *, sections: bool = False) -> tuple[tuple[str, ...], ...]:
    """One row of six cells per number: its name, value with error, unit, estimator, K, number of examples.

    Args:
        numbers: The numbers.
        sections: Whether to put a row with the name of the section above each section.
    """
    numbers = list(numbers)
    digits = [in_digits(number.value, number.standard_error) for number in numbers]
    widths = [max((len(part[side]) for part in digits), default=0) for side in (0, 1)]
    rows: list[tuple[str, ...]] = []
    for section, lines in groupby(zip(numbers, digits, strict=True), lambda line: line[0].section):
        rows += [(section, *[""] * 5)] * sections
        for number, (value, error) in lines:
            shown = value.rjust(widths[0]) + (f" ± {error.ljust(widths[1])}" if error else " " * (widths[1] + 3))
            counts = ("" if count is None else f"{count:,}" for count in (number.num_samples, number.num_data))
            name = f"{'  ' * sections}{number.name}"
            rows.append((name, shown if any(widths[1:]) else value, number.unit, number.estimator, *counts))
    return tuple(rows)


def flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flattens a record: values of nested records get both names.

    Example:
        >>> flat({"epoch": 3, "train": {"elbo": -1.5}})
        {'epoch': 3, 'train_elbo': -1.5}
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= flat(value, f"{above}{name}_") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column contains numbers, which are right-aligned."""
    words = [cell.split()[0].lstrip("-+").replace(",", "") for cell in cells if cell.strip()]
    return bool(words) and all(word[:1].isdigit() or word in ("inf", "nan") for word in words)


def _escaped(text: str) -> str:
    """Text as HTML, with indentation preserved."""
    words = text.strip()
    indent = "&nbsp;" * (len(text) - len(text.lstrip())) if words else ""
    return indent + html.escape(words).replace("\n", "<br>")
