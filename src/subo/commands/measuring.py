"""Commands that tell of fitted runs: ``evaluate``, ``compare`` and ``show``."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from subo.commands.arguments import RunPath, check_ending
from subo.commands.comparison_table import print_comparison
from subo.messages import print_evaluation, print_run, say

__all__ = ["compare", "evaluate", "show"]


def evaluate(
    run: RunPath,
    /,
    *,
    split: Literal["test", "validation", "train"] = "test",
    num_samples: int = 1000,
    seed: int = 0,
) -> None:
    """Measures a run on held-out data: log p(x) and ELBO with their standard errors, rate, distortion.

    Args:
        run: Run folder.
        split: Which of the run's data.
        num_samples: Samples of the posterior for each log p(x).
        seed: Of the samples.
    """
    from subo import experiments

    experiment = experiments.open_run(run)
    result = experiments.evaluate_run(
        experiment, experiment.data(), split=split, num_samples=num_samples, seed=seed, progress=True
    )
    print_evaluation(asdict(result), experiment.config)
    say(f"written to {experiment.run.evaluation_of(split)}")


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
    experiments = comparing.open_comparable(runs)
    comparison = comparing.compare_runs(
        experiments, split=split, num_samples=num_samples, max_data=max_data, seed=seed, progress=True
    )
    config = next(iter(experiments.values())).config
    local = [name for name, experiment in experiments.items() if comparing.is_local(experiment)]
    print_comparison(comparison, config, local=local)
    if out is not None:
        comparing.save_comparison(out, comparison, config)
        say(f"written to {out}")


def show(run: RunPath, /) -> None:
    """Says what is in a run folder: data, model, training and results.

    Args:
        run: Run folder.
    """
    from subo.runs import Run

    print_run(Run.open(run, finished=False))
