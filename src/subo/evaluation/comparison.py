"""Several models on the same held-out data: one row per model, and their differences example by example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.evaluation.estimates import Estimate, bits_per_dim
from subo.evaluation.results import Result, Table, with_error
from subo.evaluation.scores import Scores, latents_at_a_time
from subo.evaluation.seeds import OverSeeds, SeedMean, over_seeds
from subo.evaluation.summary import Evaluation, measure
from subo.files.nonfinite import encoded
from subo.runtime.arguments import checked_arguments

__all__ = ["Comparison", "Estimate", "Row", "compare"]


@dataclass(frozen=True)
class Row:
    """One model's means over the data, in nats per example; see :class:`~subo.evaluation.Evaluation`.

    Attributes:
        name: Name of the model.
        log_px: Importance-sampled log p(x).
        elbo: ``-(rate + distortion)``.
        rate: ``KL(q || p)``.
        distortion: ``-E_q[log p(x|z)]``.
        bits_per_dim: ``-log_px / (elements * log 2)``.
        active_units: Number of latent dimensions whose posterior mean varies.
        latent_dim: Total number of latent dimensions.
        median_ess: Median over examples of the effective number of samples.
        at_floor: Fraction of the likelihood's scales at their minimum; None for a likelihood without one.
        log_px_difference: Mean of ``log_px - log_px of the first``, example by example; None for the first.
        elbo_difference: The same for the ELBO.
        training_seconds: Training time, if known.
        training_seed: Training seed, if known.
    """

    name: str
    log_px: Estimate
    elbo: Estimate
    rate: Estimate
    distortion: Estimate
    bits_per_dim: Estimate
    active_units: int
    latent_dim: int
    median_ess: float
    at_floor: float | None
    log_px_difference: Estimate | None
    elbo_difference: Estimate | None
    training_seconds: float | None = None
    training_seed: int | None = None

    def flat(self) -> dict[str, Any]:
        """Plain numbers by name, with their errors as ``_se``; None for missing ones.

        Also the number of examples whose log p(x) is not finite, and the means over the others, ``_finite``.
        """
        record: dict[str, Any] = {}
        for name, value in vars(self).items():
            estimate = value if isinstance(value, Estimate) else None
            record[name] = value if estimate is None else estimate.mean
            if estimate is not None or name.endswith("_difference"):
                record[f"{name}_se"] = None if estimate is None else estimate.standard_error
        record["num_not_finite"] = self.log_px.num_not_finite
        for name in ("log_px", "log_px_difference"):
            estimate = getattr(self, name)
            others = None if estimate is None else estimate.others
            record[f"{name}_finite"] = None if others is None else others.mean
            record[f"{name}_finite_se"] = None if others is None else others.standard_error
        return record


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Models measured on the same data, by the same estimator and seed.

    Attributes:
        rows: One row per model; differences are from the first.
        split: Name of the data.
        num_data: Number of examples.
        num_samples: K for log p(x).
        seed: Seed for the samples.
        over_seeds: Mean over training seeds for each setting, if any setting has several runs.
    """

    rows: tuple[Row, ...]
    split: str
    num_data: int
    num_samples: int
    seed: int
    over_seeds: tuple[OverSeeds, ...] = ()

    @classmethod
    def of(
        cls,
        measured: Mapping[str, tuple[Evaluation, Scores]],
        *,
        num_elements: int | Tensor,
        seed: int = 0,
        settings: Mapping[str, Sequence[str]] | None = None,
    ) -> "Comparison":
        """Compares what was measured for several models.

        Examples that are hard for one model are hard for the others, so that the difference ``l_i - l_i'`` of two
        models varies less over the data than either: its error is ``sd(l - l') / sqrt(N)``, not that of two independent
        means. It says how well N examples distinguish these fitted models. The effect of the training seed is shown by
        several runs of a setting, each with its own seed: see :class:`~subo.evaluation.seeds.SeedMean`.

        Args:
            measured: Results of :func:`~subo.evaluation.summary.measure` by name, on the same data in the same order.
            num_elements: Number of elements of every example, or of each one, for bits per dimension.
            seed: Seed with which they were measured.
            settings: Names of each setting's models, which differ only in the training seed.

        Raises:
            InputError: There are fewer than two models, or they differ in data or number of samples.
        """
        if len(measured) < 2:
            raise InputError(f"a comparison needs at least two models, but got {len(measured)}")
        evaluations = [evaluation for evaluation, _ in measured.values()]
        kinds = {(e.split, e.num_data, e.num_samples) for e in evaluations}
        if len(kinds) > 1:
            raise InputError(
                "models are compared on the same data with the same number of samples, but these were measured on "
                + ", ".join(f"{split} ({n} examples, {k} samples)" for split, n, k in sorted(kinds))
            )
        scores = [scores for _, scores in measured.values()]
        against = [None, *(scores[0] for _ in scores[1:])]
        rows = tuple(
            Row(
                name=name,
                log_px=Estimate.of(own.log_px),
                elbo=Estimate.of(own.elbo),
                rate=Estimate.of(own.rate),
                distortion=Estimate.of(own.distortion),
                bits_per_dim=Estimate.of(bits_per_dim(own.log_px, num_elements)),
                active_units=evaluation.active_units,
                latent_dim=evaluation.latent_dim,
                median_ess=evaluation.median_ess,
                at_floor=evaluation.at_floor,
                log_px_difference=None if first is None else Estimate.of(own.log_px - first.log_px),
                elbo_difference=None if first is None else Estimate.of(own.elbo - first.elbo),
            )
            for (name, (evaluation, own)), first in zip(measured.items(), against, strict=True)
        )
        ((split, num_data, num_samples),) = kinds
        settings = settings or {}
        several = max(map(len, settings.values()), default=1) > 1
        means = over_seeds({name: own for name, (_, own) in measured.items()}, settings) if several else ()
        return cls(rows, split, num_data, num_samples, seed, means)

    def table(self) -> Table:
        """One row per model: its means, and how much higher its log p(x) and ELBO are than those of the first."""
        count, first = f"{self.num_data:,} examples ({self.split})", self.rows[0].name
        title = f"Comparison on {count}: nats per example, ± standard errors; log p(x) by {self.num_samples:,} samples"
        columns = ("", "log p(x)", "ELBO", "rate", "distortion", "active", f"log p(x) - {first}'s", f"ELBO - {first}'s")
        rows = []
        for row in self.rows:
            means = (row.log_px, row.elbo, row.rate, row.distortion)
            differences = (row.log_px_difference, row.elbo_difference)
            active = f"{row.active_units}/{row.latent_dim}"
            rows.append((row.name, *map(_cell, means), active, *map(_cell, differences)))
        notes = (
            f"Mean of {len(mean.runs)} runs as {mean.name}, ± over seeds and data: log p(x) {_cell(mean.log_px)}, "
            f"ELBO {_cell(mean.elbo)}"
            for mean in self.over_seeds
        )
        return Table(title, columns, tuple(rows), tuple(notes))

    def records(self) -> list[dict[str, Any]]:
        """One row per model; see :meth:`Row.flat`."""
        return [row.flat() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """One record per model and per mean over seeds, and what was measured; see :meth:`Result.to_dict`."""
        about = {name: getattr(self, name) for name in ("split", "num_data", "num_samples", "seed")}
        return encoded({**about, "rows": self.records(), "over_seeds": [mean.flat() for mean in self.over_seeds]})


def _cell(estimate: Estimate | SeedMean | None) -> str:
    return "" if estimate is None else with_error(estimate.mean, estimate.standard_error)


@takes_data
@checked_arguments
def compare(
    models: Mapping[str, LatentVariableModel],
    split: Split,
    *,
    name: str = "test",
    num_samples: int = 1000,
    seed: int = 0,
    settings: Mapping[str, Sequence[str]] | None = None,
    advance: Callable[[str, float], object] | None = None,
) -> Comparison:
    """Measures models on the same held-out data, and their differences from the first.

    The seed, and with it the division of the data into batches, is the same for all: models that draw z in the same way
    share their random numbers, and bits drawn at every read are the same bits.

    Args:
        models: Models by name; all with probabilities, or all with densities in the same units.
        split: The data, at least two examples.
        name: Name of the data in the record.
        num_samples: K for log p(x).
        seed: Seed for the samples.
        settings: Names of each setting's models, by the setting's name: those that differ only in the training seed. If
            a setting has several, means over seeds are also computed.
        advance: Called with a model's name and the number of examples done, as they finish.

    Raises:
        InputError: There are fewer than two models or examples, or the data do not match a model.

    Example:
        >>> from subo import probabilistic_pca
        >>> models = {"one": probabilistic_pca(5, 1), "two": probabilistic_pca(5, 2)}
        >>> comparison = compare(models, Split(torch.randn(20, 5)), num_samples=10)
        >>> difference = comparison.rows[1].log_px_difference
        >>> abs(difference.mean - (comparison.rows[1].log_px.mean - comparison.rows[0].log_px.mean)) < 1e-5
        True
    """
    if len(models) < 2:
        raise InputError(f"a comparison needs at least two models, but got {len(models)}")
    max_rows = min(latents_at_a_time(model, split) for model in models.values())
    measured = {}
    for label, model in models.items():
        advanced = None if advance is None else partial(advance, label)
        measured[label] = measure(
            model, split, name=name, num_samples=num_samples, max_rows=max_rows, seed=seed, advance=advanced
        )
    return Comparison.of(measured, num_elements=split.elements, seed=seed, settings=settings)
