"""What is said of samples of a table beside the rows that its model was trained on."""

from typing import Any

import torch
from torch import Tensor

from subo.cli.messages import say
from subo.errors import InputError

__all__ = ["say_beside_data"]

_BEYOND = 0.5  # of the training rows' range
_LISTED = 5


def say_beside_data(experiment: Any, x: Tensor, table: Any, *, with_gaps: bool) -> None:
    """Says where samples differ from the training rows, if these are still there.

    Args:
        experiment: The run.
        x: Coded samples.
        table: The schema, None for data that are not a table of mixed columns.
        with_gaps: Whether the samples lack cells.
    """
    if table is None or experiment.config.data.on_disk:
        return
    try:
        train = experiment.data().train.x
    except InputError:
        return
    for sentence in (*_below_zero(x, train, table), *_far_away(x, train, table)):
        say(f"Careful: {sentence}")
    share = float(train.isnan().double().mean())
    if share > 0 and not with_gaps:
        say(f"no cell of the samples is empty, while {share:.2g} of the training cells are; --missing leaves some out")


def _below_zero(x: Tensor, train: Tensor, table: Any) -> list[str]:
    """Which real columns have samples below 0 and no such training row."""
    named = [column.name for column in table.modeled if column.kind == "real"]
    (lowest, _), drawn = _ends(train, table), _decoded(x, table)
    shares = {name: float((drawn[name] < 0).mean()) for name in named if lowest[name] >= 0}
    if not (found := [f"{name} ({share:.2g} of them)" for name, share in shares.items() if share > 0]):
        return []
    return [
        f"some samples are below 0, where no training row is: {', '.join(found)}. A fit with --columns NAME=count "
        "(whole numbers) or NAME=positive (above 0) rules that out"
    ]


def _far_away(x: Tensor, train: Tensor, table: Any) -> list[str]:
    """In which columns of numbers samples lie beyond all training rows by more than half of their range."""
    found = []
    (lowest, highest), (low, high) = _ends(train, table), _ends(x, table)
    for column in table.modeled:
        name = column.name
        if column.kind not in ("real", "positive", "count", "spike"):
            continue
        reach = _BEYOND * (highest[name] - lowest[name])
        if high[name] > highest[name] + reach:
            found.append(f"{name} up to {high[name]:.7g} (data up to {highest[name]:.7g})")
        elif low[name] < lowest[name] - reach:
            found.append(f"{name} down to {low[name]:.7g} (data down to {lowest[name]:.7g})")
    if not found:
        return []
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"some samples lie far beyond all training rows: {', '.join(found[:_LISTED])}{more}"]


def _ends(x: Tensor, table: Any) -> tuple[Any, Any]:
    """The lowest and the highest cell of each column, but for missing ones and spikes."""
    known = x.isfinite()
    rows = x.masked_fill(~known, torch.inf).amin(0), x.masked_fill(~known, -torch.inf).amax(0)
    return tuple(_decoded(row.masked_fill(~known.any(0), torch.nan)[None], table).iloc[0] for row in rows)  # pyright: ignore[reportReturnType]


def _decoded(x: Tensor, table: Any) -> Any:
    from subo.data.tables.coding import decode

    return decode(x, table)
