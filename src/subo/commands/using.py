"""Commands that use a fitted run: ``sample``, ``reconstruct``, ``encode`` and ``score``."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subo.commands.arguments import DataDir, DataPart, DataSource, RunPath, check_apart, check_ending
from subo.commands.sequences import encode_sequences, is_of_sequences, reconstruct_sequences, sample_sequences
from subo.data import Split
from subo.errors import InputError
from subo.messages import say
from subo.sources import Part, load_rows, save_array
from subo.support import check_support, in_support

__all__ = ["encode", "reconstruct", "sample", "score"]

_NAMED = 20  # classes


def sample(
    run: RunPath,
    /,
    *,
    out: Path,
    num: Annotated[int | None, Parameter(alias="-n")] = None,
    label: str | None = None,
    steps: int | None = None,
    mean: bool = False,
    seed: int = 0,
) -> None:
    """Draws data from a fitted model: z from the prior, then x from p(x|z).

    A model that is told the class of each datum (fit --condition labels) draws as many of every class, one class after
    the other.

    Args:
        run: Run folder.
        out: Where to: .npy, .csv, or .png. A model of dequantised data gives whole levels, its draws floored.
        num: How many in all; 64 by default, of a model that is told the class 8 of every class.
        label: Of this class alone, by its name.
        steps: Length of sequences, which go to .npz, .csv or .png; by default the mean length in training.
        mean: Give E[x|z] instead of a draw from p(x|z): smoother pictures, and no samples of the data. In levels where
            these were dequantised: E[x|z] - 1/2.
        seed: Of the draws.
    """
    from subo import experiments, figures
    from subo.class_pictures import class_names, first_rows
    from subo.pictures import shading
    from subo.randomness import forked
    from subo.sampling import check_samples, draw_data
    from subo.units import without_noise

    check_apart(out, run)
    experiment = experiments.open_run(run)
    if is_of_sequences(experiment):
        if label is not None:
            raise InputError(f"--label {label} asks for one class, and models of sequences are told none: leave it out")
        sample_sequences(experiment, out, num=num or 64, steps=steps, mean=mean, seed=seed)
        return
    ending = check_ending(out, ".npy", ".csv", ".png")
    if steps is not None:
        raise InputError("--steps is the length of sequences, and this run's data are none: leave it out")
    model = experiment.objective.model
    data, elements = experiment.config["data"], math.prod(experiment.config["data"]["event_shape"])
    bytes_each = 8 if experiment.config["options"]["likelihood"] == "categorical" else 4
    bytes_each += 4 + 1 if data["dequantize"] else 0  # floored, and as bytes
    check_samples(num or 64, elements, bytes_each * elements, mend="Lower --num.")
    classes = class_names(model, experiment.class_names())
    labels = _labels_to_draw(classes or (), num, label)
    known, count = (None, num or 64) if labels is None else ({"label": labels}, len(labels))
    with forked(seed):
        x = draw_data(model, count, known, elements=elements, mean=mean)
    names = experiment.meaning.feature_names
    if ending == ".png":
        units = _units(experiment)
        shade = shading(_range_of(x, experiment.meaning), levels=data["levels"] if data["dequantize"] else None)
        x, rows = (x, None) if classes is None or label is not None else first_rows(x, classes)
        figures.save(figures.samples(shade(x), feature_names=names, units=units, drawn=not mean, classes=rows), out)
    else:
        save_array(out, without_noise(x, experiment.config, drawn=not mean), names=names)
    of_class, by_class = "" if label is None else f" of class {label}", ""
    if classes is not None and label is None:
        named = f" ({', '.join(classes)})" if len(classes) <= _NAMED else ""
        by_class = f", as many of each of {len(classes)} classes in order{named}"
    say(f"{count} samples{of_class} written to {out}{by_class}")


def reconstruct(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    part: DataPart = "all",
    data_dir: DataDir = None,
) -> None:
    """Encodes data and decodes them again: E[x|z] at the posterior mean.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .npy or .csv for all, .png for the first 16 beside their originals. In levels where data were
            dequantised: E[x|z] - 1/2. Of sequences .npz, .csv or .png.
        part: Which part.
    """
    import torch

    from subo import figures
    from subo.evaluation.reconstruction import reconstruct as reconstructed
    from subo.experiments import model_for
    from subo.pictures import draw_reconstructions
    from subo.units import without_noise

    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, part, data_dir)
    if is_of_sequences(experiment):
        reconstruct_sequences(experiment, split, out)
        return
    ending = check_ending(out, ".npy", ".csv", ".png")
    names = experiment.meaning.feature_names
    if ending == ".png":
        split = split.take(torch.arange(min(16, len(split))))
        model, units = model_for(experiment, split, progress=True), _units(experiment)
        figures.save(draw_reconstructions(model, split, feature_names=names, units=units), out)
    else:
        means = reconstructed(model_for(experiment, split, progress=True), split)
        save_array(out, without_noise(means, experiment.config, drawn=False), names=names)
    say(f"{len(split)} reconstructions written to {out}")


def encode(run: RunPath, data: DataSource, /, *, out: Path, part: DataPart = "all", data_dir: DataDir = None) -> None:
    """Gives the representation of data: posterior means, the same at every call.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .npy, .csv, or .png for a map of the latent plane. Of sequences .npz or .csv. A .csv says first
            which row each is of, the first below a header being row 1, and its name and label where it has them.
        part: Which part.
    """
    from subo import figures
    from subo.evaluation.usage import latent_usage
    from subo.experiments import model_for
    from subo.pictures import draw_latent_plane

    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, part, data_dir)
    if is_of_sequences(experiment):
        encode_sequences(experiment, split, out)
        return
    ending = check_ending(out, ".npy", ".csv", ".png")
    model = model_for(experiment, split, progress=True)
    usage = latent_usage(model, split)
    if ending == ".png":
        if len(split) < 2:
            raise InputError("a map needs at least two data; write one datum's representation to .npy or .csv")
        figures.save(draw_latent_plane(model, usage, split), out)
    else:
        save_array(out, usage.means.numpy(), names=usage.names, of=_of_rows(split))
    say(f"{len(usage.means)} posterior means of {usage.means.shape[1]} latents written to {out}")


def score(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    num_samples: int = 1000,
    part: DataPart = "all",
    data_dir: DataDir = None,
    seed: int = 0,
) -> None:
    """Estimates log p(x) of each datum, the anomaly score: the lower, the stranger.

    The samples that a row gets depend on the file that it is in: in another file its estimate differs, within its
    standard error. Of dequantized data it is that of one draw of the noise, the same at every call. Rows to which the
    likelihood gives no density have -inf.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .csv with log_px, its standard error, effective sample size and Pareto k-hat in columns, of
            sequences their steps and log_px per step; first the row of the file that each is of, the first below a
            header being row 1, and its name (of a folder's files) and label where it has them; .npy of log_px.
        num_samples: Samples of the posterior for each datum.
        part: Which part.
        seed: Of the samples.
    """
    import numpy as np
    import torch

    from subo.evaluation.effort import caution_of_samples
    from subo.evaluation.pareto import highest_pareto_k
    from subo.evaluation.summary import score as scored
    from subo.experiments import model_for
    from subo.progress import bar

    ending = check_ending(out, ".npy", ".csv")
    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, part, data_dir, scored=True)
    model = model_for(experiment, split, progress=True)
    if caution := caution_of_samples(model, split, num_samples, option="--num-samples"):
        say(caution)
    shown, task = bar(f"log p(x), {num_samples} samples", len(split), show=True)
    with shown:
        scores = scored(
            model,
            split,
            num_samples=num_samples,
            seed=seed,
            advance=lambda count: shown.advance(task, count),
        )
    if ending == ".npy":
        save_array(out, scores.log_px.numpy())
    else:
        columns = {
            "log_px": scores.log_px,
            "standard_error": scores.standard_error,
            "effective_sample_size": scores.effective_sample_size,
            "pareto_k": scores.pareto_k,
        }
        if split.lengths is not None:
            columns |= {"steps": split.lengths.double(), "log_px_per_step": scores.log_px / split.lengths}
        table = np.stack([column.numpy() for column in columns.values()], axis=1)
        save_array(out, table, names=list(columns), of=_of_rows(split))
    values, unit = scores.log_px, ""
    if split.lengths is not None:  # the lowest sum over steps would be that of a long sequence
        values, unit = scores.log_px / split.lengths, " per step"
    finite = scores.log_px.isfinite()
    if not finite.any():
        say(f"{len(split)} values of log p(x) written to {out}: none is finite")
        return
    lowest = int(values.where(finite, torch.inf).argmin())
    place = f"in row {_of_rows(split)['row'][lowest]}" if split.names is None else f"of {split.names[lowest]}"
    say(
        f"{len(split)} values of log p(x) written to {out}: mean {scores.log_px[finite].mean():.2f} nats, lowest{unit} "
        f"{values[lowest]:.2f} {place}" + f" ({int((~finite).sum()):,} left out: not finite)" * (not finite.all())
    )
    highest = highest_pareto_k(num_samples)
    doubtful = int((scores.pareto_k > highest).sum())
    if doubtful:
        say(
            f"Note: the importance weights of {doubtful:,} of {len(split):,} have Pareto k-hat above {highest:.2g} "
            "(column pareto_k): their log p(x) is only known to be about this or higher. Strange data often have such "
            "weights, since the encoder has never seen their like: this is no reason to doubt that they are strange. "
            "More samples may give log p(x) itself, which the order of the scores does not need: --num-samples "
            f"{10 * num_samples}"
        )


def _labels_to_draw(classes: Sequence[str], num: int | None, label: str | None) -> Any:
    """The class of each sample, where the model is told it; equal numbers of all unless one is named."""
    import torch

    from subo.class_pictures import labels_in_rows

    num_classes = len(classes)
    if num_classes == 0:
        if label is not None:
            raise InputError(
                f"--label {label} asks for one class, and this run's model is told none: it was fitted without "
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
            f"--num {num} cannot be shared equally by the {num_classes} classes: give "
            f"{-(-num // num_classes) * num_classes}, or name one class with --label"
        )
    return labels_in_rows(num_classes, 8 if num is None else num // num_classes)


def run_and_rows(
    run: Path, source: str, part: Part, data_dir: Path | None, *, scored: bool = False
) -> tuple[Any, Split]:
    """A run and data for it: made bits or noisy as the run's were, and of its shape; says which have no density."""
    from subo import experiments
    from subo.conditioning import check_labels, num_labels_of
    from subo.units import in_levels

    experiment = experiments.open_run(run)
    asked = experiment.config["data"]
    if data_dir is None and asked["data_dir"]:
        data_dir = Path(asked["data_dir"])
    split = load_rows(
        source,
        part=part,
        data_dir=data_dir,
        binarize=asked["binarize"],
        dequantize=asked["dequantize"],
        seed=asked["seed"],
        meaning=replace(experiment.meaning, class_names=experiment.class_names()),
        note=say,
    )
    split = in_levels(split, experiment.config)
    num_labels = num_labels_of(experiment.objective.model)
    if num_labels is not None:
        check_labels(split.labels, num_labels, names=split.class_names, where=source)
    inside = in_support(experiment.objective.model, split, where=source)
    if not inside.all():
        if not scored and experiment.config["options"].get("inference", "amortized") != "amortized":
            check_support(experiment.objective.model, split, where=source)  # their q is fitted by way of p(x|z)
        outside = (~inside).nonzero()[:, 0]
        say(
            f"Careful: {len(outside):,} of {len(split):,} hold values to which the run's likelihood "
            f"({experiment.config['options']['likelihood']}) gives no density, the first is number "
            f"{int(outside[0]) + 1} (counted from 1): their log p(x) is -inf, and their latents mean nothing"
        )
    return experiment, split


def _of_rows(split: Split) -> dict[str, Sequence[Any]]:
    """What each line of a table is of: the row of its source, from 1, and its name and class where it has them."""
    rows = range(1, len(split) + 1) if split.rows is None else split.rows.tolist()
    known = {"row": rows, "name": split.names, "label": split.label_names()}
    return {name: values for name, values in known.items() if values is not None}


def _range_of(x: Any, meaning: Any) -> Any:
    """What is black and what is white: the ends of the run's levels, whatever these samples hold; of numbers their own.

    Args:
        x: Samples.
        meaning: Of the run's data.
    """
    if not meaning.pixels or x.ndim < 3:
        return x
    return x.new_tensor([0, meaning.levels if meaning.whole else 1]).reshape(2, *(1 for _ in x.shape[1:]))


def _units(experiment: Any) -> Any:
    """Mean and standard deviation of a table's columns, as long as its data are there."""
    from subo.pictures import feature_units

    if len(experiment.config["data"]["event_shape"]) != 1:
        return None
    try:
        return feature_units(experiment.data())
    except InputError:
        return None
