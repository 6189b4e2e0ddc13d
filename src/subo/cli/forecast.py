"""The command ``forecast``, and what other commands do with runs of sequences."""

import math
from pathlib import Path

import torch

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.cli.rows import is_of_sequences, lengths_of, names_of
from subo.data.saving import save_sequences
from subo.errors import InputError
from subo.runtime.memory import check_room

__all__ = ["forecast"]


_FEW = 10  # states
_ENTRY = 750  # bytes for the entry of a sequence in a .npz
_STATE = 3000  # bytes that the networks of a deep Markov model need for one step of a sequence


def forecast(
    run: RunPath,
    data: DataSource,
    /,
    *,
    steps: int,
    out: Path,
    num_samples: int = 1000,
    coverage: float = 0.9,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
    seed: int = 0,
) -> None:
    """Forecasts sequences: the mean and an interval for each number at each of the next steps.

    Args:
        run: Run folder of a sequence model.
        data: Sequences to continue.
        steps: Number of steps ahead.
        out: Output file: .csv with columns for mean, lower and upper of every number and the effective number of
            states; .npz with the means; or .png of the first sequences.
        num_samples: Number of draws for each sequence.
        coverage: Fraction of the draws in the interval.
        how: How the data are read.
        seed: Seed for the draws.
    """
    from subo import figures
    from subo.cli.rows import run_and_rows
    from subo.evaluation.forecasting import forecast as forecasted
    from subo.report.sequence_pictures import SHOWN, draw_forecasts

    ending = check_ending(out, ".npz", ".csv", ".png")
    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, how)
    if not is_of_sequences(experiment):
        raise InputError(f"{run} was not fitted to sequences: its data have no next step. Fit --recipe deep-markov")
    elements = steps * math.prod(experiment.config.data.event_shape)
    states = num_samples * max(steps, max(lengths_of(split)))  # of one sequence at a time
    check_room(
        _STATE * states + 4 * 6 * len(split) * elements,  # mean, lower and upper, joined at the end
        f"a forecast of {steps:,} steps from {num_samples:,} states per sequence",
        "Lower --steps or --num-samples.",
    )
    model = experiment.objective.model
    found = forecasted(model, split, steps=steps, num_samples=num_samples, coverage=coverage, seed=seed)
    if ending == ".png":
        figures.save(draw_forecasts(split, found), out)
    elif ending == ".npz":
        save_sequences(out, found.mean.flatten(0, 1), [steps] * len(split))
    else:
        columns = [tensor.flatten(0, 1).flatten(1) for tensor in (found.mean, found.lower, found.upper)]
        names = [f"{what}{i}" for what in ("mean", "lower", "upper") for i in range(columns[0].shape[1])]
        columns.append(found.effective_sample_size.repeat_interleave(steps).unsqueeze(1))
        names.append("effective_sample_size")
        save_sequences(out, torch.cat(columns, dim=1), [steps] * len(split), names=names, of=names_of(split))
    shown = min(len(split), SHOWN) if ending == ".png" else len(split)
    say(f"{steps} steps after each of {shown} sequences written to {out}")
    few = int((found.effective_sample_size < _FEW).sum())
    if few:
        say(
            f"Careful: for {few} of {len(split)} sequences the effective sample size is below {_FEW} of {num_samples}: "
            "their forecasts rest on very few states. Use more samples: --num-samples"
        )
