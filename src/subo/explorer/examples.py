"""The examples that a page shows: their values, their posteriors, what they are colored by."""

import csv
import math
from typing import Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from subo.data.dataset import Data
from subo.data.splits import Split
from subo.data.stored_rows import stored
from subo.evaluation.cells import cell_p_values, cell_scores
from subo.evaluation.latents.usage import LatentUsage, draws, latent_usage
from subo.evaluation.own_units import log_slopes
from subo.evaluation.scores import Scores, score
from subo.experiments.experiment import Experiment
from subo.explorer.numbers import packed
from subo.report.table_pictures import column_values
from subo.runtime.randomness import stream

__all__ = ["chosen", "example_record", "packed_examples"]

_MOST = 2000  # examples
_BYTES = 700_000  # of their values and posteriors
_BYTE = 255
_WORK = 150_000_000  # elements decoded for their log p(x)
_RANKED, _SAMPLES, _ODD = 500, 100, 0.01  # rows among which cells are ranked, samples for each, largest p-value


def chosen(split: Split, *, latents: int, seed: int = 0) -> tuple[Split, Tensor]:
    """The examples that the page shows, as many as fit, with bits and noise drawn once, and their positions."""
    bits = {"bits": 1, "u8": 8, "f32": 32}[_precision(split)] * split.event_shape.numel()
    most = min(_MOST, max(50, _BYTES // max(1, bits // 8 + 8 * latents)))
    order = torch.randperm(len(split), generator=stream("examples of a page", seed))
    rows = order[:most].sort().values
    few = split.take(rows)
    return (few.drawn(stream("evaluation bits", seed)) if few.resample else few), rows


def _precision(split: Split) -> Literal["bits", "u8", "f32"]:
    """How values are packed: as bits, as levels that fit into a byte, or as numbers."""
    if split.x.is_floating_point() or split.dequantize:
        return "f32"
    if split.resample:
        return "bits"
    most = int(stored(split.x).max())
    if split.levels == 1 and most <= 1:
        return "bits"
    return "u8" if most <= _BYTE else "f32"


def packed_examples(x: Tensor, few: Split) -> dict[str, Any]:
    """The examples; of levels and classes their numbers, and by what they are divided."""
    precision = _precision(few)
    if precision == "u8":
        return packed((few.levels * x).round(), precision) | {"levels": few.levels}
    return packed(x, precision)


def example_record(experiment: Experiment, model: Any, data: Data, few: Split, rows: Tensor, *, split: str) -> dict:
    """The examples as a record: values, posteriors and numbers of each, and what colors them.

    Args:
        experiment: The run.
        model: Its model for these examples.
        data: Its data.
        few: The examples.
        rows: Their positions in the split.
        split: Name of the split.
    """
    usage = latent_usage(model, few)
    record: dict[str, Any] = {
        "rows": (rows + 1).tolist(),
        "source": None if few.rows is None else few.rows.tolist(),
        "split": split,
        "colors": _colors(experiment, data, few, rows, split),
        "labels": None if few.labels is None else few.labels.tolist(),
        "latents": _latents(usage),
        "plane": _plane(usage),
    }
    if few.lengths is not None:
        return record | _by_steps(record, few.lengths)
    x, context = few.read(torch.arange(len(few)))
    record["x"] = packed_examples(x, few)
    if "given" in context:
        record["given"] = packed(context["given"])
    if "size" in context:
        record["size"] = packed(context["size"])
    if (posterior := _posteriors(model, few)) is not None:
        record["q"] = posterior
    elements = len(few) * few.event_shape.numel()
    if data.meaning.table is not None:
        record["odd"] = _odd_cells(model, few, data.test, own=rows if split == "test" else None)
    scores = score(model, few, num_samples=min(1000, max(50, _WORK // elements)))
    record["scores"] = _scores(scores)
    known = {"log p(x)": scores.log_px, "rate": scores.rates.sum(0), "ELBO": scores.elbo, "k-hat": scores.pareto_k}
    record["colors"] = {**record["colors"], **{name: _finite(values) for name, values in known.items()}}
    return record


def _by_steps(record: dict[str, Any], lengths: Tensor) -> dict[str, Any]:
    """Of sequences, the points of the plane are the states of their steps: each has its sequence's row and colors."""
    of = torch.arange(len(lengths)).repeat_interleave(lengths).tolist()
    steps = [step for length in lengths.tolist() for step in range(1, length + 1)]
    known = {name: [values[i] for i in of] for name, values in record["colors"].items()}
    labels = None if record["labels"] is None else [record["labels"][i] for i in of]
    rows = [record["rows"][i] for i in of]
    source = None if record["source"] is None else [record["source"][i] for i in of]
    return {"rows": rows, "source": source, "labels": labels, "sequence": of, "colors": {**known, "time step": steps}}


def _latents(usage: LatentUsage) -> dict[str, Any]:
    """What each dimension carries; columns of one-hot categories stand for their classes."""
    return {
        "names": usage.names,
        "variance": _finite(usage.variance),
        "active": usage.active.tolist(),
        "kl": None if usage.kl is None else _finite(usage.kl),
        "layers": [list(layer) for layer in usage.layers],
    }


def _plane(usage: LatentUsage) -> dict[str, Any]:
    """The means, and the two directions in which they are shown first if there are more than two."""
    means = usage.means.double()
    record: dict[str, Any] = {"means": packed(means)}
    if means.shape[1] > 2:
        pca = PCA(2).fit(means.numpy())
        record |= {
            "directions": packed(np.asarray(pca.components_)),
            "center": packed(np.asarray(pca.mean_)),
            "explained": pca.explained_variance_ratio_.tolist(),
        }
    return record


def _posteriors(model: Any, few: Split) -> dict[str, Any] | None:
    """Factors of the covariances of q(z|x), whose means the plane has; None where it is not a normal over vectors."""
    factors = []
    for draw, _ in draws(model, few):
        if isinstance(draw.z, dict) or (found := _normal(draw.q)) is None or found[0].ndim != 2:
            return None
        factors.append(found[1].cpu())
    return {"factors": packed(torch.cat(factors))}


def _normal(q: Distribution) -> tuple[Tensor, Tensor] | None:
    """The mean of a normal, and its standard deviations, or the Cholesky factor of its covariance."""
    if isinstance(q, MultivariateNormal):
        return q.loc, q.scale_tril
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.base_dist.loc, q.base_dist.scale.expand(q.base_dist.loc.shape)
    return None


def _scores(scores: Scores) -> dict[str, Any]:
    names = ("log_px", "standard_error", "distortion", "pareto_k", "effective_sample_size")
    known = {name: _finite(getattr(scores, name)) for name in names}
    return {**known, "rate": _finite(scores.rate), "elbo": _finite(scores.elbo), "num_samples": scores.num_samples}


def _finite(values: Tensor) -> list[float | None]:
    """Numbers in six digits, None where they are not finite: JSON has no name for those."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.double().tolist()]


def _colors(experiment: Experiment, data: Data, few: Split, rows: Tensor, split: str) -> dict[str, Any]:
    """What examples may be colored by: their class, the columns of a table, what a full evaluation measured."""
    colors: dict[str, Any] = {}
    if few.labels is not None:
        colors["label"] = [str(name) for name in few.label_names() or ()]
    if (table := data.meaning.table) is not None:
        for column in (*table.modeled, *table.given.modeled):
            values = column_values(few, table, column.name)
            numeric = values.dtype.kind == "f"
            colors[f"column {column.name}"] = _finite(torch.as_tensor(values)) if numeric else values.tolist()
    measured = experiment.run.per_datum(split)
    if measured.exists():
        colors |= _measured(measured, rows)
    return colors


def _odd_cells(model: Any, few: Split, test: Split, *, own: Tensor | None) -> list[list[int]]:
    """The columns of each example whose cells rank among the oddest hundredth of the test rows' cells."""
    num = min(len(test), _RANKED)
    of_few, of_test = (
        cell_scores(model, part, num_samples=_SAMPLES) - log_slopes(model, part)
        for part in (few, test.take(torch.arange(num)))
    )
    own = None if own is None else own.where(own < num, -1)
    odd = (cell_p_values(of_few, of_test, own=own) <= _ODD) & ~of_few.isnan()
    return [row.nonzero()[:, 0].tolist() for row in odd]


_SHOWN = {
    "log_px_annealed": "log p(x) by annealing",
    "approximation_gap": "approximation gap",
    "amortization_gap": "amortization gap",
}


def _measured(path: Any, rows: Tensor) -> dict[str, list[float | None]]:
    """Columns of ``evaluation.csv`` for these rows."""
    with path.open(newline="") as file:
        lines = {int(line["index"]): line for line in csv.DictReader(file)}
    found: dict[str, list[float | None]] = {}
    for column, name in _SHOWN.items():
        cells = [lines.get(row, {}).get(column, "") for row in rows.tolist()]
        if any(cells):
            found[name] = [float(cell) if cell and math.isfinite(float(cell)) else None for cell in cells]
    return found
