"""What the commands do with runs of sequences, and the command ``forecast``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from subo.commands.arguments import DataDir, DataPart, DataSource, RunPath, check_apart, check_ending
from subo.data import Split
from subo.errors import InputError
from subo.memory import check_room
from subo.messages import say
from subo.sampling import check_samples, draw_data
from subo.sources import save_sequences

__all__ = ["encode_sequences", "forecast", "is_of_sequences", "reconstruct_sequences", "sample_sequences"]


_DRAWN = 8  # samples in a picture
_FEW = 10  # states
_ENTRY = 750  # bytes of the entry of a sequence in a .npz
_STATE = 3000  # bytes that the networks of a deep Markov model take for a step of a sequence


def is_of_sequences(experiment: Any) -> bool:
    """Whether a run's data are sequences."""
    return experiment.meaning.sequential


def sample_sequences(experiment: Any, out: Path, *, num: int, steps: int | None, mean: bool, seed: int) -> None:
    """Draws sequences of one length: that of a typical one in training, unless told."""
    from subo import figures
    from subo.randomness import forked
    from subo.sequence_pictures import draw_sequence_samples

    ending = check_ending(out, ".npz", ".csv", ".png")
    data, model = experiment.config["data"], experiment.objective.model
    length = steps or round(data["steps"]["train"] / data["sizes"]["train"])
    elements = length * math.prod(data["event_shape"])
    num = min(num, _DRAWN) if ending == ".png" else num
    check_samples(num, elements, 4 * elements + _ENTRY, mend="Lower --num or --steps.")
    if ending == ".png":
        figures.save(draw_sequence_samples(model, length=length, num=num, drawn=not mean, seed=seed), out)
    else:
        known = {"mask": torch.ones(1, length, dtype=torch.bool).expand(num, length)}
        with forked(seed):
            x = draw_data(model, num, known, elements=elements, steps=length, mean=mean)
        save_sequences(out, x.flatten(0, 1), [length] * num)
    say(f"{num} sequences of {length} steps written to {out}")


def reconstruct_sequences(experiment: Any, split: Split, out: Path) -> None:
    """Writes ``E_q[ E[x|z] ]`` of every step."""
    from subo import figures
    from subo.evaluation.reconstruction import reconstruct
    from subo.sequence_pictures import SHOWN, draw_sequence_reconstructions

    ending = check_ending(out, ".npz", ".csv", ".png")
    model = experiment.objective.model
    if ending == ".png":
        split = split.take(torch.arange(min(len(split), SHOWN)))
        figures.save(draw_sequence_reconstructions(model, split), out)
    else:
        save_sequences(out, reconstruct(model, split), _lengths(split), of=_called(split))
    say(f"{len(split)} reconstructions of {split.num_steps} steps in all written to {out}")


def encode_sequences(experiment: Any, split: Split, out: Path) -> None:
    """Writes the posterior mean of every state."""
    from subo.evaluation.usage import posterior_means

    check_ending(out, ".npz", ".csv")
    means = posterior_means(experiment.objective.model, split)
    save_sequences(out, means, _lengths(split), names=[f"z{i + 1}" for i in range(means.shape[1])], of=_called(split))
    say(f"posterior means of the states at {len(means)} steps of {len(split)} sequences written to {out}")


def forecast(
    run: RunPath,
    data: DataSource,
    /,
    *,
    steps: int,
    out: Path,
    num_samples: int = 1000,
    coverage: float = 0.9,
    part: DataPart = "all",
    data_dir: DataDir = None,
    seed: int = 0,
) -> None:
    """Forecasts sequences: the mean and an interval of each number at each of the next steps.

    Args:
        run: Run folder, of a model of sequences.
        data: Sequences to go on with.
        steps: How many steps ahead.
        out: Where to: .csv with mean, lower and upper of every number and the effective number of states in columns;
            .npz of the means; or .png of the first sequences.
        num_samples: Draws for each sequence.
        coverage: Share of the draws that lie in the interval.
        part: Which part.
        seed: Of the draws.
    """
    from subo import figures
    from subo.commands.using import run_and_rows
    from subo.evaluation.forecasting import forecast as forecasted
    from subo.sequence_pictures import SHOWN, draw_forecasts

    ending = check_ending(out, ".npz", ".csv", ".png")
    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, part, data_dir)
    if not is_of_sequences(experiment):
        raise InputError(f"{run} was not fitted to sequences, and its data have no next step: fit --recipe deep-markov")
    elements = steps * math.prod(experiment.config["data"]["event_shape"])
    states = num_samples * max(steps, max(_lengths(split)))  # of one sequence at a time
    check_room(
        _STATE * states + 4 * 6 * len(split) * elements,  # mean, lower and upper, which are joined at the end
        f"a forecast of {steps:,} steps from {num_samples:,} states a sequence",
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
        save_sequences(out, torch.cat(columns, dim=1), [steps] * len(split), names=names, of=_called(split))
    shown = min(len(split), SHOWN) if ending == ".png" else len(split)
    say(f"{steps} steps after each of {shown} sequences written to {out}")
    few = int((found.effective_sample_size < _FEW).sum())
    if few:
        say(
            f"Careful: of the {num_samples} states that a forecast starts from fewer than {_FEW} count for {few} of "
            f"{len(split)} sequences (effective sample size): theirs is nearly that of one state. More samples tell: "
            "--num-samples"
        )


def _called(split: Split) -> Sequence[str] | None:
    """The name of each sequence, or else its number in its file; None: they are all of them in order."""
    return split.names if split.names is not None or split.rows is None else [str(n) for n in split.rows.tolist()]


def _lengths(split: Split) -> list[int]:
    assert split.lengths is not None
    return split.lengths.tolist()
