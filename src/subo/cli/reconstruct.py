"""The command ``reconstruct``."""

from pathlib import Path
from typing import Any

import torch

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.cli.rows import endings_of, is_of_sequences, lengths_of, names_of, run_and_rows, save_rows, units_of
from subo.data.saving import save_array, save_sequences
from subo.data.splits import Split
from subo.errors import InputError
from subo.runtime.wording import counted

__all__ = ["reconstruct", "reconstruct_sequences"]


def reconstruct(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
) -> None:
    """Encodes and decodes data: E[x|z] at the posterior mean.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Output file: .npy or .csv for all, .png for the first 16 beside their originals; for sequences .npz, .csv
            or .png. If the data were dequantized, values are in levels: E[x|z] - 1/2.
        how: How the data are read.
    """
    import torch

    from subo import figures
    from subo.evaluation.reconstruction import reconstruct as reconstructed
    from subo.experiments.experiment import model_for
    from subo.experiments.units import without_noise
    from subo.report.pictures import draw_reconstructions
    from subo.report.table_pictures import are_numbers

    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, how)
    if is_of_sequences(experiment):
        reconstruct_sequences(experiment, split, out)
        return
    ending = check_ending(out, *endings_of(experiment))
    names = experiment.config.data.meaning.feature_names
    if ending == ".png":
        split = split.take(torch.arange(min(16, len(split))))
        table = experiment.config.data.meaning.table
        if table is not None and not are_numbers(split.x, table):
            raise InputError("a picture of a table's rows is of numbers alone: write this one to .csv")
        model, units = model_for(experiment, split, progress=True), units_of(experiment)
        figures.save(draw_reconstructions(model, split, feature_names=names, units=units), out)
    else:
        means = reconstructed(model_for(experiment, split, progress=True), split)
        if (table := experiment.config.data.meaning.table) is not None:
            save_rows(out, means, table, split.context.get("given"))
            say(f"{counted(len(split), 'reconstruction')} written to {out}")
            return
        save_array(out, without_noise(means, experiment.config, drawn=False), names=names)
    say(f"{counted(len(split), 'reconstruction')} written to {out}")


def reconstruct_sequences(experiment: Any, split: Split, out: Path) -> None:
    """Writes ``E_q[ E[x|z] ]`` for every step."""
    from subo import figures
    from subo.evaluation.reconstruction import reconstruct
    from subo.report.sequence_pictures import SHOWN, draw_sequence_reconstructions

    ending = check_ending(out, ".npz", ".csv", ".png")
    model = experiment.objective.model
    if ending == ".png":
        split = split.take(torch.arange(min(len(split), SHOWN)))
        figures.save(draw_sequence_reconstructions(model, split), out)
    else:
        save_sequences(out, reconstruct(model, split), lengths_of(split), of=names_of(split))
    say(f"{counted(len(split), 'reconstruction')} of {counted(split.num_steps, 'step')} in all written to {out}")
