"""What is said of samples of a table beside the rows that its model was trained on."""

from typing import TYPE_CHECKING, Any

from subo.cli.messages import say
from subo.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["say_beside_data"]

_NUMBERS = ("real", "positive", "count", "spike")
_BEYOND = 0.5  # of the training rows' range
_LISTED = 5


def say_beside_data(experiment: Any, x: "Tensor", table: Any, *, with_gaps: bool) -> None:
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
    columns = {
        column: (_known(x[:, number], column), _known(train[:, number], column))
        for number, column in enumerate(table.modeled)
        if column.kind in _NUMBERS
    }
    both = {column: parts for column, parts in columns.items() if all(map(len, parts))}
    for sentence in (*_below_zero(both), *_far_away(both)):
        say(f"Careful: {sentence}")
    share = float(train.isnan().double().mean())
    if share > 0 and not with_gaps:
        say(f"no cell of the samples is empty, while {share:.2g} of the training cells are; --missing leaves some out")


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


def _below_zero(columns: Any) -> list[str]:
    """Which real columns have samples below 0 and no such training row."""
    shares = {
        column.name: float((drawn < 0).mean())
        for column, (drawn, train) in columns.items()
        if column.kind == "real" and train.min() >= 0
    }
    if not (found := [f"{name} ({share:.2g} of them)" for name, share in shares.items() if share > 0]):
        return []
    zeros = any(bool((train == 0).any()) for column, (_, train) in columns.items() if shares.get(column.name, 0) > 0)
    above = "NAME=spike (some 0, others above)" if zeros else "NAME=positive (above 0)"
    return [
        f"some samples are below 0, where no training row is: {', '.join(found)}. A fit with --columns NAME=count "
        f"(whole numbers) or {above} rules that out"
    ]


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
    return [f"some samples lie far beyond all training rows: {', '.join(found[:_LISTED])}{more}"]
