"""A run's full evaluation, written into its folder as numbers, a per-example table and figures."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subo.data.dataset import Data
from subo.data.splits import Split
from subo.evaluation.baseline import lines_of
from subo.evaluation.numbers import BITS, Number
from subo.evaluation.summary import Evaluation, share_at_floor
from subo.evaluation.training_gap import TrainingGap
from subo.experiments.chosen_depth import chosen_depth, chosen_rows
from subo.experiments.course import COURSE, Course
from subo.experiments.experiment import Experiment, baseline_of, model_for, training_seconds
from subo.experiments.units import kind_of_log_px, provenance
from subo.files.digests import digest_of
from subo.files.nonfinite import encoded
from subo.files.tables import write_table
from subo.files.whole import replacing, write_json
from subo.report.depth import Depth, Reduced
from subo.report.findings import Findings
from subo.report.full import evaluate_fully
from subo.report.sentences import sentences
from subo.report.stages import prepare
from subo.runs.run import Run
from subo.runtime.progress import stages_bar

__all__ = ["FullEvaluation", "evaluate_run_fully"]

_COLUMNS = {
    "log_px": ("importance", "log_px"),
    "log_px_se": ("importance", "standard_error"),
    "effective_sample_size": ("importance", "effective_sample_size"),
    "pareto_k": ("importance", "pareto_k"),
    "elbo": ("importance", "elbo"),
    "rate": ("importance", "rate"),
    "distortion": ("importance", "distortion"),
    "log_px_annealed": ("annealed", "log_px"),
    "log_px_annealed_se": ("annealed", "standard_error"),
    "effective_sample_size_annealed": ("annealed", "effective_sample_size"),
    "acceptance": ("annealed", "acceptance"),
    "log_px_prior": ("prior", "log_px"),
    "effective_sample_size_prior": ("prior", "effective_sample_size"),
    "pareto_k_prior": ("prior", "pareto_k"),
    "log_px_best": ("gaps", "log_px"),
    "elbo_best": ("gaps", "elbo_best"),
    "elbo_best_se": ("gaps", "elbo_best_se"),
    "elbo_flow": ("gaps", "elbo_richer"),
    "elbo_flow_se": ("gaps", "elbo_richer_se"),
}


@dataclass(frozen=True, eq=False)
class FullEvaluation:
    """What a full evaluation wrote.

    Attributes:
        numbers: Lines of the table.
        sentences: What the table means.
        complete: Whether everything is measured; if not, the same call continues.
        written: Paths of the files.
    """

    numbers: tuple[Number, ...]
    sentences: tuple[str, ...]
    complete: bool
    written: tuple[Path, ...]


def evaluate_run_fully(
    experiment: Experiment,
    data: Data,
    *,
    split: str = "test",
    depth: Depth | None = None,
    reducible: Collection[str] = (),
    minutes: float | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
    note: Callable[[str], object] | None = None,
) -> FullEvaluation:
    """Runs the full evaluation of a run and writes it into its folder; continues where an earlier call stopped.

    Args:
        experiment: The run.
        data: Data of the run.
        split: ``test``, ``validation`` or ``train``.
        depth: Amount of work.
        reducible: Names of its numbers that may be lowered to what fits, see `chosen_depth`.
        minutes: Time limit.
        seed: Seed for all random numbers.
        processes: Number of processes that share the work; progress is shown when all of them are done.
        progress: Whether to show progress.
        note: Is given what should be known before, such as how much is measured.
    """
    run, asked = experiment.run, depth or Depth()
    run.check_links()
    held_out: Split = getattr(data, split)
    positions = chosen_rows(len(held_out), asked.max_data if experiment.config.is_local else None, seed=seed)
    held_out = held_out.take(positions) if len(positions) < len(held_out) else held_out  # a q is fitted only to these
    began = time.monotonic()
    model, folder = model_for(experiment, held_out, progress=progress), run.pieces(split)
    identity = _identity(experiment, data, positions)
    prepare(folder, identity)
    options: dict[str, Any] = {"training_seconds": training_seconds(run), "folder": folder, "note": note}
    chosen = chosen_depth(asked, model, held_out, reducible=reducible, **options)
    course = Course(experiment, held_out, split, chosen.depth, seed)
    with stages_bar(show=progress) as shown:
        shown_by: dict[str, Any] = {"advance": shown.advance, "start": shown.add, "notice": shown.say}
        kept: dict[str, Any] = {"folder": folder, "identity": identity, "minutes": minutes, "seed": seed}
        train = data.train if split != "train" else None
        findings = evaluate_fully(
            model, held_out, train=train, depth=chosen.depth, processes=processes, **kept, **shown_by
        )
    table = _lines(experiment, findings, held_out)
    said = (*chosen.sentences(), *sentences(findings, settings=experiment.config.settings))
    written = [run.evaluation_of(split), run.per_datum(split)]
    evaluation = findings.evaluation(split=held_out, name=split, at_floor=share_at_floor(model, held_out))
    if evaluation is not None and (baseline := baseline_of(experiment, data, held_out)) is not None:
        rows, of_model = findings.measured["importance"].rows, findings.values("importance", "log_px")
        assert of_model is not None
        evaluation = replace(evaluation, baseline=replace(baseline, log_px=baseline.log_px[rows]).beside(of_model))
        table = (table[0], *lines_of(evaluation.baseline), *table[1:])
    log_px = experiment.config.log_px
    table = tuple(_called(line, log_px) for line in table)
    said = tuple(sentence.replace("log p(x)", log_px) for sentence in said)
    known = (written[0], experiment, chosen, evaluation, table, said)
    experiment.check_current()
    _write_numbers(*known, complete=findings.complete and not course.missing)
    _write_per_datum(written[1], findings, held_out, positions, experiment.digest)
    if findings.complete and course.missing:
        with stages_bar(show=progress) as shown:
            shown.add(COURSE, len(course.missing))
            over = partial(_is_over, began, minutes)
            course.go_on(over, shown.advance, processes=processes)
        _write_numbers(*known, complete=not course.missing)
    complete, points = findings.complete and not course.missing, course.points
    if len(points) > 1 and not _is_drawn(points):
        said += ("The gap over training is not drawn: fewer than two of its points have finite numbers.",)
    try:
        written += _draw(run, split, findings, points)
    except Exception as error:  # in any case, the numbers are written
        said += (f"Careful: not all pictures could be drawn ({error}). The numbers are written.",)
    return FullEvaluation(table, said, complete, tuple(written))


def _is_over(began: float, minutes: float | None) -> bool:
    """Whether time is up."""
    return minutes is not None and time.monotonic() - began >= 60 * minutes


def _lines(experiment: Experiment, findings: Findings, held_out: Split) -> tuple[Number, ...]:
    """The lines of the table; densities have no bits, and those of a bound are on the probability of the levels."""
    kind = kind_of_log_px(experiment.config)
    rows = findings.measured["importance"].rows
    table = findings.numbers(num_elements=None if kind == "density" else held_out.elements[rows])
    if kind != "bound":
        return table
    return tuple(replace(line, name=f"{BITS}, at most") if line.name == BITS else line for line in table)


def _called(line: Number, log_px: str) -> Number:
    """A line with the name that log p(x) has in this run."""
    names = {name: getattr(line, name).replace("log p(x)", log_px) for name in ("name", "estimator")}
    return replace(line, **names)


def _identity(experiment: Experiment, data: Data, positions: Tensor) -> str:
    """Identifies weights, settings, data and program; results for any others cannot be used."""
    return digest_of([experiment.digest, data.fingerprint, positions, version("subo")])


def _write_numbers(
    path: Path,
    experiment: Experiment,
    chosen: Reduced,
    evaluation: Evaluation | None,
    table: Sequence[Number],
    said: Sequence[str],
    *,
    complete: bool,
) -> None:
    """``evaluation.json``: what ``evaluate`` writes, as far as known, and all lines of the table."""
    summary = {} if evaluation is None else evaluation.to_dict()
    depth = {"depth": asdict(chosen.depth), "depth_reduced_from": chosen.reduced_from}
    about = {"complete": complete, **depth, "sentences": list(said)}
    lines = {"numbers": encoded([asdict(line) for line in table])}
    write_json(path, {"weights": experiment.digest, **summary, **provenance(experiment.config), **about, **lines})


def _write_per_datum(path: Path, findings: Findings, split: Split, positions: Tensor, digest: str) -> None:
    """``evaluation.csv``: one line per example; empty where a number was not measured, nan where it is undefined.

    The last column contains the digest of the weights.
    """
    rows = findings.measured["importance"].rows
    columns = {
        name: (findings.measured[stage].rows, values)
        for name, (stage, result) in _COLUMNS.items()
        if (values := findings.values(stage, result)) is not None
    }
    known = {name: _cells(*column, rows) for name, column in (columns | _gap_columns(findings)).items()}
    names = [] if split.names is None else [("name", [split.names[i] for i in rows.tolist()])]
    labels = [] if split.labels is None else [("label", split.take(rows).label_names())]
    named = [("index", positions[rows].tolist()), *names, *labels, *known.items(), ("weights", [digest] * len(rows))]
    write_table(path, [name for name, _ in named], zip(*(values for _, values in named), strict=True))


def _cells(measured: Tensor, values: Tensor, rows: Tensor) -> list[float | str]:
    """The values for these rows, some of which were measured."""
    found = dict(zip(measured.tolist(), values.double().tolist(), strict=True))
    return [found.get(row, "") for row in rows.tolist()]


def _gap_columns(findings: Findings) -> dict[str, tuple[Tensor, Tensor]]:
    """The gaps, and whether their log p(x) comes from annealing, with the positions of their examples."""
    found = findings.gaps
    if found is None:
        return {}
    rows, by_annealing = findings.rows_of_gaps, torch.tensor([name == "annealed" for name in found.log_px_from])
    columns = {"approximation_gap": found.approximation, "amortization_gap": found.amortization}
    return {name: (rows, values) for name, values in (columns | {"gaps_by_annealing": by_annealing}).items()}


def _is_drawn(course: Sequence[TrainingGap]) -> bool:
    return sum(math.isfinite(point.subo) for point in course) > 1


def _draw(run: Run, split: str, findings: Findings, course: Sequence[TrainingGap]) -> Iterator[Path]:
    """Draws the figures of the results so far."""
    from subo.figures.calibration import rank_histograms  # matplotlib takes a second
    from subo.figures.gaps import gap_bars, gap_curves, gaps_per_datum

    suffix = "" if split == "test" else f"-{split}"
    figures: dict[str, Any] = {}
    found = findings.gaps
    if found is not None and len(found.finite().elbo) > 1:
        means, left_out = found.finite().means(), len(found.elbo) - len(found.finite().elbo)
        pair = [np.array(means[name])[:, None] for name in ("approximation", "amortization")]
        figures["gaps"] = gap_bars([run.path.name], np.array([means["log_px"][0]]), *pair, left_out=left_out)
        figures["gaps-per-datum"] = gaps_per_datum(found.approximation.numpy(), found.amortization.numpy())
    calibration = findings.record("calibration")
    if calibration is not None:
        figures["calibration"] = rank_histograms(
            calibration.counts.numpy(),
            calibration.names,
            calibration.readings,
            calibration.p_values.numpy(),
            num_ranks=calibration.num_ranks,
        )
    if _is_drawn(course):
        points = {
            name: np.array([[getattr(point, name + end) for point in course] for end in ("", "_se")])
            for name in ("surprisal", "error")
        }
        steps = np.array([point.step for point in course])
        figures["gap-over-training"] = gap_curves(steps, points["surprisal"], points["error"])
    run.figures.mkdir(exist_ok=True)
    for name in ("gaps", "gaps-per-datum", "calibration", "gap-over-training"):
        path = run.picture(f"{name}{suffix}.png")
        if name in figures:
            with replacing(path) as partial:
                figures[name].savefig(partial, dpi=150)
            yield path
        else:  # from other settings
            path.unlink(missing_ok=True)
