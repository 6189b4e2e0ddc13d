"""What is said of drawn and filled cells of a table beside the rows that its model was trained on."""

import shlex
from typing import TYPE_CHECKING, Any

from subo.cli.messages import say
from subo.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["say_beside_data", "say_full_rows"]

_NUMBERS = ("real", "positive", "count", "spike")
_BEYOND = 0.5  # of the training rows' range
_LISTED = 5


def say_beside_data(experiment: Any, x: "Tensor", table: Any, *, what: str = "samples") -> None:
    """Says where samples differ from the training rows, if these are still there.

    Args:
        experiment: The run.
        x: Coded samples; NaN for cells of which nothing is to be said.
        table: The schema, None for data that are not a table of mixed columns.
        what: What the samples are called.
    """
    train = _training_rows(experiment, table)
    if train is None:
        return
    columns = {
        column: (_known(x[:, number], column), _known(train[:, number], column))
        for number, column in enumerate(table.modeled)
        if column.kind in _NUMBERS
    }
    both = {column: parts for column, parts in columns.items() if all(map(len, parts))}
    for sentence in (*_beyond_zero(both), *_far_away(both)):
        say(f"Careful: some {what} {sentence}")


def say_full_rows(experiment: Any, table: Any) -> None:
    """Says that samples have all cells, where training rows lack some."""
    train = _training_rows(experiment, table)
    if train is not None and (share := float(train.isnan().double().mean())) > 0:
        say(f"no cell of the samples is empty, while {share:.2g} of the training cells are; --missing leaves some out")


def _training_rows(experiment: Any, table: Any) -> "Tensor | None":
    """Those of a table, if they are still there."""
    if table is None or experiment.config.data.on_disk:
        return None
    try:
        return experiment.data().train.x
    except InputError:
        return None


def _known(x: "Tensor", column: Any) -> "np.ndarray":
    """The cells of a column in its own units, but for missing ones."""
    import numpy as np

    from subo.data.tables.coding import unscaled

    coded = x[~x.isnan()].double().cpu().numpy()
    cells = unscaled(coded, column)
    cells = np.exp(cells) if column.log else cells
    if column.kind == "spike":
        cells = np.where(np.isinf(coded), column.spike, cells)
    return cells if column.decimals is None else cells.round(column.decimals)


def _beyond_zero(columns: Any) -> list[str]:
    """Which real columns have samples on the side of 0 where no training row is."""
    real = {column: parts for column, parts in columns.items() if column.kind == "real"}
    below = {column: (drawn < 0).mean() for column, (drawn, train) in real.items() if train.min() >= 0}
    above = {column: (drawn > 0).mean() for column, (drawn, train) in real.items() if train.max() <= 0}
    sentences = []
    for side, shares in (("below", below), ("above", above)):
        named = [f"{column.name} ({share:.2g} of them)" for column, share in shares.items() if share > 0]
        if named:
            kinds = {column.name: _kind_above(column, real[column][1]) for column, share in shares.items() if share > 0}
            pairs = ",".join(f"{name}={kind}" for name, kind in kinds.items() if kind is not None)
            remedy = f". A fit with --columns {shlex.quote(pairs)} rules that out" if pairs and side == "below" else ""
            sentences.append(f"are {side} 0, where no training row is: {', '.join(named)}{remedy}")
    return sentences


def _kind_above(column: Any, train: "np.ndarray") -> str | None:
    """The kind without numbers below 0 that a column can be; None where there is none for its cells."""
    if column.decimals == 0:
        return "count"
    return "positive" if train.min() > 0 else None


def _far_away(columns: Any) -> list[str]:
    """In which columns samples lie beyond all training rows by more than half of their range."""
    found = []
    for column, (drawn, train) in columns.items():
        reach = _BEYOND * (train.max() - train.min())
        if drawn.max() > train.max() + reach:
            found.append(f"{column.name} up to {drawn.max():.7g} (data up to {train.max():.7g})")
        elif drawn.min() < train.min() - reach:
            found.append(f"{column.name} down to {drawn.min():.7g} (data down to {train.min():.7g})")
    if not found:
        return []
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"lie far beyond all training rows: {', '.join(found[:_LISTED])}{more}"]
