"""Which examples and cells are odd, for the command ``score``: p-values against the run's test data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from subo.cli.messages import say
from subo.cli.rows import are_own, of_rows
from subo.data.saving import save_array
from subo.errors import InputError

if TYPE_CHECKING:
    from subo.data.dataset import Data
    from subo.data.splits import Split
    from subo.evaluation.scores import Scores
    from subo.experiments.experiment import Experiment

__all__ = ["Oddness", "oddness_of"]

_ODD_CELL = 0.01  # p-value up to which a cell's column is named
_NAMED = 3  # columns
_REGRET_STEPS = 300  # at most, for each example
_CELL_SAMPLES = 200  # at most: cells are ranked, and each needs its own sum over the samples


@dataclass(frozen=True)
class Oddness:
    """What is known of odd examples.

    Attributes:
        columns: Leading columns of the output, by name.
        sentences: What is said of them.
    """

    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()

    def say(self) -> None:
        """Prints the sentences."""
        for sentence in self.sentences:
            say(sentence)


def oddness_of(
    experiment: "Experiment",
    split: "Split",
    scores: "Scores",
    *,
    source: str,
    part: str,
    alpha: float | None,
    fdr: bool,
    regret: bool,
    cells: Path | None,
    seed: int,
    processes: int = 1,
) -> Oddness:
    """P-values of examples, those that are odd, and in a table the columns of their odd cells.

    Args:
        experiment: The run.
        split: The examples.
        scores: Their scores.
        source: Where they are from.
        part: Which part of it they are.
        alpha: The largest p-value of an odd example; None: none is marked.
        fdr: Whether alpha is the share of mistakes among the marked.
        regret: Whether to measure the likelihood regret, too.
        cells: File for the scores of a table's cells.
        seed: Seed for the samples.
        processes: Number of processes that share the examples.
    """
    from subo.evaluation.conformal import conformal_p_values, marked
    from subo.evaluation.own_units import log_slopes
    from subo.evaluation.regret import likelihood_regret
    from subo.evaluation.scores import score
    from subo.experiments.experiment import model_for
    from subo.inference.ascent import Ascent

    table = experiment.config.data.meaning.table
    if cells is not None and table is None:
        raise InputError("--cells are those of a table of mixed columns, which this run's data are not: leave it out")
    if alpha is None and table is None and not regret:
        return Oddness()
    try:
        data = experiment.data()
    except InputError as error:
        if alpha is not None or cells is not None or regret:
            raise InputError(f"p-values are ranks among the run's test data: {error}") from error
        return Oddness(sentences=(f"No p-values: {error}",))
    held_out, (own, num_trained) = data.test, _own(experiment, data, split, source, part)
    model, count = model_for(experiment, held_out, progress=True), scores.num_samples
    of = ", by log_px_scaled, log p(x) with each column in units of its own spread" if table else ""
    say(f"p-values are ranks among the {len(held_out):,} test examples of the run, which are scored, too{of}")
    of_test = score(model, held_out, num_samples=count, seed=seed, processes=processes)
    pairs = (scores, split), (of_test, held_out)
    scaled, ranked = (scored.log_px - log_slopes(model, part).sum(1) for scored, part in pairs)
    p_values = conformal_p_values(scaled, ranked, own=own)
    columns: dict[str, Sequence[Any]] = {"p_value": p_values.tolist()}
    trained = f"{num_trained:,} of the {len(split):,} are the run's training examples"
    sentences = [f"Careful: {trained}, which rank as less odd than they are"] * (num_trained > 0)
    if regret:
        search: Any = {"ascent": Ascent(steps=_REGRET_STEPS), "seed": seed, "processes": processes, "progress": True}
        of_each, of_others = (likelihood_regret(model, part, **search) for part in (split, held_out))
        columns["regret"] = of_each.tolist()
        ranks = conformal_p_values(-of_each, -of_others, own=own)
        columns["regret_p_value"] = ranks.where(~of_each.isnan(), torch.nan).tolist()
        mean, zeros = of_each[of_each.isfinite()].mean(), int((of_each == 0).sum())
        sentences.append(
            f"regret: {mean:.2g} nats on average; {zeros:,} of {len(of_each):,} have 0, for which no q was found whose "
            "bound is higher by three standard errors"
        )
    if alpha is not None:
        odd = marked(p_values, alpha=alpha, false_discovery_rate=fdr)
        columns["odd"] = odd.int().tolist()
        sentences += _of_the_marked(odd, own, len(held_out), alpha=alpha, fdr=fdr)
    if table is not None:
        names = [column.name for column in table.modeled]
        options: dict[str, Any] = {"num_samples": min(count, _CELL_SAMPLES), "seed": seed, "processes": processes}
        columns["log_px_scaled"] = scaled.tolist()
        columns["odd_columns"], of_cells = _odd_cells(model, split, held_out, names, own=own, out=cells, **options)
        sentences += of_cells
    return Oddness(columns, tuple(sentences))


def _of_the_marked(odd: Tensor, own: Tensor | None, num_held_out: int, *, alpha: float, fdr: bool) -> list[str]:
    """What is said of the marked examples, and why there may be none."""
    from subo.evaluation.conformal import too_few_held_out

    whose = "of the marked ones are expected to be ordinary examples" if fdr else "of ordinary examples would be"
    sentences = [f"{int(odd.sum()):,} of {len(odd):,} are marked as odd; at most {alpha:.3g} {whose}"]
    are_own = torch.zeros(len(odd), dtype=torch.bool) if own is None else own >= 0
    others = _others(num_held_out, own)
    fixes = "increase `alpha`, or fit to more data, which leaves more test examples"
    if message := too_few_held_out(others, alpha, fixes=fixes):
        sentences.append(f"Careful: {message}")
    if fdr and are_own.any():
        sentences.append(
            f"Careful: {int(are_own.sum()):,} are the run's test examples, whose p-values are ranks among each other "
            "and thus evenly spread: --fdr marks none or few of them. Leave it out for these"
        )
    return sentences


def _others(num_held_out: int, own: Tensor | None) -> int:
    """Test examples among which each is ranked: one fewer if all of them are test examples themselves."""
    return num_held_out - int(own is not None and bool((own >= 0).all()))


def _own(experiment: "Experiment", data: "Data", split: "Split", source: str, part: str) -> tuple[Tensor | None, int]:
    """Position of each example among the run's test data, -1 for others, and how many are from its training data.

    Examples are known by their rows if they come from the source of the run.
    """
    if not are_own(experiment, source):
        return None, 0
    if part == "test":
        return torch.arange(len(split)), 0
    if data.test.rows is None or data.train.rows is None:  # from files of their own
        return None, len(split) if part == "train" else 0
    rows = torch.arange(1, len(split) + 1) if split.rows is None else split.rows
    positions = torch.full((int(max(rows.max(), data.test.rows.max())) + 1,), -1)
    positions[data.test.rows.long()] = torch.arange(len(data.test))
    return positions[rows.long()], int(torch.isin(rows, data.train.rows.to(rows)).sum())


def _odd_cells(
    model: Any,
    split: "Split",
    held_out: "Split",
    names: Sequence[str],
    *,
    own: Tensor | None,
    out: Path | None,
    **options: Any,
) -> tuple[list[str], list[str]]:
    """The columns of the odd cells of each row, and what is said of them; writes log p of each cell if asked to."""
    from subo.evaluation.cells import cell_p_values, cell_scores
    from subo.evaluation.own_units import log_slopes

    scores, sentences = cell_scores(model, split, **options), []
    ranked = cell_scores(model, held_out, **options) - log_slopes(model, held_out)
    p_values = cell_p_values(scores - log_slopes(model, split), ranked, own=own)
    named = _odd_columns(p_values.masked_fill(scores == -torch.inf, 0), names)
    others = _others(len(held_out), own)
    if _ODD_CELL * (others + 1) < 1:
        sentences.append(
            f"Careful: no cell that its kind allows is named as odd, since among {others:,} other test rows none ranks "
            f"below {1 / (others + 1):.2g}, and the oddest {_ODD_CELL:.0%} are named. --cells writes log p of each "
            "cell given the others of its row"
        )
    if out is not None:
        which = {f"{key} of the file" if key in names else key: values for key, values in of_rows(split).items()}
        save_array(out, scores, names=names, of=which)
        sentences.append(f"log p of each cell given the others of its row written to {out}")
    return named, sentences


def _odd_columns(p_values: Tensor, names: Sequence[str]) -> list[str]:
    """The columns of each row's odd cells, the oddest first, with their p-values; 0 of what its kind does not allow."""
    lowest, which = p_values.sort(dim=1)
    rows = zip(lowest[:, :_NAMED].tolist(), which[:, :_NAMED].tolist(), strict=True)
    return ["; ".join(f"{names[i]} ({p:.2g})" for p, i in zip(*row, strict=True) if p <= _ODD_CELL) for row in rows]
