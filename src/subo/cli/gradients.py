"""The command ``gradients``."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from subo.cli.arguments import RunPath, check_apart
from subo.cli.messages import say
from subo.errors import InputError

if TYPE_CHECKING:
    from subo.evaluation.gradient_statistics import GradientStatistics

__all__ = ["gradients"]

_COLUMNS = 100  # the width of printed lines
_WHOSE = {"phi": "the posterior's", "theta": "the model's"}  # parameters


def gradients(
    run: RunPath,
    /,
    *,
    bound: Literal["elbo", "iwae"] | None = None,
    num_samples: Annotated[str, Parameter(help="Numbers of samples K to measure, such as 1,8,64.")] = "1,8,64",
    batch_size: int = 20,
    draws: int = 200,
    estimators: Annotated[
        str | None, Parameter(help="Names of estimators, such as pathwise,dreg; by default all that support the bound.")
    ] = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Measures gradient estimators on a run: how noisy each is, whether it is biased, how long it takes.

    Draws many gradients of one batch of the training data with each estimator and each K. Writes gradients.csv and
    figures/gradients.png into the run.

    Args:
        run: Run folder.
        bound: Bound whose gradient is estimated; by default the run's own, with its beta and free bits.
        num_samples: Numbers of samples K to measure, such as 1,8,64.
        batch_size: Number of examples in the batch.
        draws: Number of gradients for each estimator and K.
        estimators: Names of estimators, such as pathwise,dreg; by default all that support the bound.
        seed: Seed for the batch and the samples.
        out: Different folder for both files.
    """
    from subo.core.bounds import ELBO, IWAE
    from subo.data.batches import batches
    from subo.evaluation.gradient_draws import standard_estimators
    from subo.evaluation.gradient_statistics import gradient_statistics, refusals
    from subo.experiments import experiment as experiments
    from subo.runtime.devices import place
    from subo.runtime.progress import bar
    from subo.runtime.randomness import forked

    counts = _numbers(num_samples)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"cannot write to {out}: it is a file, but --out names a folder for gradients.csv and .png.")
    if out is not None:
        for name in ("gradients.csv", "gradients.png"):
            check_apart(out / name, run)
    experiment = experiments.open_run(run)
    model = experiment.objective.model
    names = None if estimators is None else [name.strip() for name in estimators.split(",") if name.strip()]
    batch = next(batches(experiment.data().train, batch_size, seed=seed, epoch=0))
    x, context = place(model, batch.x, batch.context)
    followed = {"elbo": ELBO(), "iwae": IWAE(), None: experiment.objective.bound}[bound]
    with forked(seed):
        known = standard_estimators(x, names)
    settings: dict[str, Any] = {"bound": followed, "num_samples": counts}
    refused = refusals(model, x, context, estimators=known, **settings)
    chosen: dict[str, Any] = {} if names is None else {"estimators": known}
    total = draws * (len(known) * len(counts) - len(refused))
    with bar(f"{draws} gradients of each estimator", total, show=True) as advance:
        options = settings | chosen | {"draws": draws, "seed": seed, "advance": advance}
        records = gradient_statistics(model, x, context, **options)
    print(
        f"{records[0].bound}, {len(x)} training examples, {draws} gradients for each estimator and K; "
        "in nats per example\n"
    )
    _print_tables(records)
    _print_skipped(refused, counts)
    _print_words(records)
    if out is None:
        table, picture = experiment.run.path / "gradients.csv", experiment.run.picture("gradients.png")
    else:
        table, picture = out / "gradients.csv", out / "gradients.png"
    experiment.check_current()
    _save(records, counts, table, picture, experiment.digest)
    say(f"written to {table} and {picture}")


def _numbers(text: str) -> list[int]:
    """``1,8,64`` as a sorted list of numbers."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise InputError(f"--num-samples expects whole numbers from 1, with commas, such as 1,8,64: got '{text}'")
    return numbers


def _print_tables(records: Sequence["GradientStatistics"]) -> None:
    """Prints one table for phi and one for theta, with one row per K and estimator."""
    for part in dict.fromkeys(record.part for record in records):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
        table.add_column(f"{part}, {_WHOSE[part]}", no_wrap=True)
        for name in ("K", "variance", "|mean|, 95%", "signal/noise, 95%", "bias z", "ms"):
            table.add_column(name, justify="right", no_wrap=True)
        last = None
        for r in (record for record in records if record.part == part):
            if last not in (None, r.num_samples):
                table.add_row()
            last = r.num_samples
            numbers = [
                _short(r.variance),
                _within(None, r.mean_norm_low, r.mean_norm_high),
                _within(None, r.signal_to_noise_low, r.signal_to_noise_high),
            ]
            bias = "-" if r.bias is None else f"{r.bias:+.1f}"
            name = f"{r.estimator} *" if r.biased else r.estimator
            table.add_row(name, str(r.num_samples), *numbers, bias, f"{1000 * r.seconds:.2f}")
        Console(width=_COLUMNS).print(table)
        print()
    _say_wrapped(
        "variance: per parameter. |mean| and signal/noise, |mean| / sqrt(trace of the covariance): 95% intervals; "
        "where they reach 0, these draws do not show that the mean differs from 0. bias z: difference from the "
        "reference (-) in standard errors; up to 3 in size, there is no evidence of a bias. ms: per gradient, both "
        "parts."
    )
    for name, remark in dict.fromkeys((record.estimator, record.biased) for record in records if record.biased):
        _say_wrapped(f"* {name}: {remark}.")


def _print_skipped(refused: Mapping[tuple[str, int], str], counts: Sequence[int]) -> None:
    """Prints the estimators that were left out, and the start of their messages."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for (name, count), message in refused.items():
        reasons.setdefault((name, message.split(". ")[0].split(": ")[0]), []).append(count)
    for (name, reason), of in reasons.items():
        where = "" if of == list(counts) else f" at K = {', '.join(map(str, of))}"
        print(textwrap.shorten(f"left out: {name}{where}: {reason}", _COLUMNS, placeholder=" ..."))
    print()


def _print_words(records: Sequence["GradientStatistics"]) -> None:
    """Prints what the numbers say about phi."""
    phi = {(r.estimator, r.num_samples): r for r in records if r.part == "phi"}
    counts = sorted({count for _, count in phi})
    for count in counts:
        unbiased = [r for r in phi.values() if r.num_samples == count and not r.biased]
        if len(unbiased) > 1:
            best = min(unbiased, key=lambda r: r.variance)
            text = f"K = {count}: of the unbiased estimators, {best.estimator} has the lowest variance for phi"
            plain, path = phi.get(("score-none", count)), phi.get(("pathwise", count))
            if plain and path and path.variance > 0:
                factor = plain.variance / path.variance
                text += f"; the score function without baseline has {_short(factor)} times that of pathwise"
            elif plain and plain is not best and best.variance > 0:
                text += f", {_short(plain.variance / best.variance)} times less than score-none"
            _say_wrapped(f"{text}.")
    low, high = counts[0], counts[-1]
    for name in ("pathwise", "dreg") if low < high and records[0].bound == "IWAE" else ():
        if (name, low) in phi and (name, high) in phi:
            _say_wrapped(_trend(phi[name, low], phi[name, high]))


def _trend(first: "GradientStatistics", last: "GradientStatistics") -> str:
    """Whether phi's signal-to-noise ratio rises or falls with K, beyond both intervals."""
    ends = f"from K = {first.num_samples} to {last.num_samples}"
    of = [(r.signal_to_noise, r.signal_to_noise_low, r.signal_to_noise_high) for r in (first, last)]
    values = " to ".join(_within(*each) for each in of)
    (start, start_low, start_high), (end, end_low, end_high) = of
    if start_low <= end_high and end_low <= start_high:
        return f"{first.estimator}: {ends} no significant change in phi's signal-to-noise ratio (95%: {values})."
    way, power = "rises" if end_low > start_high else "falls", ""
    if start and end and min(start_low, end_low) > 0:
        power = f" as K^{math.log(end / start) / math.log(last.num_samples / first.num_samples):.2f}"
    return f"{first.estimator}: {ends} phi's signal-to-noise ratio {way}{power}, from {values}."


def _save(
    records: Sequence["GradientStatistics"], counts: Sequence[int], table: Path, picture: Path, digest: str
) -> None:
    """Writes the records as .csv, and a picture of signal-to-noise against K, or of the variances for a single K."""
    import numpy as np

    from subo import figures
    from subo.figures.gradients import gradient_variances, signal_to_noise_curves
    from subo.files.tables import write_table

    picture.parent.mkdir(parents=True, exist_ok=True)
    lines = [asdict(record) | {"weights": digest} for record in records]
    write_table(table, [*lines[0]], (line.values() for line in lines))
    parts = dict.fromkeys(record.part for record in records)
    biased = {record.estimator for record in records if record.biased}
    if len(counts) > 1:
        found = {
            (r.part, r.estimator, r.num_samples): (r.signal_to_noise, r.signal_to_noise_low, r.signal_to_noise_high)
            for r in records
            if r.signal_to_noise is not None
        }
        names, none = dict.fromkeys(record.estimator for record in records), (np.nan,) * 3
        curves = {
            part: {name: np.array([found.get((part, name, count), none) for count in counts]).T for name in names}
            for part in parts
        }
        figure = signal_to_noise_curves(counts, curves, biased=biased)
    else:
        figure = gradient_variances(
            {part: {r.estimator: r.variance for r in records if r.part == part} for part in parts}, biased=biased
        )
    figures.save(figure, picture)


def _say_wrapped(text: str) -> None:
    print(textwrap.fill(text, _COLUMNS, subsequent_indent="  ", break_on_hyphens=False))


def _short(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _within(value: float | None, low: float, high: float) -> str:
    """A number with its interval; only the interval if it reaches 0."""
    ends = f"{_short(low)} to {_short(high)}"
    return f"{_short(value)} ({ends})" if value is not None and low > 0 else ends
