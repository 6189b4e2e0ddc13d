"""What ``evaluate --full`` prints: one table, and what it means in sentences."""

import shutil
from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import fill
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from subo.digits import in_digits

if TYPE_CHECKING:
    from subo.evaluation.numbers import Number

__all__ = ["print_numbers"]

_NARROWEST, _USUAL, _WIDEST = 80, 100, 120  # columns: below the usual an estimator has a line of its own


def print_numbers(title: str, numbers: Iterable["Number"], sentences: Sequence[str]) -> None:
    """Prints a line for each number under the question that it answers, then the sentences.

    Args:
        title: What was measured.
        numbers: The lines.
        sentences: What they mean.
    """
    print(f"{title}\n")
    columns = min(max(shutil.get_terminal_size((_USUAL, 24)).columns, _NARROWEST), _WIDEST)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("value", "right"), ("", "left"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
    narrow = columns < _USUAL
    if not narrow:
        table.add_column("estimator", overflow="fold")
    table.add_column("K", justify="right", no_wrap=True)
    table.add_column("data", justify="right", no_wrap=True)
    for section, lines in groupby(numbers, lambda number: number.section):
        table.add_row(Text(section, style="bold"))
        for line in lines:
            value, error = in_digits(line.value, line.standard_error)
            counts = ("" if count is None else f"{count:,}" for count in (line.num_samples, line.num_data))
            name, estimator = f"  {line.name}", [line.estimator]
            if narrow:
                name, estimator = f"{name}\n      {line.estimator}", []
            cells = (name, value, error and f"+- {error}", line.unit, *estimator, *counts)
            table.add_row(*map(Text, cells))
    Console(width=columns, highlight=False).print(table)
    for sentence in sentences:
        print(f"\n{fill(sentence, columns, break_on_hyphens=False)}")
