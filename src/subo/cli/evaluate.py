"""The command ``evaluate``."""

import shutil
import signal
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from subo.cli.arguments import RunPath
from subo.cli.flags import in_flags
from subo.cli.messages import print_evaluation, say
from subo.errors import InputError, Interrupted
from subo.runtime.digits import in_digits

if TYPE_CHECKING:
    from subo.evaluation.numbers import Number

if TYPE_CHECKING:
    from subo.data.splits import Split
    from subo.experiments.experiment import Experiment
    from subo.report.depth import Depth

__all__ = ["evaluate", "print_numbers"]


def evaluate(
    run: RunPath,
    /,
    *,
    split: Literal["test", "validation", "train"] = "test",
    num_samples: int | None = None,
    seed: int = 0,
    full: bool = False,
    max_data: int | None = None,
    minutes: float | None = None,
    intensive_data: int | None = None,
    temperatures: int | None = None,
    chains: int = 16,
    processes: int = 1,
) -> None:
    """Measures a run on held-out data: log p(x) and ELBO with their standard errors, rate, distortion.

    With --full also: annealed importance sampling and a two-sided bracket; how much of the gap between log p(x) and
    ELBO is due to the family and how much to the encoder; what the latents carry; calibration. It writes
    evaluation.json, one line per example to evaluation.csv, and figures. If stopped, the same command continues.

    Args:
        run: Run folder.
        split: Which split of the run's data.
        num_samples: Posterior samples for each log p(x); by default 1,000, or, without --full, as many as fit into the
            time that training took, or into a minute if that is longer.
        seed: Seed for the samples.
        full: Whether to run the full evaluation.
        max_data: With --full: number of examples to use, chosen at random.
        minutes: With --full: time limit; a piece that has begun is finished.
        intensive_data: With --full: number of examples for costly measurements (annealing, gaps, bracket); by default
            100, or fewer, with fewer --temperatures, if these would take longer than training and than five minutes.
        temperatures: With --full: number of annealing temperatures; by default up to 1,000, as for --intensive-data.
        chains: With --full: number of annealing chains for each example.
        processes: Number of processes that share the work; the numbers do not depend on it.
    """
    from subo.experiments import experiment as experiments

    experiment = experiments.open_run(run)
    if full:
        depth = {"num_samples": num_samples, "max_data": max_data, "chains": chains}
        depth |= {"intensive_data": intensive_data, "temperatures": temperatures}
        _evaluate_fully(experiment, split, minutes, seed, processes=processes, **depth)
        return
    if (max_data, minutes, intensive_data, temperatures, chains) != (None, None, None, None, 16):
        raise InputError(
            "--max-data, --minutes, --intensive-data, --temperatures and --chains belong to the full evaluation: add "
            "--full, or leave them out."
        )
    result = experiments.evaluate_run(
        experiment,
        experiment.data(),
        split=split,
        num_samples=num_samples,
        seed=seed,
        processes=processes,
        progress=True,
        note=say,
    )
    print_evaluation(asdict(result), experiment.config, run=run)
    if caution := experiment.run.caution:
        say(f"  Careful: {caution}")
    say(f"written to {experiment.run.evaluation_of(split)}")


def _evaluate_fully(
    experiment: "Experiment", split: str, minutes: float | None, seed: int, *, processes: int = 1, **depth: int | None
) -> None:
    """``evaluate --full``."""
    from subo.experiments.full_evaluation import evaluate_run_fully
    from subo.experiments.units import describe_log_px
    from subo.report.depth import REDUCIBLE, Depth

    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes must be positive, not {minutes:g}")
    asked = Depth(**{name: number for name, number in depth.items() if number is not None})
    reducible = [name for name in REDUCIBLE if depth.get(name) is None]
    data = experiment.data()
    if not experiment.config.is_local:  # a local q for these data does not exist yet
        _say_if_long(experiment.objective.model, getattr(data, split), asked)
    options: dict[str, Any] = {"split": split, "minutes": minutes, "seed": seed}
    options |= {"processes": processes, "progress": True, "note": say}
    try:
        result = evaluate_run_fully(experiment, data, depth=asked, reducible=reducible, **options)
    except KeyboardInterrupt as stopped:
        raise Interrupted(
            "stopped. Finished pieces are kept: the same command continues from there, and with --minutes 0.01 it "
            "prints and writes what is known.",
            signal=getattr(stopped, "signal", signal.SIGINT),
        ) from None
    title = f"{experiment.run.path}, {split} data; values are means over examples, +- standard errors"
    meaning = describe_log_px(experiment.config)
    print_numbers(f"{title}\n{experiment.config.log_px} is a {meaning}", result.numbers, result.sentences)
    print()
    for path in result.written:
        say(f"written to {path}")
    if not result.complete:
        say("The evaluation is not complete yet: the same command continues, without --minutes to the end.")


def _say_if_long(model: Any, split: "Split", depth: "Depth") -> None:
    """Says how long log p(x) takes, if it is more than an hour."""
    import torch

    from subo.evaluation.effort import caution_of_samples

    few = split.take(torch.arange(min(len(split), depth.max_data or len(split))))
    if caution := caution_of_samples(model, few, depth.num_samples, option="num_samples"):
        say(caution)


_NARROWEST, _USUAL, _WIDEST = 80, 100, 120  # columns: below the usual width, the estimator gets its own line


def print_numbers(title: str, numbers: Iterable["Number"], sentences: Sequence[str]) -> None:
    """Prints one line per number under the question that it answers, then the sentences.

    Args:
        title: What was measured.
        numbers: The numbers to print.
        sentences: Sentences that say what they mean.
    """
    print(f"{title}\n")
    columns = min(max(shutil.get_terminal_size((_USUAL, 24)).columns, _NARROWEST), _WIDEST)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("value", "right"), ("", "left"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
    narrow = columns < _USUAL
    if not narrow:
        table.add_column("estimator", overflow="fold")
    table.add_column("K", justify="right", no_wrap=True)
    table.add_column("data", justify="right", no_wrap=True)
    for section, lines in groupby(numbers, lambda number: number.section):
        table.add_row(Text(section, style="bold"))
        for line in lines:
            value, error = in_digits(line.value, line.standard_error)
            counts = ("" if count is None else f"{count:,}" for count in (line.num_samples, line.num_data))
            name, estimator = f"  {line.name}", [line.estimator]
            if narrow:
                name, estimator = f"{name}\n      {line.estimator}", []
            cells = (name, value, error and f"+- {error}", line.unit, *estimator, *counts)
            table.add_row(*map(Text, cells))
    Console(width=columns, highlight=False).print(table)
    for sentence in sentences:
        say(f"\n{fill(in_flags(sentence), columns, break_on_hyphens=False)}")
