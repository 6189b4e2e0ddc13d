"""The command ``compare``: prints a table, and the differences in words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from subo.cli.arguments import RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.files.nonfinite import in_words
from subo.runtime.digits import in_digits

if TYPE_CHECKING:
    from subo.evaluation.comparison import Comparison, Row
    from subo.evaluation.estimates import Estimate
    from subo.evaluation.seeds import SeedMean
    from subo.runs.config import RunConfig

__all__ = ["compare", "print_comparison", "print_over_seeds"]

_COLUMNS = 100  # the widest table


def print_comparison(comparison: "Comparison", config: "RunConfig", *, local: Sequence[str] = ()) -> None:
    """Prints one row per run, then in words how the others differ from the first.

    Args:
        comparison: The comparison to print.
        config: Config of one of the runs; what it says about the data holds for all.
        local: Runs whose q was fitted to each of the examples.
    """
    from subo.experiments.units import (  # here, since it takes a second to import
        describe_log_px,
        kind_of_log_px,
    )

    meaning, log_px = describe_log_px(config), config.log_px
    print(f"{comparison.split}, {comparison.num_data} examples, nats per example, +- standard errors; ELBO at beta 1")
    print(f"{log_px}, a {meaning}, by importance sampling from q(z|x):")
    print(f"{comparison.num_samples} samples, with the same seed for every run\n")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    table.add_column("run", overflow="fold", min_width=8)
    bits = ["bits/dim"] if kind_of_log_px(config) != "density" else []  # bits of a density have no meaning
    for name in (log_px, "ELBO", "rate", "distortion", *bits, "active", "training"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        cells = [_lines(estimate, 3) for estimate in (row.log_px, row.elbo, row.rate, row.distortion)]
        cells += [_lines(row.bits_per_dim, 4)] if bits else []
        cells += [f"{row.active_units}/{row.latent_dim}", _duration(row.training_seconds)]
        table.add_row(*(Text(cell) for cell in (row.name, *cells)))
    Console(width=_COLUMNS).print(table)
    for row in comparison.rows:
        for warning in _warnings(row, comparison, row.name in local):
            print(f"Careful: {row.name} {warning.replace('log p(x)', log_px)}")
    if comparison.over_seeds:
        print_over_seeds(comparison, log_px)
    first = comparison.rows[0].name
    print(f"\nAgainst {first}, run by run, paired over the {comparison.num_data} examples:")
    for row in comparison.rows[1:]:
        for name, difference in ((log_px, row.log_px_difference), ("ELBO", row.elbo_difference)):
            if difference is not None:
                print(f"  {_in_words(difference, name, row.name, first)}")


def print_over_seeds(comparison: "Comparison", log_px: str) -> None:
    """Prints one row per setting, then in words how the others differ from the first."""
    seeds = {row.name: str(row.training_seed) for row in comparison.rows}
    print("\nMeans over training seeds, of runs that differ in nothing else; +- standard error between seeds, and over")
    print(f"the {comparison.num_data} examples:\n")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    table.add_column("as", overflow="fold", min_width=8)
    table.add_column("training seeds", overflow="fold")
    for name in (log_px, "ELBO"):
        table.add_column(name, justify="right", no_wrap=True)
    for mean in comparison.over_seeds:
        of = ", ".join(seeds[run] for run in mean.runs)
        table.add_row(*(Text(cell) for cell in (mean.name, of, _of_both(mean.log_px), _of_both(mean.elbo))))
    Console(width=_COLUMNS).print(table)
    first, *others = comparison.over_seeds
    if others:
        print(f"\nMeans compared with that of {first.name}, +- standard error over seeds and data:")
    for mean in others:
        for name, difference in ((log_px, mean.log_px_difference), ("ELBO", mean.elbo_difference)):
            if difference is not None:
                print(f"  {_means_in_words(difference, name, mean.name, first.name)}")


def _of_both(mean: "SeedMean") -> str:
    between = "?" if mean.seed_error is None else f"{mean.seed_error:.3f}"
    return f"{mean.mean:.3f}\n+- {between}, +- {mean.data_error:.3f}"


def _means_in_words(difference: "SeedMean", quantity: str, name: str, first: str) -> str:
    error = difference.standard_error
    if error is None:
        return f"{name} and {first}: one has a single seed, so no spread to judge the difference in {quantity} by"
    if not math.isfinite(difference.mean):
        return f"{name} and {first} cannot be distinguished by {quantity}: it is not finite for some of the examples"
    numbers = " +- ".join(in_digits(abs(difference.mean), error)) + " nats"
    if difference.differs:
        return f"{name} is {numbers} {'better' if difference.mean > 0 else 'worse'} than {first} in {quantity}"
    return f"{name} and {first}: no difference beyond the 95% interval of Student's t in {quantity} ({numbers})"


def _warnings(row: "Row", comparison: "Comparison", local: bool) -> list[str]:
    """What to know before comparing a run's numbers with another's."""
    found = []
    if row.log_px.num_not_finite:
        others = row.log_px.others and in_digits(row.log_px.others.mean, row.log_px.others.standard_error)
        found.append(f"{in_words(row.log_px.num_not_finite, comparison.num_data, others)}")
    if row.rate.mean < 0.1:
        found.append("has latents that carry almost no information: its posterior is nearly the prior.")
    elif row.active_units == 0:
        found.append("has no active latent dimension: its posterior means barely vary across the examples.")
    if row.median_ess < comparison.num_samples / 10:
        ess = f"{row.median_ess:.1f} of {comparison.num_samples}"
        found.append(f"has a median effective sample size of {ess}: its log p(x) may be higher than shown here.")
    if row.at_floor:
        found.append(f"has {row.at_floor:.1%} of its likelihood's scales at their minimum: log p(x) depends on it.")
    if local:
        found.append("has no encoder: its q was fitted to each of these examples, so its ELBO is not an encoder's.")
    return found


def _lines(estimate: "Estimate", digits: int) -> str:
    error = estimate.standard_error
    return f"{estimate.mean:.{digits}f}\n" + (f"+- {error:.{digits}f}" if math.isfinite(error) else "")


def _in_words(difference: "Estimate", quantity: str, name: str, first: str) -> str:
    if not math.isfinite(difference.mean):
        count = f"{difference.num_not_finite:,} of the examples"
        said = f"{name} and {first} cannot be distinguished by {quantity}, which is not finite for {count}"
        if math.isinf(difference.mean):
            better = "better" if difference.mean > 0 else "worse"
            said = f"{name} is infinitely {better} than {first} in {quantity}, due to {count}"
        others = difference.others and _in_words(difference.others, quantity, name, first)
        return f"{said}; over the others {others}" if others else said
    numbers = " +- ".join(in_digits(abs(difference.mean), difference.standard_error)) + " nats"
    if difference.differs:
        return f"{name} is {numbers} {'better' if difference.mean > 0 else 'worse'} than {first} in {quantity}"
    return f"{name} and {first}: no difference beyond 2 standard errors in {quantity} ({numbers})"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    units = ((100.0, 1, "s"), (6000.0, 60, "min"), (math.inf, 3600, "h"))
    return next(f"{seconds / unit:.1f} {name}" for limit, unit, name in units if seconds < limit)


def compare(
    *runs: RunPath,
    split: Literal["test", "validation"] = "test",
    num_samples: int = 1000,
    max_data: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Measures runs on the same held-out data: one row per run, and differences from the first with their errors.

    Differences are paired example by example, so their standard errors are smaller than those of the rows. Runs with
    different data, split or binarization are refused, and so is a density beside a probability.

    Args:
        runs: Two or more run folders, or folders of several seeds (fit --seeds); the others are compared with the
            first.
        split: Which split of the runs' data.
        num_samples: Posterior samples for each log p(x).
        max_data: Number of examples to use, the first ones; by default all.
        seed: Seed for the samples, the same for every run.
        out: File to write the numbers to as well: .csv or .json.
    """
    from subo.experiments import compare as comparing
    from subo.experiments.seeds import runs_within

    runs = tuple(one for run in runs for one in runs_within(run))
    if out is not None:
        check_ending(out, ".csv", ".json")
        check_apart(out, *runs)
    experiments = comparing.open_comparable(runs)
    comparison = comparing.compare_runs(
        experiments, split=split, num_samples=num_samples, max_data=max_data, seed=seed, progress=True, note=say
    )
    config = next(iter(experiments.values())).config
    local = [name for name, experiment in experiments.items() if experiment.config.is_local]
    print_comparison(comparison, config, local=local)
    if out is not None:
        comparing.save_comparison(out, comparison, config)
        say(f"written to {out}")
