"""Commands that tell of fitted runs: ``evaluate``, ``compare`` and ``show``."""

import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subo.commands.arguments import RunPath, check_apart, check_ending
from subo.commands.comparison_table import print_comparison
from subo.errors import InputError, Interrupted
from subo.messages import print_evaluation, print_run, say

if TYPE_CHECKING:
    from subo.data import Split
    from subo.evaluation.full import Depth
    from subo.experiments import Experiment

__all__ = ["compare", "evaluate", "show"]


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
    intensive_data: int = 100,
    temperatures: int = 1000,
    chains: int = 16,
) -> None:
    """Measures a run on held-out data: log p(x) and ELBO with their standard errors, rate, distortion.

    With --full also: annealed importance sampling and a two-sided bracket; how much of the gap between log p(x) and
    ELBO is the family's fault and how much the encoder's; what the latents carry; calibration. It writes
    evaluation.json, a line per datum to evaluation.csv, and figures. When it is stopped, the same command goes on.

    Args:
        run: Run folder.
        split: Which of the run's data.
        num_samples: Samples of the posterior for each log p(x); by default 1,000, or, without --full, what fits into
            the time of training, or into a minute if that is longer.
        seed: Of the samples.
        full: Whether to measure all there is.
        max_data: With --full: only so many of the data, at random.
        minutes: With --full: how long at the most; what has begun is finished.
        intensive_data: With --full: how many data for what is costly (annealing, gaps, bracket).
        temperatures: With --full: of annealing.
        chains: With --full: of annealing, for each datum.
    """
    from subo import experiments

    experiment = experiments.open_run(run)
    if full:
        depth = {"max_data": max_data, "intensive_data": intensive_data, "temperatures": temperatures, "chains": chains}
        _evaluate_fully(
            experiment, split, minutes, seed, num_samples=1000 if num_samples is None else num_samples, **depth
        )
        return
    if (max_data, minutes, intensive_data, temperatures, chains) != (None, None, 100, 1000, 16):
        raise InputError(
            "--max-data, --minutes, --intensive-data, --temperatures and --chains belong to the full evaluation: add "
            "--full, or leave them out."
        )
    result = experiments.evaluate_run(
        experiment, experiment.data(), split=split, num_samples=num_samples, seed=seed, progress=True
    )
    print_evaluation(asdict(result), experiment.config, run=run)
    if caution := experiment.run.caution:
        say(f"  Careful: {caution}")
    say(f"written to {experiment.run.evaluation_of(split)}")


def _evaluate_fully(
    experiment: "Experiment", split: str, minutes: float | None, seed: int, **depth: int | None
) -> None:
    """``evaluate --full``."""
    from subo.commands.numbers_table import print_numbers
    from subo.evaluation.full import Depth
    from subo.full_evaluation import evaluate_run_fully
    from subo.units import describe_log_px

    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes must be positive, not {minutes:g}")
    asked = Depth(**depth)  # pyright: ignore[reportArgumentType]
    data = experiment.data()
    if not experiment.is_local:  # whose q of these data is not there yet
        _say_if_long(experiment.objective.model, getattr(data, split), asked)
    try:
        result = evaluate_run_fully(
            experiment, data, split=split, depth=asked, minutes=minutes, seed=seed, progress=True
        )
    except KeyboardInterrupt as stopped:
        raise Interrupted(
            "stopped. What was finished is kept: the same command goes on from there, and with --minutes 0.01 it "
            "prints and writes what is known.",
            signal=getattr(stopped, "signal", signal.SIGINT),
        ) from None
    title = f"{experiment.run.path}, {split} data; values are means over data, +- standard errors"
    meaning = describe_log_px(experiment.config)
    print_numbers(f"{title}\nlog p(x) is a {meaning}", result.numbers, result.sentences)
    print()
    for path in result.written:
        say(f"written to {path}")
    if not result.complete:
        say("Not all is measured yet: the same command goes on, without --minutes to the end.")


def _say_if_long(model: Any, split: "Split", depth: "Depth") -> None:
    """Says how long a full evaluation takes, where it is more than an hour."""
    import torch

    from subo.evaluation.effort import caution_of_annealing, caution_of_samples

    few = split.take(torch.arange(min(len(split), depth.max_data or len(split))))
    annealed = depth.temperatures * depth.chains * min(len(few), depth.intensive_data)
    for caution in (
        caution_of_samples(model, few, depth.num_samples, option="--num-samples"),
        caution_of_annealing(model, few, annealed),
    ):
        if caution:
            say(caution)


def compare(
    *runs: RunPath,
    split: Literal["test", "validation"] = "test",
    num_samples: int = 1000,
    max_data: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Measures runs on the same held-out data: a row for each, and differences from the first with their errors.

    Differences are paired, datum by datum, which makes their standard errors smaller than those of the rows. Runs whose
    data, split or binarisation differ are refused, and so is a density beside a probability.

    Args:
        runs: Two or more run folders; the others are compared with the first.
        split: Which of the runs' data.
        num_samples: Samples of the posterior for each log p(x).
        max_data: Only the first so many of the data.
        seed: Of the samples, the same for every run.
        out: Where to write the numbers, too: .csv or .json.
    """
    from subo import comparing

    if out is not None:
        check_ending(out, ".csv", ".json")
        check_apart(out, *runs)
    experiments = comparing.open_comparable(runs)
    comparison = comparing.compare_runs(
        experiments, split=split, num_samples=num_samples, max_data=max_data, seed=seed, progress=True
    )
    config = next(iter(experiments.values())).config
    local = [name for name, experiment in experiments.items() if experiment.is_local]
    print_comparison(comparison, config, local=local)
    if out is not None:
        comparing.save_comparison(out, comparison, config)
        say(f"written to {out}")


def show(run: RunPath, /, *, accept_changes: bool = False) -> None:
    """Says what is in a run folder: data, model, training and results.

    Args:
        run: Run folder.
        accept_changes: Take settings and weights that were changed by hand for what is meant. A run notes SHA-256
            digests of its weights, checkpoint and settings, and refuses to work with others.
    """
    from subo.runs import Run

    opened = Run.open(run, finished=False)
    if accept_changes:
        opened.accept_changes()
    print_run(opened)
