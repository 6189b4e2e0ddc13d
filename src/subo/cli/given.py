"""The options ``--given`` and ``--size`` of ``sample``: values of what a model is conditioned on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from subo.cli.arguments import separated
from subo.cli.messages import say
from subo.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from subo.runs.config import RunConfig

__all__ = ["cells_given", "context_of_samples"]


def cells_given(text: str | None, config: "RunConfig", *, label: str | None) -> "pd.DataFrame | None":
    """The row of cells that samples are given; None for a model that is not conditioned on columns.

    Args:
        text: Pairs such as ``sex=female,age=40``, as the command line has them.
        config: What the run is.
        label: The class that was asked for, which is another condition.

    Raises:
        InputError: There is no such condition, a column is left out, or a value is not of its kind.
    """
    from subo.data.tables.given import given_cells

    meaning = config.data.meaning
    table = meaning.beside if meaning.table is None else meaning.table
    if table is None or not table.given.modeled:
        if text is not None:
            on_class = config.options.get("condition") == "labels"
            fitted = "on the class: name it with --label" if on_class else "on no columns: leave it out"
            raise InputError(f"--given {text} names columns, but this run's model is conditioned {fitted}.")
        return None
    if label is not None:
        raise InputError(
            f"--label {label} asks for one class, but this run's model is conditioned on columns ({config.given}): "
            "use --given."
        )
    return given_cells(_pairs(text, [column.name for column in table.columns]), table)


def _pairs(text: str | None, names: Sequence[str]) -> dict[str, str]:
    """Values by column; a column's name may hold ``=``."""
    pairs: dict[str, str] = {}
    for word in separated(text or ""):
        known = [name for name in names if word.startswith(name) and word[len(name) :].lstrip().startswith("=")]
        name = max(known, key=len, default=word.partition("=")[0].strip())
        rest = word[len(name) :].lstrip() if known else "=" + word.partition("=")[2]
        if "=" not in word or not name:
            raise InputError(
                f"--given takes pairs such as sex=female,age=40; received {word!r}. A pair that holds a comma is put "
                "in double quotes."
            )
        if name in pairs:
            raise InputError(f"--given has two values for {name}: give one.")
        pairs[name] = rest[1:].strip()
    return pairs


def context_of_samples(
    cells: "pd.DataFrame | None",
    labels: "Tensor | None",
    size: float | None,
    experiment: Any,
    *,
    count: int,
    seed: int,
) -> "dict[str, Tensor] | None":
    """What samples are given: their classes, cells and sizes; None if the model is conditioned on nothing.

    Args:
        cells: The row of cells of the condition.
        labels: The class of each sample.
        size: Their size in the units of the data; None for those of training rows at random.
        experiment: The run.
        count: Number of samples.
        seed: Seed for the choice of sizes.
    """
    import torch

    from subo.data.tables.coding import encode
    from subo.data.tables.given import unlearned
    from subo.runtime.randomness import stream

    meaning, known = experiment.config.data.meaning, {} if labels is None else {"label": labels}
    if cells is not None and meaning.given is not None:
        known["given"] = encode(cells, meaning.given).expand(count, -1)
        for caution in unlearned(known["given"], meaning.beside or meaning.table):
            say(caution)
    if meaning.sizes is None:
        if size is not None:
            raise InputError(f"--size {size:g} is for models with a size factor, and this run has none: leave it out")
    elif size is not None:
        known["size"] = torch.full((count,), size / meaning.sizes.unit)
    else:
        those = experiment.data().train.context["size"]
        known["size"] = those[torch.randint(len(those), (count,), generator=stream("sizes", seed))]
    return known or None
