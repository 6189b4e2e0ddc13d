"""The command ``encode``."""

from pathlib import Path
from typing import Any

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.cli.rows import is_of_sequences, lengths_of, names_of, of_rows, run_and_rows
from subo.data.saving import save_array, save_sequences
from subo.data.splits import Split
from subo.errors import InputError
from subo.runtime.wording import counted

__all__ = ["encode", "encode_sequences"]


def encode(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    color: str | None = None,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
    processes: int = 1,
) -> None:
    """Computes the representation of data: posterior means, the same at every call.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Output file: .npy, .csv, or .png for a map of the latent plane; for sequences .npz or .csv. In a .csv, the
            first columns give the row of each example (the first below a header is row 1), and its name and label if it
            has them.
        color: Column that colors the map: any of a table or of the obs of a .h5ad, also one that the fit left out; by
            default the label.
        how: How the data are read.
        processes: Number of processes that share the examples; the means do not depend on it.
    """
    from subo import figures
    from subo.evaluation.latents.usage import latent_usage
    from subo.experiments.experiment import model_for
    from subo.report.pictures import draw_latent_plane
    from subo.report.table_pictures import column_values

    check_apart(out, run, data)
    if color is not None and out.suffix.lower() != ".png":
        raise InputError(f"--color {color} colors a map, and --out {out} is none: give --out a .png")
    frames: list[Any] = []
    experiment, split = run_and_rows(run, data, how, on_frame=None if color is None else frames.append)
    if is_of_sequences(experiment):
        encode_sequences(experiment, split, out, processes=processes)
        return
    ending = check_ending(out, ".npy", ".csv", ".png")
    table, colors = experiment.config.data.meaning.table, None
    if color is not None:
        if not frames and table is None:
            raise InputError(
                f"--color {color} names a column, and {data} has none: give it a table or a .h5ad, or leave --color out"
            )
        colors = color, column_values(split, table, color, frame=frames[0] if frames else None)
    model = model_for(experiment, split, progress=True)
    usage = latent_usage(model, split, processes=processes)
    if ending == ".png":
        if len(split) < 2:
            raise InputError("a map needs at least two examples; write one example's representation to .npy or .csv")
        figures.save(draw_latent_plane(model, usage, split, colors=colors), out)
    else:
        save_array(out, usage.means.numpy(), names=usage.names, of=of_rows(split))
    say(f"{counted(len(usage.means), 'posterior mean')} of {counted(usage.means.shape[1], 'latent')} written to {out}")


def encode_sequences(experiment: Any, split: Split, out: Path, *, processes: int = 1) -> None:
    """Writes the posterior mean of every state."""
    from subo.evaluation.latents.usage import posterior_means

    check_ending(out, ".npz", ".csv")
    means = posterior_means(experiment.objective.model, split, processes=processes)
    save_sequences(
        out, means, lengths_of(split), names=[f"z{i + 1}" for i in range(means.shape[1])], of=names_of(split)
    )
    steps, sequences = counted(len(means), "step"), counted(len(split), "sequence")
    say(f"posterior means of the states at {steps} of {sequences} written to {out}")
