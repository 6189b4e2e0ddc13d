"""All that can be measured of a model on held-out data, in pieces that are kept while others are made."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.evaluation.evidence.annealed import Annealing, ais, has_discrete_latents
from subo.evaluation.evidence.bidirectional import bdmc
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.evidence.prior_sampling import log_marginal_from_prior
from subo.evaluation.gaps import gaps, mean_log_weight
from subo.evaluation.latents.calibration import calibrate
from subo.evaluation.latents.information import mutual_information
from subo.evaluation.latents.probes import probe
from subo.evaluation.latents.total_correlation import total_correlation
from subo.evaluation.latents.usage import LatentUsage, latent_usage, posterior_means
from subo.evaluation.summary import latents_at_a_time, rows_at_a_time
from subo.inference.ascent import Ascent
from subo.parts.conditionals import Given, Local
from subo.report.findings import Depth, Findings
from subo.report.stages import Stage, measure_in_stages
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream

__all__ = ["Depth", "Findings", "evaluate_fully"]

_TRIED = 8  # samples of an example's bound, to see whether it is finite
_INFORMED = 1000  # data of the aggregate posterior; the time grows with their square
_WITHIN_CLASSES = 1  # marks pieces since conditional priors are compared within classes: earlier ones are not taken


@takes_data
def evaluate_fully(
    model: LatentVariableModel,
    split: Split,
    *,
    train: Split | None = None,
    depth: Depth | None = None,
    minutes: float | None = None,
    folder: Path | None = None,
    identity: str = "",
    seed: int = 0,
    advance: Callable[[str, int], Any] | None = None,
    start: Callable[[str, int], Any] | None = None,
    notice: Callable[[str], Any] | None = None,
) -> Findings:
    """Measures all that there is to measure of a model on held-out data.

    A measurement that does not apply to the model (annealing of discrete latents, gaps of a model without an encoder)
    is left out, with the reason. With a `folder`, what is done is kept there, and a second call goes on.

    Args:
        model: Any model; the gaps need a :class:`~subo.VAE`.
        split: The data.
        train: Training data with labels, from which probes learn.
        depth: How much work.
        minutes: How long at the most; what has begun is finished.
        folder: Where finished pieces are kept.
        identity: What the pieces belong to, such as a fingerprint of the weights: of another one they are thrown away.
        seed: Of all random numbers.
        advance: Called with a measurement's title and the number of data done, as they are.
        start: Called with each measurement's title and its number of data, before the first.
        notice: Called with what should be known of the pieces that are there.

    Raises:
        InputError: There are fewer than two data, or the model does not describe them.

    Example:
        >>> from subo import probabilistic_pca
        >>> depth = Depth(num_samples=50, intensive_data=4, temperatures=10, calibration_data=100)
        >>> findings = evaluate_fully(probabilistic_pca(5, 2), Split(torch.randn(20, 5)), depth=depth)
        >>> findings.measured["annealed"].results["log_px"].shape
        torch.Size([4])
    """
    if not isinstance(split, Split):
        raise InputError(f"data to evaluate on are a Split, such as Split(x), and not a {type(split).__name__}")
    if len(split) < 2:
        raise InputError("one example gives no standard error: evaluate on at least two")
    if split.resample:  # what is drawn at every read is drawn once, for all measurements
        split = split.drawn(stream("evaluation bits", seed))
    depth = depth or Depth()
    plan = _Plan(model, split, train, depth, seed)
    stages = plan.stages()
    if start is not None:
        for stage in stages:
            start(stage.title, sum(len(piece) for piece in stage.pieces))
    with evaluating(model):
        measured = measure_in_stages(
            stages, folder=folder, identity=identity, minutes=minutes, seed=seed, advance=advance, notice=notice
        )
    return Findings(measured, plan.usage(), depth, plan.bracket)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The stages of a full evaluation; each gives tensors by name, per example or for all data."""

    model: Any
    split: Split
    train: Split | None
    depth: Depth
    seed: int

    def stages(self) -> list[Stage]:
        """In the order of what they tell for their time."""
        whole, depth, intensive = [torch.arange(1)], self.depth, self.intensive
        simulated = _merged(torch.arange(depth.calibration_data).split(100), least=100)
        annealing, samples = (depth.temperatures, depth.chains), (depth.num_samples,)
        measured = self.rows.split(min(100, math.ceil(len(self.rows) / 10)))  # of few data, too, progress is seen
        informed = (len(self.rows), _WITHIN_CLASSES)
        sandwich = samples if self.bracket == "importance" else annealing
        tens = _merged(intensive.split(10), least=2)
        row_of_parameters = hasattr(getattr(self.model, "posterior", None), "family")
        at_once = 20 if row_of_parameters else 1  # else a network is trained on each example: minutes of a large one
        stages = [
            Stage("importance", "log p(x) by importance sampling", measured, self.importance, samples, False),
            Stage("information", "what the latents carry", whole, self.information, informed),
            Stage("calibration", "calibration on simulated data", simulated, self.calibration),
            Stage("prior", "log p(x) from the prior", intensive.split(100), self.prior, samples),
            Stage(
                "gaps", "the best q of each example", intensive.split(at_once), self.gaps, (*samples, depth.gap_steps)
            ),
            Stage("annealed", "log p(x) by annealing", intensive.split(10), self.annealed, annealing),
            Stage("bracket", "a bracket on simulated data", tens, self.sandwich, sandwich),
        ]
        flat = self.split.lengths is None  # one vector per example, as labels are one per example
        labelled = self.train is not None and self.train.labels is not None and self.split.labels is not None
        if flat and labelled and not self.own_data_alone:
            stages.insert(
                3, Stage("probe", "labels from latents", whole, self.probe, (len(self.rows), self.num_learned))
            )
        return stages

    @cached_property
    def rows(self) -> Tensor:
        """The data that are measured, in their order."""
        order = torch.randperm(len(self.split), generator=stream("evaluation data", self.seed))
        return order[: self.depth.max_data].sort().values

    @cached_property
    def intensive(self) -> Tensor:
        """Those of them that much work goes into."""
        order = torch.randperm(len(self.rows), generator=stream("intensive data", self.seed))
        return self.rows[order[: self.depth.intensive_data].sort().values]

    @property
    def num_learned(self) -> int:
        """How many training data a probe learns from."""
        whole = 0 if self.train is None else len(self.train)
        return min(whole, self.depth.max_data or whole)

    @property
    def own_data_alone(self) -> bool:
        """Whether q is known of these very data, by their positions in the split."""
        return isinstance(getattr(self.model, "posterior", None), Local | Given)

    @cached_property
    def bracket(self) -> str:
        """How the bracket is made."""
        with torch.no_grad(), forked(self.seed):
            x, context = self.read(self.rows[:1])
            discrete = has_discrete_latents(self.model.draw(x, context, path=False))
        return "importance" if discrete else "annealed"

    @cached_property
    def max_rows(self) -> int:
        """Latents decoded at a time."""
        return rows_at_a_time(self.model, self.split)

    def read(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Data where the model is."""
        return place(self.model, *self.split.read(rows))

    def importance(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        x, context = self.read(rows)
        with forked(seed):
            found = log_marginal(
                self.model,
                x,
                context,
                num_samples=self.depth.num_samples,
                max_rows=latents_at_a_time(self.model, self.split),
                pareto=True,
            )
        names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "distortion", "elbo")
        return {name: getattr(found, name) for name in names} | {"rate": found.rate.sum(0), "rates": found.rate}

    def prior(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        x, context = self.read(rows)  # with a context, if only of indices, every example has samples of its own
        with forked(seed):
            found = log_marginal_from_prior(
                self.model, x, context, num_samples=self.depth.num_samples, max_rows=self.max_rows
            )
        return {
            name: getattr(found, name) for name in ("log_px", "standard_error", "effective_sample_size", "pareto_k")
        }

    def annealed(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        depth = self.depth
        found = ais(
            self.model,
            *self.read(rows),
            annealing=Annealing(depth.temperatures, depth.chains),
            seed=seed,
            max_rows=self.max_rows,
        )
        return {
            name: getattr(found, name) for name in ("log_px", "standard_error", "effective_sample_size", "acceptance")
        }

    def sandwich(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        depth = self.depth
        found = bdmc(
            self.model,
            len(rows),
            self.read(rows)[1],
            estimator="importance" if self.bracket == "importance" else "annealed",
            annealing=Annealing(depth.temperatures, depth.chains),
            num_samples=depth.num_samples,
            seed=seed,
            max_rows=self.max_rows,
        )
        return {"lower": found.lower, "upper": found.upper}

    def gaps(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """NaN where an example's bound is not finite: there is nothing to search, and it does not stop the others."""
        x, context = self.read(rows)
        with forked(seed):
            bound, _ = mean_log_weight(self.model, x, context, num_samples=_TRIED, max_rows=self.max_rows)
        finite = bound.isfinite()
        known = self._gaps(x[finite], {name: tensor[finite] for name, tensor in context.items()}, seed)
        values = {name: torch.full((len(rows),), torch.nan, dtype=torch.float64) for name in known}
        for name, value in known.items():
            values[name][finite] = value
        return values

    def _gaps(self, x: Tensor, context: dict[str, Tensor], seed: int) -> Mapping[str, Tensor]:
        names = ("log_px", "log_px_se", "elbo", "elbo_se", "elbo_best", "elbo_best_se", "elbo_richer", "elbo_richer_se")
        if len(x) == 0:
            return {name: torch.zeros(0) for name in names if "richer" not in name}
        found = gaps(
            self.model,
            x,
            context,
            ascent=Ascent(steps=self.depth.gap_steps),
            num_samples=self.depth.num_samples,
            elbo_samples=self.depth.num_samples,
            annealing=None,
            max_rows=self.max_rows,
            seed=seed,
        )
        values = {name: getattr(found, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def information(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        options: dict[str, Any] = {"max_data": min(_INFORMED, len(self.rows)), "seed": seed}
        found = asdict(mutual_information(self.model, self.split, **options))
        found |= {"given": len(found["given"]), "told": len(found["told"])}
        correlation = total_correlation(self.model, self.split, **options)
        if correlation is not None:
            found |= {
                "total_correlation": correlation.value,
                "total_correlation_se": correlation.standard_error,
                "dimension_kl": correlation.dimension_kl,
                "dimension_kl_se": correlation.dimension_kl_se,
            }
        return _scalars(found)

    def calibration(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """Ranks of each quantity, by names that sort in their order."""
        context = self.read(self.rows[rows % len(self.rows)])[1]
        at_once = max(1, min(100, self.max_rows // 100))
        found = calibrate(self.model, len(rows), context=context, seed=seed, batch_size=at_once)
        return {f"{i:05d} {name}": found.ranks[:, i] for i, name in enumerate(found.names)}

    def probe(self, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        assert self.train is not None
        parts, order = [], torch.randperm(len(self.train), generator=stream("probed data", self.seed))
        few = order[: self.num_learned].sort().values
        for split in (_some(self.train, few), _some(self.split, self.rows)):
            parts += [posterior_means(self.model, split), split.labels]
        return _scalars(asdict(probe(*parts, seed=seed)))

    def usage(self) -> LatentUsage | None:
        """Of all data that are measured, which takes no more than a pass of the encoder."""
        try:
            return latent_usage(self.model, self.split if self.own_data_alone else _some(self.split, self.rows))
        except (InputError, AttributeError):  # latents that are no single tensor
            return None


def _scalars(record: Mapping[str, Any]) -> dict[str, Tensor]:
    """Numbers and flags as tensors without an axis; what is None is left out."""
    return {
        name: torch.tensor(float(value), dtype=torch.float64) for name, value in record.items() if value is not None
    }


def _some(split: Split, rows: Tensor) -> Split:
    """These data; of all of them no copy is made."""
    return split if len(rows) == len(split) else split.take(rows)


def _merged(pieces: Sequence[Tensor], *, least: int) -> list[Tensor]:
    """The same pieces, a last one that is too short joined with that before it."""
    kept = list(pieces)
    if len(kept) > 1 and len(kept[-1]) < least:
        last = kept.pop()
        kept[-1] = torch.cat([kept[-1], last])
    return kept
