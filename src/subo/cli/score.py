"""The command ``score``."""

from pathlib import Path
from typing import TYPE_CHECKING

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.cli.oddness import Oddness, oddness_of
from subo.cli.rows import are_own, of_rows, run_and_rows
from subo.data.saving import save_array
from subo.errors import InputError
from subo.runtime.wording import counted

if TYPE_CHECKING:
    from subo.data.splits import Split
    from subo.evaluation.scores import Scores

__all__ = ["score"]


def score(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    num_samples: int | None = None,
    alpha: float | None = None,
    fdr: bool = False,
    regret: bool = False,
    cells: Path | None = None,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
    seed: int = 0,
    processes: int = 1,
) -> None:
    """Estimates log p(x) of each example, the anomaly score: the lower, the more unusual.

    With --alpha, and for tables of mixed columns, each has a p-value: the share of the run's test data that score no
    higher, which are ranked with it as its equals; a test example of the run is ranked among the others. Whatever the
    model, of ordinary examples at most a share alpha get a p-value of at most alpha. In tables, the columns of odd
    cells are named, by such p-values of each cell given the others of its row.

    The samples used for a row depend on its file: in another file its estimate differs, within its standard error, and
    by more where it has another --num-samples. For dequantized data, it is the estimate for one draw of the noise, the
    same at every call. Rows outside the likelihood's support have -inf. A conditional model (fit --condition) scores
    log p(x|c).

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Output file: .csv with columns for the p-value and the odd columns, if there are any, log_px, its standard
            error, effective sample size and Pareto k-hat, and for sequences their steps and log_px per step; the first
            columns give the row of each example in the file (the first below a header is row 1), its name (in a folder
            of files) and its label if it has them; or .npy with log_px.
        num_samples: Posterior samples for each example; by default 1,000, or fewer for more than 5,000 examples (at
            least 100), where those of the run count as one file.
        alpha: Mark examples whose p-value is at most alpha, in the column odd.
        fdr: Mark fewer, such that alpha is the expected share of ordinary ones among the marked (Benjamini-Hochberg).
        regret: Also give the likelihood regret of each example, how many nats the bound gains when q is optimized for
            it alone, and its p-value: a second score, high for what the encoder has never seen, also where log p(x) is
            high. It takes up to 300 steps for each example, and for the test data.
        cells: For a table of mixed columns, another output file (.csv): log p of each cell given the others of its row.
        how: How the data are read.
        seed: Seed for the samples.
        processes: Number of processes that share the examples; the scores do not depend on it.
    """
    from subo.evaluation.effort import NUM_SAMPLES, caution_of_samples, samples_for
    from subo.evaluation.scores import score as scored
    from subo.experiments.experiment import model_for
    from subo.runtime.progress import bar

    ending = check_ending(out, ".npy", ".csv")
    check_apart(out, run, data)
    if cells is not None:
        check_ending(cells, ".csv")
        check_apart(cells, run, data, out)
    if fdr and alpha is None:
        raise InputError("--fdr needs --alpha, the share of ordinary examples among those that are marked.")
    experiment, split = run_and_rows(run, data, how, scored=True)
    model = model_for(experiment, split, progress=True)
    whole = sum(experiment.config.data.sizes.values()) if are_own(experiment, data) else 0
    most = max(whole, len(split))  # so that an example of the run has one score and p-value, whatever the part
    count = samples_for(most) if num_samples is None else num_samples
    if num_samples is None and count < NUM_SAMPLES:
        say(f"{count} samples for each of {most:,} examples, to save time; more by --num-samples {NUM_SAMPLES}")
    if caution := caution_of_samples(model, split, count):
        say(caution)
    with bar(f"log p(x), {count} samples", len(split), show=True) as advance:
        scores = scored(model, split, num_samples=count, seed=seed, processes=processes, advance=advance)
    shared = {"source": data, "part": how.part, "seed": seed, "processes": processes}
    oddness = oddness_of(experiment, split, scores, alpha=alpha, fdr=fdr, regret=regret, cells=cells, **shared)
    if ending == ".npy":
        save_array(out, scores.log_px.numpy())
    else:
        _save_table(out, scores, split, oddness)
    _say_scores(out, scores, split, experiment.config.log_px)
    oddness.say()


def _save_table(out: Path, scores: "Scores", split: "Split", oddness: "Oddness") -> None:
    """Writes one row per example."""
    import numpy as np

    names = ("log_px", "standard_error", "effective_sample_size", "pareto_k")
    columns = {name: getattr(scores, name) for name in names}
    if split.lengths is not None:
        columns |= {"steps": split.lengths.double(), "log_px_per_step": scores.log_px / split.lengths}
    table = np.stack([column.numpy() for column in columns.values()], axis=1)
    save_array(out, table, names=list(columns), of={**of_rows(split), **oddness.columns})


def _say_scores(out: Path, scores: "Scores", split: "Split", name: str) -> None:
    """Prints what was written under a name: the mean, the lowest, and how many estimates are doubtful."""
    import torch

    from subo.evaluation.evidence.pareto import highest_pareto_k

    values, unit = scores.log_px, ""
    if split.lengths is not None:  # the lowest sum over steps would be that of a long sequence
        values, unit = scores.log_px / split.lengths, " per step"
    finite = scores.log_px.isfinite()
    if not finite.any():
        say(f"{counted(len(split), 'value')} of {name} written to {out}: none is finite")
        return
    lowest = int(values.where(finite, torch.inf).argmin())
    place = f"in row {of_rows(split)['row'][lowest]}" if split.names is None else f"of {split.names[lowest]}"
    left_out = f" ({int((~finite).sum()):,} left out: not finite)" * (not finite.all())
    say(
        f"{counted(len(split), 'value')} of {name} written to {out}: mean {scores.log_px[finite].mean():.2f} nats, "
        f"lowest{unit} {values[lowest]:.2f} {place}{left_out}"
    )
    highest = highest_pareto_k(scores.num_samples)
    doubtful = int((scores.pareto_k > highest).sum())
    if doubtful:
        say(
            f"Note: the importance weights of {doubtful:,} of {len(split):,} have Pareto k-hat above {highest:.2g} "
            "(column pareto_k): their log p(x) is only known to be about this or higher. Unusual data often have such "
            "weights, since the encoder has never seen anything like them: this is no reason to doubt that they are "
            "unusual. More samples may give log p(x) itself, which is not needed to rank the scores: --num-samples "
            f"{10 * scores.num_samples}"
        )
