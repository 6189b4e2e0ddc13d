"""A run's full evaluation: what was measured goes into its folder as numbers, a table per datum and figures."""

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subo.data import Data, Split, stream
from subo.evaluation.full import Depth, Findings, evaluate_fully
from subo.evaluation.numbers import BITS, Number, calibration_of, gaps_of, numbers, sentences
from subo.evaluation.pareto import HIGH_PARETO_K
from subo.evaluation.summary import Scores, layer_numbers, numbers_per_step, rows_at_a_time, share_at_floor
from subo.evaluation.training_gap import TrainingGap, gap_over_training, models_over_training
from subo.experiments import Experiment, model_for
from subo.files import read_json, write_json, write_text
from subo.progress import stages_bar
from subo.runs import Run
from subo.units import kind_of_log_px, provenance

__all__ = ["FullEvaluation", "evaluate_run_fully"]

_TRAINING_DATA = 500  # by which the gap is followed over training
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
    "acceptance": ("annealed", "acceptance"),
    "log_px_prior": ("prior", "log_px"),
    "log_px_best": ("gaps", "log_px"),
    "elbo_best": ("gaps", "elbo_best"),
    "elbo_flow": ("gaps", "elbo_richer"),
}


@dataclass(frozen=True, eq=False)
class FullEvaluation:
    """What a full evaluation wrote.

    Attributes:
        numbers: The table.
        sentences: What it means.
        complete: Whether nothing is left to do; else the same call goes on.
        written: The files.
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
    minutes: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FullEvaluation:
    """Measures all there is to measure of a run, and writes it into its folder; goes on where an earlier call stopped.

    Args:
        experiment: The run.
        data: Its data.
        split: ``test``, ``validation`` or ``train``.
        depth: How much work.
        minutes: How long at the most.
        seed: Of all random numbers.
        progress: Whether to show progress.
    """
    run, depth = experiment.run, depth or Depth()
    held_out: Split = getattr(data, split)
    positions = torch.arange(len(held_out))
    if experiment.config["options"].get("inference") == "local" and depth.max_data is not None:
        few = torch.randperm(len(held_out), generator=stream("evaluation data", seed))[: depth.max_data]
        positions = few.sort().values
        held_out = held_out.take(positions)  # a q is fitted to these alone
    model = model_for(experiment, held_out, progress=progress)
    with stages_bar(show=progress) as shown:
        findings = evaluate_fully(
            model,
            held_out,
            train=data.train if split != "train" else None,
            depth=depth,
            minutes=minutes,
            folder=run.pieces(split),
            identity=_identity(run),
            seed=seed,
            advance=shown.advance,
            start=shown.add,
        )
    counts = kind_of_log_px(experiment.config) != "density"
    num_elements = held_out.elements[findings.measured["importance"].rows] if counts else None
    table = numbers(findings, num_elements=num_elements)
    if kind_of_log_px(experiment.config) == "bound":  # on the probability of the levels
        table = tuple(replace(line, name=f"{BITS}, at most") if line.name == BITS else line for line in table)
    said = sentences(findings)
    written = [run.evaluation_of(split), run.per_datum(split)]
    _write_numbers(written[0], experiment, findings, table, said, held_out, split, share_at_floor(model, held_out))
    write_text(written[1], _per_datum(findings, held_out, positions))
    course = _course(experiment, held_out, split, seed) if findings.complete else []
    written += list(_draw(run, split, findings, course))
    return FullEvaluation(table, said, findings.complete, tuple(written))


def _identity(run: Run) -> str:
    """Of the weights: what was measured of others is of no use."""
    return hashlib.sha256(run.model.read_bytes()).hexdigest()


def _write_numbers(
    path: Path,
    experiment: Experiment,
    findings: Findings,
    table: Sequence[Number],
    said: Sequence[str],
    held_out: Split,
    split: str,
    at_floor: float | None,
) -> None:
    """``evaluation.json``: what ``evaluate`` writes, as far as it is known, and all lines of the table."""
    summary: dict[str, Any] = {}
    sampled = findings.measured["importance"].results
    for name in ("log_px", "elbo", "rate", "distortion"):
        if name in sampled:
            values = sampled[name]
            summary |= {name: values.mean().item(), f"{name}_se": values.std().item() / math.sqrt(len(values))}
    if sampled:
        summary |= {
            "bits_per_dim": bits[0] if (bits := [line.value for line in table if line.name.startswith(BITS)]) else None,
            "median_ess": sampled["effective_sample_size"].median().item(),
            "median_pareto_k": sampled["pareto_k"].nanmedian().item(),
            "high_pareto_k": int((sampled["pareto_k"] > HIGH_PARETO_K).sum()),
            "num_samples": findings.depth.num_samples,
            "num_data": len(sampled["log_px"]),
            "split": split,
        }
        summary |= _by_part(findings, held_out)
    if findings.usage is not None:
        summary |= {"active_units": int(findings.usage.active.sum()), "latent_dim": len(findings.usage.active)}
        if findings.usage.kl is not None:
            summary["kl_per_dimension"] = findings.usage.kl.tolist()
    write_json(
        path,
        {name: _plain(value) for name, value in summary.items()}
        | provenance(experiment.config)
        | {
            "at_floor": at_floor,
            "complete": findings.complete,
            "depth": asdict(findings.depth),
            "numbers": [{name: _plain(value) for name, value in asdict(line).items()} for line in table],
            "sentences": list(said),
        },
    )


def _by_part(findings: Findings, held_out: Split) -> dict[str, Any]:
    """What ``evaluate`` tells step by step and layer by layer."""
    stage, usage = findings.measured["importance"], findings.usage
    found: dict[str, Any] = {}
    if "rates" not in stage.results:  # pieces of an older version
        return found
    if held_out.lengths is not None:
        names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "distortion")
        values = {name: stage.results[name] for name in names}
        scores = Scores(**values, rates=stage.results["rates"], num_samples=findings.depth.num_samples)
        found["per_step"] = numbers_per_step(scores, held_out.lengths[stage.rows])
    if usage is not None and len(usage.layers) > 1:
        found["layers"] = layer_numbers(usage, stage.results["rates"].mean(1).tolist())
    return found


def _per_datum(findings: Findings, split: Split, positions: Tensor) -> str:
    """A line for each datum that was measured; empty where a number is not known."""
    rows = findings.measured["importance"].rows
    columns = {name: findings.column(stage, result, len(split))[rows] for name, (stage, result) in _COLUMNS.items()}
    known = {name: values.tolist() for name, values in columns.items() if not values.isnan().all()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [] if split.names is None else [("name", [split.names[i] for i in rows.tolist()])]
    labels = [] if split.labels is None else [("label", split.labels[rows].tolist())]
    named = [("index", positions[rows].tolist()), *names, *labels, *known.items()]
    writer.writerow([name for name, _ in named])
    for line in zip(*(values for _, values in named), strict=True):
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in line])
    return text.getvalue()


def _course(experiment: Experiment, split: Split, name: str, seed: int) -> Sequence[TrainingGap]:
    """Surprisal and error at the weights that were kept during training; measured once."""
    run = experiment.run
    if len(run.kept_epochs()) < 2 or experiment.config["options"].get("inference") == "local":
        return []
    kept = run.pieces(name) / "training.json"
    if kept.exists():
        return [TrainingGap(**point) for point in read_json(kept)]
    chosen = torch.randperm(len(split), generator=stream("training gap data", seed))[:_TRAINING_DATA]
    x, context = split.read(chosen.sort().values, generator=stream("training gap bits", seed))
    model = experiment.objective.model
    max_rows = rows_at_a_time(model, split)
    course = gap_over_training(models_over_training(run, model), x, context, seed=seed, max_rows=max_rows)
    write_json(kept, [asdict(point) for point in course])
    return course


def _draw(run: Run, split: str, findings: Findings, course: Sequence[TrainingGap]) -> Iterator[Path]:
    """The figures of what is known."""
    from subo.figures.calibration import rank_histograms  # matplotlib takes a second
    from subo.figures.gaps import gap_bars, gap_curves, gaps_per_datum

    suffix = "" if split == "test" else f"-{split}"
    figures: dict[str, Any] = {}
    found = gaps_of(findings)
    if found is not None and len(found.elbo) > 1:
        means = found.means()
        pair = [np.array(means[name])[:, None] for name in ("approximation", "amortization")]
        figures["gaps"] = gap_bars([run.path.name], np.array([means["log_px"][0]]), *pair)
        figures["gaps-per-datum"] = gaps_per_datum(found.approximation.numpy(), found.amortization.numpy())
    calibration = calibration_of(findings)
    if calibration is not None:
        figures["calibration"] = rank_histograms(
            calibration.counts.numpy(),
            calibration.names,
            calibration.readings,
            calibration.p_values.numpy(),
            num_ranks=calibration.num_ranks,
        )
    if len(course) > 1:
        points = {
            name: np.array([[getattr(point, name + end) for point in course] for end in ("", "_se")])
            for name in ("surprisal", "error")
        }
        steps = np.array([point.step for point in course])
        figures["gap-over-training"] = gap_curves(steps, points["surprisal"], points["error"])
    run.figures.mkdir(exist_ok=True)
    for name, figure in figures.items():
        path = run.figures / f"{name}{suffix}.png"
        figure.savefig(path, dpi=150)
        yield path


def _plain(value: Any) -> Any:
    """None for numbers that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
