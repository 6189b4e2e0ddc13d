"""A fitted run and the data that a command receives for it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from subo.cli.arguments import ReadOptions
from subo.cli.messages import say
from subo.data.loading import load_rows
from subo.data.on_disk import can_stay_on_disk
from subo.data.splits import Split
from subo.data.support import check_support, in_support, outside_cells
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.runtime.wording import counted

__all__ = ["is_of_sequences"]

_NAMED = 5  # columns


def run_and_rows(
    run: Path,
    source: str,
    how: ReadOptions,
    *,
    scored: bool = False,
    on_frame: Callable[[Any], object] | None = None,
) -> tuple[Any, Split]:
    """A run and data for it, binarized or dequantized as the run's were, of its shape; says which have no density."""
    from subo.experiments import experiment as experiments
    from subo.experiments.units import in_levels
    from subo.parts.labels import check_labels, num_labels_of

    experiment = experiments.open_run(run)
    asked = experiment.config.data
    file = {name: value for name in ("missing", "separator", "decimal") if (value := getattr(how, name))}
    if file and asked.meaning.table is None:
        raise InputError(f"--{next(iter(file))} says how a table of mixed columns is read, which {run}'s data are not")
    split = load_rows(
        source,
        part=how.part,
        data_dir=how.data_dir or (Path(asked.data_dir) if asked.data_dir else None),
        binarize=asked.binarize,
        dequantize=asked.dequantize,
        seed=asked.seed,
        table=TableOptions(**file),
        meaning=replace(experiment.config.data.meaning, class_names=experiment.class_names()),
        on_disk=True if asked.on_disk and can_stay_on_disk(source) else None,
        note=say,
        on_frame=on_frame,
    )
    split = in_levels(split, experiment.config)
    num_labels = num_labels_of(experiment.objective.model)
    if num_labels is not None:
        check_labels(split.labels, num_labels, names=split.class_names, where=source)
    inside = in_support(experiment.objective.model, split, where=source)
    if not inside.all():
        if not scored and experiment.config.options.get("inference", "amortized") != "amortized":
            check_support(experiment.objective.model, split, where=source)  # their q is fitted through p(x|z)
        outside = (~inside).nonzero()[:, 0]
        say(
            f"Careful: {len(outside):,} of {len(split):,} contain values outside the support of the run's likelihood "
            f"({experiment.config.likelihood}), the first is number {int(outside[0]) + 1} (counted from 1)"
            f"{_by_column(experiment, split)}: their log p(x) is -inf, and their latents are meaningless"
        )
    return experiment, split


def are_own(experiment: Any, source: str) -> bool:
    """Whether data come from where those of the run did."""
    return experiment.config.data.source in (source, str(Path(source).resolve()))


def _by_column(experiment: Any, split: Split) -> str:
    """How many cells of each column of a table its kind does not allow."""
    table = experiment.config.data.meaning.table
    if table is None:
        return ""
    counts = outside_cells(experiment.objective.model, split).sum(0).tolist()
    named = [f"{column.name!r} ({count:,})" for column, count in zip(table.modeled, counts, strict=True) if count]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f", in column{'s' * (len(named) > 1)} {', '.join(named[:_NAMED])}{more}"


def of_rows(split: Split) -> dict[str, Sequence[Any]]:
    """What identifies each line of a table: the row in its source, from 1, and its name and class if it has them."""
    rows = range(1, len(split) + 1) if split.rows is None else split.rows.tolist()
    known = {"row": rows, "name": split.names, "label": split.label_names()}
    return {name: values for name, values in known.items() if values is not None}


def endings_of(experiment: Any) -> tuple[str, ...]:
    """The endings of files that a run's rows are written to."""
    if experiment.config.data.meaning.table is None:
        return (".npy", ".csv", ".png")
    return (".csv", ".tsv", ".parquet", ".feather", ".png")


def save_rows(out: Path, x: Tensor, table: Schema, given: Tensor | None = None) -> None:
    """Writes coded rows, with the cells that they are conditioned on, as the table that they stand for."""
    from subo.data.tables.coding import decode
    from subo.data.tables.writing import save_frame

    say_quoted(save_frame(out, decode(x, table, given), table), out)


def say_quoted(count: int, out: Path) -> None:
    """Says that cells of a file of text begin with an apostrophe."""
    if count:
        say(
            f"{counted(count, 'cell')} of {out} that a spreadsheet would run as a formula, such as =1+1 or -a, "
            f"begin{'s' * (count == 1)} with an apostrophe; subo reads {'it' if count == 1 else 'them'} without"
        )


def units_of(experiment: Any) -> Any:
    """Mean and standard deviation of a table's columns, if its data are still available."""
    from subo.report.pictures import feature_units

    if len(experiment.config.data.event_shape) != 1:
        return None
    try:
        return feature_units(experiment.data())
    except InputError:
        return None


def is_of_sequences(experiment: Any) -> bool:
    """Whether a run's data are sequences."""
    return experiment.config.data.meaning.sequential


def names_of(split: Split) -> Sequence[str] | None:
    """The name of each sequence, or else its number in its file; None if they are all of them in order."""
    return split.names if split.names is not None or split.rows is None else [str(n) for n in split.rows.tolist()]


def lengths_of(split: Split) -> list[int]:
    assert split.lengths is not None
    return split.lengths.tolist()
