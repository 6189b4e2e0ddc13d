"""What a fit takes the columns of a table for, as text."""

from subo.cli.messages import say
from subo.data.tables.schema import Column, Schema

__all__ = ["say_schema"]

_WIDTH = 30  # letters of a name


def say_schema(schema: Schema) -> None:
    """Prints a line for each column: its kind, why, how many cells are missing, and what is done with it."""
    rows = [("column", "kind", "missing", "modeled as", "because"), *map(_row, schema.columns)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for cells in rows:
        say("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    say("  another kind: --columns NAME=KIND,NAME=KIND; drop leaves a column out")


def _row(column: Column) -> tuple[str, ...]:
    total = column.missing + column.observed
    missing = f"{column.missing / total:.1%}" if column.missing else ""
    name = column.name if len(column.name) <= _WIDTH else f"{column.name[: _WIDTH - 1]}…"
    modeled = _MODELED[column.kind].format(len(column.levels))
    if column.given:
        modeled = "the condition"
    elif column.kind == "spike":
        modeled = f"{column.spike:g}, or {'log-normal' if column.log else 'normal'}"
    if column.knots and not column.given:
        modeled += ", of normal scores"
    return name, column.kind, missing, modeled, column.why


_MODELED = {
    "real": "Student t",
    "positive": "log-normal",
    "count": "negative binomial",
    "boolean": "2 levels, or a new one",
    "category": "{} levels, or a new one",
    "ordinal": "{} levels in order, or a new one",
    "date": "Student t, of days",
    "spike": "",
    "drop": "left out",
}
