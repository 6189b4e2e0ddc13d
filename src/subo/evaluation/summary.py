"""The numbers of a fitted model on held-out data, each with its error."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.core.offers import Floored
from subo.data.batches import batches
from subo.data.splits import Split, takes_data
from subo.data.support import check_support
from subo.errors import InputError
from subo.evaluation.baseline import lines_of
from subo.evaluation.estimates import Estimate, bits_per_dim, error_of_mean, linearized_ratio
from subo.evaluation.evidence.pareto import highest_pareto_k
from subo.evaluation.latents.usage import LatentUsage, latent_usage
from subo.evaluation.numbers import ALONE, CARRIED, LIKELY, Beside, Number
from subo.evaluation.results import Result, Table, flat, rows_of
from subo.evaluation.scores import Scores, score
from subo.files.nonfinite import encoded, in_words
from subo.models.emission import Steps
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.digits import in_digits
from subo.runtime.randomness import forked
from subo.typing import map_latent

__all__ = ["Evaluation", "evaluate", "measure", "share_at_floor"]


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """Means over held-out data, in nats per example; ``_se`` are standard errors of the means.

    Attributes:
        log_px: Mean of the importance-sampled log p(x).
        log_px_se: Standard error of `log_px`, from the spread over the data, which includes that of the samples.
        elbo: ``-(rate + distortion)``, always at beta 1.
        elbo_se: Standard error of `elbo`, from the spread over the data.
        rate: ``KL(q || p)``.
        distortion: ``-E_q[log p(x|z)]``.
        active_units: Number of latent dimensions whose posterior mean has a variance above 0.01 over the data.
        latent_dim: Total number of latent dimensions.
        bits_per_dim: ``-log_px / (elements * log 2)``; for a density if the data are not discrete.
        median_ess: Median over examples of the effective number of samples.
        high_pareto_k: Number of examples with a Pareto k-hat above `highest_pareto_k`.
        highest_pareto_k: The k-hat up to which the estimate of log p(x) and its error hold for this many samples, see
            :func:`~subo.evaluation.evidence.pareto.highest_pareto_k`.
        median_pareto_k: Median of k-hat over the examples that have one; None if none has (fewer than 25 samples, or
            all weights the same).
        num_samples: K of `log_px`.
        num_data: Number of examples.
        split: Name of the data.
        at_floor: Fraction of the likelihood's scales at their minimum; None for a likelihood without one.
        layers: The `rate`, `active_units` and `latent_dim` of each stochastic layer, by name; None if there is only
            one.
        reduced_from: What it would have been if time had not been short: `num_samples`, `num_data`, and the `seconds`
            available.
        num_not_finite: Number of examples whose log p(x) is not finite, which makes its mean -inf or NaN.
        log_px_finite: Mean log p(x) over the others, if there are such examples and at least two others.
        log_px_finite_se: Standard error of `log_px_finite`.
        per_step: For sequences, the sums over all of them divided by the total number of steps, `num_steps`: `log_px`,
            `elbo` and their errors, `rate` and `distortion`. None for other data.
        rate_se: Standard error of `rate`; None in records of older runs.
        distortion_se: Standard error of `distortion`; None in records of older runs.
        kl_per_dimension: Mean KL of each latent dimension; None if unknown.
        baseline: For rows of a table, a model without latents that is fitted beside: its `name` and `log_px`, and the
            `gain`, how much higher the model's is for the same rows, with errors. None for other data.
    """

    log_px: float
    log_px_se: float
    elbo: float
    elbo_se: float
    rate: float
    distortion: float
    active_units: int
    latent_dim: int
    bits_per_dim: float
    median_ess: float
    high_pareto_k: int
    highest_pareto_k: float
    median_pareto_k: float | None
    num_samples: int
    num_data: int
    split: str
    at_floor: float | None
    reduced_from: dict[str, int | float] | None = None
    num_not_finite: int = 0
    log_px_finite: float | None = None
    log_px_finite_se: float | None = None
    layers: dict[str, dict[str, float]] | None = None
    per_step: dict[str, float] | None = None
    rate_se: float | None = None
    distortion_se: float | None = None
    kl_per_dimension: list[float] | None = None
    baseline: dict[str, Any] | None = None

    @classmethod
    def from_scores(
        cls,
        scores: Scores,
        usage: LatentUsage,
        *,
        split: str,
        elements: Tensor | int,
        lengths: Tensor | None = None,
        at_floor: float | None = None,
    ) -> "Evaluation":
        """The means of the scores of all examples.

        Args:
            scores: Scores of each example.
            usage: Latent usage on the same data.
            split: Name of the data.
            elements: Number of elements of each example, ``(N,)`` or one for all.
            lengths: Lengths of sequences, ``(N,)``.
            at_floor: Fraction of the likelihood's scales at their minimum.
        """
        log_px, elbo, rate, distortion = map(Estimate.of, (scores.log_px, scores.elbo, scores.rate, scores.distortion))
        others = (None, None) if log_px.others is None else (log_px.others.mean, log_px.others.standard_error)
        k_hat, highest = scores.pareto_k[~scores.pareto_k.isnan()], highest_pareto_k(scores.num_samples)
        return cls(
            log_px=log_px.mean,
            log_px_se=log_px.standard_error,
            elbo=elbo.mean,
            elbo_se=elbo.standard_error,
            rate=rate.mean,
            rate_se=rate.standard_error,
            distortion=distortion.mean,
            distortion_se=distortion.standard_error,
            active_units=int(usage.active.sum()),
            latent_dim=len(usage.active),
            bits_per_dim=bits_per_dim(scores.log_px, elements).mean().item(),
            median_ess=scores.effective_sample_size.nanmedian().item(),
            high_pareto_k=int((k_hat > highest).sum()),
            highest_pareto_k=highest,
            median_pareto_k=k_hat.median().item() if len(k_hat) else None,
            num_samples=scores.num_samples,
            num_data=len(scores.log_px),
            split=split,
            at_floor=at_floor,
            num_not_finite=log_px.num_not_finite,
            log_px_finite=others[0],
            log_px_finite_se=others[1],
            per_step=None if lengths is None else _per_step(scores, lengths),
            layers=_by_layer(usage, scores.rates.mean(1).tolist()) if len(usage.layers) > 1 else None,
            kl_per_dimension=None if usage.kl is None else usage.kl.tolist(),
        )

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The means that are shown."""
        samples = "importance sampling"
        yield Number(LIKELY, "log p(x)", self.log_px, self.log_px_se, "nats", samples, self.num_samples)
        yield from lines_of(self.baseline)
        yield Number(LIKELY, "ELBO", self.elbo, self.elbo_se, "nats", "-(rate + distortion)")
        yield Number(LIKELY, "rate", self.rate, self.rate_se, "nats", "KL(q(z|x) || p(z))")
        yield Number(LIKELY, "distortion", self.distortion, self.distortion_se, "nats", "-E[log p(x|z)] under q")
        if step := self.per_step:
            yield Number(LIKELY, "  log p(x) per time step", step["log_px"], step["log_px_se"], "nats", "")
            yield Number(LIKELY, "  ELBO per time step", step["elbo"], step["elbo_se"], "nats", "")
        ess = self.median_ess
        yield Number(LIKELY, "effective samples, median", ess, None, "", f"of {self.num_samples:,}, by their weights")
        active, how = float(self.active_units), f"of {self.latent_dim} latent dimensions"
        yield Number(CARRIED, "active units", active, None, "", how)
        for name, layer in (self.layers or {}).items():
            how = f"{layer['active_units']} of {layer['latent_dim']} active"
            yield Number(CARRIED, f"  rate of {name}", layer["rate"], None, "nats", how)

    def table(self) -> Table:
        """Means with their errors, and remarks on them."""
        title = f"Evaluation of {self.num_data:,} examples ({self.split}): means per example, ± standard errors"
        return Table(title, ("", "value", "unit", "estimator", "K", ""), rows_of(self.numbers()), tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        if self.num_not_finite:
            finite = None if self.log_px_finite is None else in_digits(self.log_px_finite, self.log_px_finite_se)
            yield in_words(self.num_not_finite, self.num_data, finite)
        if self.high_pareto_k:
            yield (
                f"Pareto k-hat above {self.highest_pareto_k:.2g} for {self.high_pareto_k:,} of {self.num_data:,} "
                "examples: too few samples for their log p(x)."
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields, as in ``evaluation.json``; see :meth:`Result.to_dict`."""
        return encoded(asdict(self))

    def records(self) -> list[dict[str, Any]]:
        """One row, with a column for each number."""
        return [{name: value for name, value in flat(asdict(self)).items() if not isinstance(value, list)}]


@takes_data
def evaluate(
    model: LatentVariableModel,
    split: Split,
    *,
    name: str = "test",
    num_samples: int = 1000,
    seed: int = 0,
    advance: Callable[[float], object] | None = None,
) -> Evaluation:
    """Measures a model on held-out data.

    Args:
        model: The model.
        split: The data, or a tensor of them, at least two examples.
        name: Name of the data in the record.
        num_samples: K for log p(x).
        seed: Seed for the samples.
        advance: Called with the number of examples done, as they finish, in fractions.

    Raises:
        InputError: There is only one example, so no standard error.
    """
    return measure(model, split, name=name, num_samples=num_samples, seed=seed, advance=advance)[0]


@checked_arguments
def measure(
    model: LatentVariableModel,
    split: Split,
    *,
    name: str = "test",
    num_samples: int = 1000,
    max_rows: int | None = None,
    seed: int = 0,
    processes: int = 1,
    advance: Callable[[float], object] | None = None,
) -> tuple[Evaluation, Scores]:
    """Like :func:`evaluate`, but also returns the per-example numbers; `max_rows`, `processes` as in :func:`score`."""
    if len(split) < 2:
        raise InputError("one example gives no standard error: evaluate on at least two")
    check_support(model, split)  # a single example outside would make the mean infinite
    shared: Any = {"seed": seed, "processes": processes, "advance": advance}
    scores = score(model, split, num_samples=num_samples, max_rows=max_rows, **shared)
    evaluation = Evaluation.from_scores(
        scores,
        latent_usage(model, split, processes=processes),
        split=name,
        elements=split.elements,
        lengths=split.lengths,
        at_floor=share_at_floor(model, split),
    )
    return evaluation, scores


def _per_step(scores: Scores, lengths: Tensor) -> dict[str, float]:
    """Ratios of sums, ``sum_i v_i / sum_i T_i``, and their errors."""
    terms = {
        name: linearized_ratio(getattr(scores, name), lengths) for name in ("log_px", "elbo", "rate", "distortion")
    }
    means = {name: values.mean().item() for name, values in terms.items()}
    errors = {f"{name}_se": error_of_mean(terms[name]) for name in ("log_px", "elbo")}
    return means | errors | {"num_steps": int(lengths.sum())}


def _by_layer(usage: LatentUsage, rates: list[float]) -> dict[str, dict[str, float]]:
    """The numbers of each layer."""
    active = usage.active_by_layer
    return {
        name: {"rate": rate, "active_units": active[name], "latent_dim": size}
        for (name, size), rate in zip(usage.layers, rates, strict=True)
    }


@torch.no_grad()
def share_at_floor(model: Any, split: Split) -> float | None:
    """Fraction of the likelihood's scales at their minimum, at the latents of some data; None without a minimum."""
    family = getattr(getattr(model, "likelihood", None), "family", None)
    if not isinstance(family, Floored):
        return None
    batch = next(batches(split, 1000, seed=0, epoch=0, shuffle=False))
    x, context = place(model, batch.x, batch.context)
    with evaluating(model), forked(0):
        z = map_latent(lambda leaf: leaf[0], model.draw(x, context, path=False).z)
        if "mask" not in context:
            return family.share_at_floor(model.decode(z, context))
        mask = context["mask"]
        real = map_latent(lambda leaf: leaf[mask].unsqueeze(1), z)  # as sequences of one step each
        known = {name: tensor.repeat_interleave(mask.sum(1), 0) for name, tensor in context.items()}
        p = model.decode(real, known | {"mask": mask.new_ones(int(mask.sum()), 1)})
        return family.share_at_floor(p.steps if isinstance(p, Steps) else p)
