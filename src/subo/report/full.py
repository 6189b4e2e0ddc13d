"""The full evaluation of a model on held-out data, in pieces that are stored as they are finished."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, ais, has_discrete_latents
from subo.evaluation.evidence.bidirectional import Sandwich, bdmc
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.evidence.prior_sampling import PriorEstimate, log_marginal_from_prior
from subo.evaluation.gaps import gaps, mean_log_weight
from subo.evaluation.inference_gaps import Gaps
from subo.evaluation.latents.calibration import Calibration, calibrate
from subo.evaluation.latents.information import mutual_information
from subo.evaluation.latents.probes import Probe, probe
from subo.evaluation.latents.total_correlation import Information, total_correlation
from subo.evaluation.latents.usage import LatentUsage, latent_usage, posterior_means
from subo.evaluation.scores import Scores, latents_at_a_time, rows_at_a_time
from subo.inference.ascent import Ascent
from subo.parts.conditionals import Given, Local
from subo.report.depth import Depth, examples_a_piece, has_row_of_parameters
from subo.report.findings import Findings
from subo.report.stages import Stage, measure_in_stages, prepare
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, stream
from subo.runtime.shares import in_shares

__all__ = ["Depth", "Findings", "evaluate_fully"]

_TRIED = 8  # samples for checking whether an example's bound is finite
_ONE_PIECE = 1e-9  # minutes
_INFORMED = 1000  # examples in the aggregate posterior; the time grows with their square


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
    processes: int = 1,
    advance: Callable[[str, int], Any] | None = None,
    start: Callable[[str, int], Any] | None = None,
    notice: Callable[[str], Any] | None = None,
) -> Findings:
    """Runs every available measurement of a model on held-out data.

    A measurement that does not apply to the model (annealing of discrete latents, gaps of a model without an encoder)
    is left out, with the reason. With a `folder`, finished pieces are stored there, and a second call continues.

    Args:
        model: Any model; the gaps need a :class:`~subo.VAE`.
        split: The data.
        train: Training data with labels, to which probes are fitted.
        depth: Amount of work.
        minutes: Time limit; a piece that has begun is finished.
        folder: Folder for finished pieces.
        identity: What the pieces belong to, such as a fingerprint of the weights: pieces of another identity are
            deleted.
        seed: Seed for all random numbers.
        processes: Number of processes that share the pieces by their folder, without which there is one.
        advance: Called with a measurement's title and the number of examples done, after each piece.
        start: Called with each measurement's title and its number of examples, before the first.
        notice: Called with a message about existing pieces that cannot be used.

    Raises:
        InputError: There are fewer than two examples, or they do not match the model.

    Example:
        >>> from subo import probabilistic_pca
        >>> depth = Depth(num_samples=50, intensive_data=4, temperatures=10, calibration_data=100)
        >>> findings = evaluate_fully(probabilistic_pca(5, 2), Split(torch.randn(20, 5)), depth=depth)
        >>> findings.measured["annealed"].record.log_px.shape
        torch.Size([4])
    """
    if not isinstance(split, Split):
        raise InputError(f"data to evaluate on must be a Split, such as Split(x), not a {type(split).__name__}")
    if len(split) < 2:
        raise InputError("one example gives no standard error: evaluate on at least two")
    if split.resample:  # random bits and noise are drawn once, for all measurements
        split = split.drawn(stream("evaluation bits", seed))
    depth = depth or Depth()
    plan = _Plan(model, split, train, depth, seed)
    stages = plan.stages()
    if start is not None:
        for stage in stages:
            start(stage.title, sum(len(piece) for piece in stage.pieces))
    where: dict[str, Any] = {"folder": folder, "identity": identity, "minutes": minutes, "seed": seed}
    if processes > 1 and folder is not None:
        prepare(folder, identity)
        in_shares(partial(_made_in_shares, plan, where, processes), processes, processes=processes)
        where["minutes"] = minutes and _ONE_PIECE
    with evaluating(model):
        measured = measure_in_stages(stages, **where, advance=advance, notice=notice)
    return Findings(measured, plan.usage(), depth, plan.bracket)


def _made_in_shares(plan: "_Plan", where: dict[str, Any], processes: int, ranks: range) -> list[None]:
    """Makes the pieces of some of the processes."""
    for rank in ranks:
        with evaluating(plan.model):
            measure_in_stages(plan.stages(), **where, share=(rank, processes))
    return [None] * len(ranks)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The stages of a full evaluation; each returns a record, which knows its lines of the table."""

    model: Any
    split: Split
    train: Split | None
    depth: Depth
    seed: int

    def stages(self) -> list[Stage]:
        """The stages, most informative for their time first."""
        whole, depth, intensive = [torch.arange(1)], self.depth, self.intensive
        simulated = _merged(torch.arange(depth.calibration_data).split(100), least=100)
        annealing, samples = (depth.temperatures, depth.chains), (depth.num_samples,)
        measured = self.rows.split(min(100, math.ceil(len(self.rows) / 10)))  # so that progress is visible
        size = (len(self.rows),)
        sandwich = samples if self.bracket == "importance" else annealing
        at_once = examples_a_piece(self.split)
        batches, hundreds = intensive.split(at_once), intensive.split(100)
        # where q is no row of parameters, a network is trained on each example, for minutes
        few = intensive.split(2 * at_once if has_row_of_parameters(self.model) else 1)
        by_q, simulations = "log p(x) by importance sampling", "a bracket on simulated data"
        stages = [
            Stage("importance", by_q, Scores, measured, self.importance, samples, optional=False),
            Stage("information", "what the latents carry", Information, whole, self.information, size),
            Stage("calibration", "calibration on simulated data", Calibration, simulated, self.calibration),
            Stage("probe", "labels from latents", Probe, whole, self.probe, (*size, self.num_learned)),
            Stage("prior", "log p(x) from the prior", PriorEstimate, hundreds, self.prior, samples),
            Stage("gaps", "the best q of each example", Gaps, few, self.gaps, (*samples, depth.gap_steps)),
            Stage("annealed", "log p(x) by annealing", AnnealedEstimate, batches, self.annealed, annealing),
            Stage("bracket", simulations, Sandwich, _merged(batches, least=2), self.sandwich, sandwich),
        ]
        return [stage for stage in stages if stage.name != "probe" or self.is_labelled]

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels to learn and to predict from latents: one per example, as are the latents."""
        known = self.train is not None and self.train.labels is not None and self.split.labels is not None
        return known and self.split.lengths is None and not self.own_data_alone

    @cached_property
    def rows(self) -> Tensor:
        """Positions of the measured examples, in order."""
        order = torch.randperm(len(self.split), generator=stream("evaluation data", self.seed))
        return order[: self.depth.max_data].sort().values

    @cached_property
    def intensive(self) -> Tensor:
        """Positions of the examples for costly measurements."""
        order = torch.randperm(len(self.rows), generator=stream("intensive data", self.seed))
        return self.rows[order[: self.depth.intensive_data].sort().values]

    @property
    def num_learned(self) -> int:
        """Number of training examples for a probe."""
        whole = 0 if self.train is None else len(self.train)
        return min(whole, self.depth.max_data or whole)

    @property
    def own_data_alone(self) -> bool:
        """Whether q is only known for these particular examples, by their positions in the split."""
        return isinstance(getattr(self.model, "posterior", None), Local | Given)

    @cached_property
    def bracket(self) -> str:
        """The estimator of the bracket."""
        with torch.no_grad(), forked(self.seed):
            x, context = self.read(self.rows[:1])
            discrete = has_discrete_latents(self.model.draw(x, context, path=False))
        return "importance" if discrete else "annealed"

    @property
    def annealing(self) -> Annealing:
        """The settings of annealing."""
        return Annealing(self.depth.temperatures, self.depth.chains)

    @cached_property
    def max_rows(self) -> int:
        """Number of latents decoded at a time."""
        return rows_at_a_time(self.model, self.split)

    def read(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Data on the model's device."""
        return place(self.model, *self.split.read(rows))

    def importance(self, rows: Tensor, seed: int) -> Scores:
        x, context = self.read(rows)
        at_once = latents_at_a_time(self.model, self.split)
        with forked(seed):
            count = self.depth.num_samples
            return Scores.of([log_marginal(self.model, x, context, num_samples=count, max_rows=at_once, pareto=True)])

    def prior(self, rows: Tensor, seed: int) -> PriorEstimate:
        x, context = self.read(rows)  # with a context, even just indices, every example has its own samples
        count, at_once = self.depth.num_samples, self.max_rows
        with forked(seed):
            return log_marginal_from_prior(self.model, x, context, num_samples=count, max_rows=at_once)

    def annealed(self, rows: Tensor, seed: int) -> AnnealedEstimate:
        x, context = self.read(rows)
        return ais(self.model, x, context, annealing=self.annealing, seed=seed, max_rows=self.max_rows)

    def sandwich(self, rows: Tensor, seed: int) -> Sandwich:
        options: dict[str, Any] = {"estimator": self.bracket, "num_samples": self.depth.num_samples}
        options |= {"annealing": self.annealing, "seed": seed, "max_rows": self.max_rows}
        return bdmc(self.model, len(rows), self.read(rows)[1], **options)

    def gaps(self, rows: Tensor, seed: int) -> Gaps:
        """NaN where an example's bound is not finite: there is nothing to search, and the others are unaffected."""
        x, context = self.read(rows)
        with forked(seed):
            bound, _ = mean_log_weight(self.model, x, context, num_samples=_TRIED, max_rows=self.max_rows)
        finite, count = bound.isfinite(), self.depth.num_samples
        if not finite.any():
            return replace(Gaps.unknown(len(rows)), num_samples=count)
        found = gaps(
            self.model,
            x[finite],
            {name: tensor[finite] for name, tensor in context.items()},
            ascent=Ascent(steps=self.depth.gap_steps),
            num_samples=count,
            elbo_samples=count,
            annealing=None,
            max_rows=self.max_rows,
            seed=seed,
        )
        return replace(found.spread(finite), num_samples=count)

    def information(self, rows: Tensor, seed: int) -> Information:
        options: dict[str, Any] = {"max_data": min(_INFORMED, len(self.rows)), "seed": seed}
        mutual = mutual_information(self.model, self.split, **options)
        return Information(mutual, total_correlation(self.model, self.split, **options))

    def calibration(self, rows: Tensor, seed: int) -> Calibration:
        context = self.read(self.rows[rows % len(self.rows)])[1]
        at_once = max(1, min(100, self.max_rows // 100))
        return calibrate(self.model, len(rows), context=context, seed=seed, batch_size=at_once)

    def probe(self, rows: Tensor, seed: int) -> Probe:
        assert self.train is not None
        parts, order = [], torch.randperm(len(self.train), generator=stream("probed data", self.seed))
        few = order[: self.num_learned].sort().values
        for split in (_some(self.train, few), _some(self.split, self.rows)):
            parts += [posterior_means(self.model, split), split.labels]
        return probe(*parts, seed=seed)

    def usage(self) -> LatentUsage | None:
        """Latent usage on all measured data, which takes just one pass of the encoder."""
        try:
            return latent_usage(self.model, self.split if self.own_data_alone else _some(self.split, self.rows))
        except (InputError, AttributeError):  # latents that are not a single tensor
            return None


def _some(split: Split, rows: Tensor) -> Split:
    """The examples at these positions, without a copy if these are all."""
    return split if len(rows) == len(split) else split.take(rows)


def _merged(pieces: Sequence[Tensor], *, least: int) -> list[Tensor]:
    """The same pieces, with a last one that is too short joined to the previous one."""
    kept = list(pieces)
    if len(kept) > 1 and len(kept[-1]) < least:
        last = kept.pop()
        kept[-1] = torch.cat([kept[-1], last])
    return kept
