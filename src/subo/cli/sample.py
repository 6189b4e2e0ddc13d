"""The command ``sample``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from subo.cli.arguments import RunPath, check_apart, check_ending
from subo.cli.beside_data import say_beside_data, say_full_rows
from subo.cli.forecast import _ENTRY
from subo.cli.given import cells_given, context_of_samples
from subo.cli.messages import say
from subo.cli.rows import endings_of, is_of_sequences, say_quoted, units_of
from subo.data.saving import save_array, save_sequences
from subo.errors import InputError
from subo.models.folding import check_samples, draw_data
from subo.runtime.wording import counted

__all__ = ["sample", "sample_sequences"]

_NAMED = 20  # classes


def sample(
    run: RunPath,
    /,
    *,
    out: Path,
    num: Annotated[int | None, Parameter(alias="-n")] = None,
    label: str | None = None,
    given: str | None = None,
    size: float | None = None,
    steps: int | None = None,
    mean: bool | None = None,
    missing: bool = False,
    seed: int = 0,
) -> None:
    """Draws data from a fitted model: z from the prior, then x from p(x|z).

    A model conditioned on classes (fit --condition labels) draws the same number from each class, one class after the
    other. One that is conditioned on columns of a table (fit --condition sex,age) draws from p(x|c) for the values of
    --given.

    Args:
        run: Run folder.
        out: Output file: .npy, .csv, or .png; for a table of mixed columns .csv, .tsv, .parquet, .feather or .png. A
            model of dequantized data gives whole levels: its draws are rounded down.
        num: Total number of samples; by default 64, or 8 of each class for a conditional model.
        label: Name of the only class to sample from.
        given: Values of all columns that the model is conditioned on, such as sex=female,age=40, written as in the
            data; nothing after = is a missing cell. A pair that holds a comma is put in double quotes.
        size: Size of every sample, for a model fitted with --size-factor, in the units of the data: the total that is
            expected, or a number as in the column. By default each sample has that of a training row, drawn at random.
        steps: Length of sequences, which are written to .npz, .csv or .png; by default the mean length in training.
        mean: Give E[x|z], the default for pictures of images and curves, instead of a draw from p(x|z), the default for
            files, which has the noise of p(x|z); a picture of sequences has both by default. If the data were
            dequantized, means are in levels: E[x|z] - 1/2.
        missing: For a table of mixed columns: leave out the cells that a training row lacks, drawn at random for each
            sample, whatever its values; by a model of the missing cells (fit --missing-model), as it says.
        seed: Seed for the draws.
    """
    from subo.experiments import experiment as experiments
    from subo.models.folding import draw_data
    from subo.report.class_pictures import class_names
    from subo.runtime.randomness import forked

    check_apart(out, run)
    experiment = experiments.open_run(run)
    if is_of_sequences(experiment):
        _check_of_sequences(experiment, label=label, given=given)
        sample_sequences(experiment, out, num=num or 64, steps=steps, mean=mean, seed=seed)
        return
    ending = check_ending(out, *endings_of(experiment))
    if steps is not None:
        raise InputError("--steps is the length of sequences, but this run's data are not sequences: leave it out")
    model = experiment.objective.model
    data, elements = experiment.config.data, math.prod(experiment.config.data.event_shape)
    _check_room(num or 64, elements, experiment.config)
    table, cells = data.meaning.table, cells_given(given, experiment.config, label=label)
    mean = (ending == ".png" and table is None) if mean is None else mean
    classes = class_names(model, experiment.class_names())
    labels = _labels_to_draw(classes or (), num, label)
    count = num or 64 if labels is None else len(labels)
    known = context_of_samples(cells, labels, size, experiment, count=count, seed=seed)
    with forked(seed):
        x = draw_data(model, count, known, elements=elements, mean=mean)
    x = _with_gaps(x, experiment, known, seed=seed) if missing else x
    if ending == ".png":
        _draw(out, x, experiment, classes=None if label is not None else classes, drawn=not mean)
    elif table is not None:
        _save_rows(out, x, table, cells, known)
    else:
        _save_numbers(out, x, experiment.config, drawn=not mean)
    of_class = ("" if label is None else f" of class {label}") + ("" if given is None else f" given {given}")
    say(f"{counted(count, 'sample')}{of_class} written to {out}{_in_order(classes) if label is None else ''}")
    left = [] if table is None else [column.name for column in table.dropped if column not in table.constants]
    if left and ending != ".png":
        say(f"left out, as in the fit: {', '.join(left)}")
    say_beside_data(experiment, x, table)
    if not missing:
        say_full_rows(experiment, table)


def _save_rows(out: Path, x: Any, table: Any, cells: Any, known: Any) -> None:
    """Writes rows of a table, with the cells that they were given and the columns of one value."""
    from subo.data.tables.coding import decode, with_constants
    from subo.data.tables.given import with_given
    from subo.data.tables.writing import save_frame

    rows = decode(x, table) if cells is None or known is None else with_given(x, table, cells, known["given"])
    say_quoted(save_frame(out, with_constants(rows, table), table), out)


def _with_gaps(x: Any, experiment: Any, known: Any, *, seed: int) -> Any:
    """Rows of a table without some cells: those that the model of missing cells, or else a training row, leaves out."""
    from subo.data.tables.filling import with_gaps_of
    from subo.evaluation.imputation import with_own_gaps

    if experiment.config.data.meaning.table is None:
        raise InputError("--missing leaves out cells of a table of mixed columns, which this run's data are not")
    if experiment.config.models_missing:
        return with_own_gaps(experiment.objective.model, x, known, seed=seed)
    return with_gaps_of(x, experiment.data().train.x, seed=seed)


def _save_numbers(out: Path, x: Any, config: Any, *, drawn: bool) -> None:
    """Writes samples of numbers of one kind; draws from a likelihood of whole numbers as such."""
    from subo.experiments.units import kind_of_log_px, without_noise

    whole = drawn and kind_of_log_px(config) == "probability"
    save_array(out, without_noise(x, config, drawn=drawn), names=config.data.meaning.feature_names, whole=whole)


def _check_room(num: int, elements: int, config: Any) -> None:
    """Refuses more samples than memory holds."""
    from subo.models.folding import check_samples
    from subo.parts.registry import is_over_classes

    bytes_each = 8 if is_over_classes(config.likelihood) else 4
    bytes_each += 4 + 1 if config.data.dequantize else 0  # rounded down, and as bytes
    check_samples(num, elements, bytes_each * elements, remedy="Lower --num.")


def _check_of_sequences(experiment: Any, *, label: str | None, given: str | None) -> None:
    """Refuses a class or a condition, which models of sequences do not have."""
    if label is not None:
        raise InputError(f"--label {label} asks for one class, but models of sequences have none: leave it out")
    cells_given(given, experiment.config, label=None)


def _in_order(classes: Sequence[str] | None) -> str:
    """What is said of samples of all classes, one after the other."""
    if classes is None:
        return ""
    named = f" ({', '.join(classes)})" if len(classes) <= _NAMED else ""
    return f", as many of each of {len(classes)} classes in order{named}"


def _draw(out: Path, x: Any, experiment: Any, *, classes: Sequence[str] | None, drawn: bool) -> None:
    """Draws samples, or their means: images and vectors one by one, columns of a table beside the data."""
    from subo import figures
    from subo.report.class_pictures import first_rows
    from subo.report.pictures import shading
    from subo.report.table_pictures import draw_columns

    data = experiment.config.data
    if (table := data.meaning.table) is not None:
        figures.save(draw_columns(experiment.data().test, x, table), out)
        return
    shade = shading(_range_of(x, data.meaning), levels=data.levels if data.dequantize else None)
    x, rows = (x, None) if classes is None else first_rows(x, classes)
    names, units = data.meaning.feature_names, units_of(experiment)
    figures.save(figures.samples(shade(x), feature_names=names, units=units, drawn=drawn, classes=rows), out)


def _labels_to_draw(classes: Sequence[str], num: int | None, label: str | None) -> Any:
    """The class of each sample, for a conditional model; equal numbers of all unless one is named."""
    import torch

    from subo.report.class_pictures import labels_in_rows

    num_classes = len(classes)
    if num_classes == 0:
        if label is not None:
            raise InputError(
                f"--label {label} asks for one class, but this run's model is not conditional: it was fitted without "
                "--condition labels."
            )
        return None
    if label is not None:
        if label not in classes:
            numbers = list(classes) == [str(number) for number in range(num_classes)]
            known = f"0 to {num_classes - 1}" if numbers else ", ".join(classes)
            raise InputError(f"--label must be one of the classes {known} of this run, not {label}")
        return torch.full((num or 64,), list(classes).index(label))
    if num is not None and num % num_classes:
        raise InputError(
            f"--num {num} cannot be divided equally among the {num_classes} classes: give "
            f"{-(-num // num_classes) * num_classes}, or name one class with --label"
        )
    return labels_in_rows(num_classes, 8 if num is None else num // num_classes)


def _range_of(x: Any, meaning: Any) -> Any:
    """The values for black and white: the ends of the run's levels for any samples; for numbers their own range.

    Args:
        x: Samples to draw.
        meaning: Meaning of the run's data.
    """
    if not meaning.pixels or x.ndim < 3:
        return x
    return x.new_tensor([0, meaning.levels if meaning.whole else 1]).reshape(2, *(1 for _ in x.shape[1:]))


_DRAWN = 8  # samples in a picture


def sample_sequences(experiment: Any, out: Path, *, num: int, steps: int | None, mean: bool | None, seed: int) -> None:
    """Draws sequences of one length, by default that of a typical one in training; a picture has their means beside."""
    from subo import figures
    from subo.report.sequence_pictures import draw_sequence_samples
    from subo.runtime.randomness import forked

    ending = check_ending(out, ".npz", ".csv", ".png")
    data, model = experiment.config.data, experiment.objective.model
    length = steps or round(data.steps["train"] / data.sizes["train"])
    elements = length * math.prod(data.event_shape)
    num = min(num, _DRAWN) if ending == ".png" else num
    check_samples(num, elements, 4 * elements + _ENTRY, remedy="Lower --num or --steps.")
    if ending == ".png":
        figures.save(draw_sequence_samples(model, length=length, num=num, drawn=not mean, seed=seed), out)
    else:
        known = {"mask": torch.ones(1, length, dtype=torch.bool).expand(num, length)}
        with forked(seed):
            x = draw_data(model, num, known, elements=elements, steps=length, mean=bool(mean))
        save_sequences(out, x.flatten(0, 1), [length] * num)
    say(f"{counted(num, 'sequence')} of {counted(length, 'step')} written to {out}")
