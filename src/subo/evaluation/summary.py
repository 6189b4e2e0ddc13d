"""The numbers of a fitted model on held-out data, each with its error."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.core.offers import Floored, Mixture
from subo.data.batches import batches
from subo.data.splits import Split, takes_data
from subo.data.support import check_support, in_support, stand_ins
from subo.errors import InputError
from subo.evaluation.estimates import Estimate, error_of_mean
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.evidence.pareto import highest_pareto_k
from subo.evaluation.latents.usage import LatentUsage, latent_usage
from subo.models.emission import Steps
from subo.models.folding import decoded_at_a_time
from subo.models.vae import VAE
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import map_latent

_WEIGHED = 1_000_000  # latents drawn at a time, times the components of their prior
_PASSES = 20  # at least, so that progress is seen of few data, too
_DATA = 100  # at a time: small results between large tensors, one by one, would fragment the heap without end

__all__ = [
    "Evaluation",
    "Scores",
    "bits_per_dim",
    "evaluate",
    "latents_at_a_time",
    "layer_numbers",
    "linearized_ratio",
    "measure",
    "numbers_per_step",
    "rows_at_a_time",
    "score",
    "share_at_floor",
]


@dataclass(frozen=True)
class Scores:
    """Per-example estimates for a whole split, in nats and float64, on the CPU; see ImportanceEstimate.

    Attributes:
        log_px: Importance-sampled log p(x), ``(N,)``.
        standard_error: Of each `log_px`, ``(N,)``.
        effective_sample_size: ``(N,)``.
        pareto_k: Shape of the weights' upper tail, ``(N,)``; NaN where there is none, or none was asked for.
        rates: ``(L, N)``, of each stochastic layer.
        distortion: ``(N,)``.
        num_samples: K.
    """

    log_px: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    pareto_k: Tensor
    rates: Tensor
    distortion: Tensor
    num_samples: int

    @property
    def rate(self) -> Tensor:
        """That of all layers, ``(N,)``."""
        return self.rates.sum(0)

    @property
    def elbo(self) -> Tensor:
        """``-(rate + distortion)``, ``(N,)``."""
        return torch.where(self.distortion == torch.inf, -torch.inf, -(self.rate + self.distortion))

    def where(self, inside: Tensor) -> "Scores":
        """The same, with those of data outside of the support, ``(N,)``, where `inside` is false."""
        if bool(inside.all()):
            return self
        outside = {"log_px": -torch.inf, "standard_error": 0.0, "distortion": torch.inf}
        names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "rates", "distortion")
        return replace(
            self, **{name: getattr(self, name).masked_fill(~inside, outside.get(name, torch.nan)) for name in names}
        )


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out data, in nats per example; ``_se`` are standard errors of the means.

    Attributes:
        log_px: Mean of the importance-sampled log p(x).
        log_px_se: From the spread over data, which holds that of the samples.
        elbo: ``-(rate + distortion)``, always at beta 1.
        elbo_se: From the spread over data.
        rate: ``KL(q || p)``.
        distortion: ``-E_q[log p(x|z)]``.
        active_units: Latent dimensions whose posterior mean varies by more than 0.01 over the data.
        latent_dim: Latent dimensions in all.
        bits_per_dim: ``-log_px / (elements * log 2)``; of a density where the data are not discrete.
        median_ess: Median over data of the effective number of samples.
        high_pareto_k: How many data have a Pareto k-hat above `highest_pareto_k`.
        highest_pareto_k: Up to which k-hat the estimate of log p(x) and its error hold for so many samples, see
            :func:`~subo.evaluation.evidence.pareto.highest_pareto_k`.
        median_pareto_k: Median over data of k-hat, of those that have one; None if none has (fewer than 25 samples,
            or all weights the same).
        num_samples: K of `log_px`.
        num_data: How many data.
        split: Which data.
        at_floor: Share of the likelihood's scales that lie at their floor; None for a likelihood without one.
        layers: Of each stochastic layer by name its `rate`, `active_units` and `latent_dim`; None where there is one.
        reduced_from: Where time was short what it would have been else: `num_samples`, `num_data`, and for how many
            `seconds` there was time.
        num_not_finite: Of how many data log p(x) is not finite, which makes its mean -inf or NaN.
        log_px_finite: Mean log p(x) over the others, where there are such, and at least two others.
        log_px_finite_se: Its standard error.
        per_step: Of sequences the sums over all of them, divided by the number of all their steps, `num_steps`:
            `log_px`, `elbo` and their errors, `rate` and `distortion`. None of other data.
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

    def __repr__(self) -> str:
        return (
            f"Evaluation({self.split}, {self.num_data:,} examples, nats per example: "
            f"log_px {self.log_px:.3f} +- {self.log_px_se:.3f} by {self.num_samples:,} samples, "
            f"elbo {self.elbo:.3f} +- {self.elbo_se:.3f}, rate {self.rate:.3f}, distortion {self.distortion:.3f}, "
            f"{self.active_units} of {self.latent_dim} latents active, "
            f"median effective sample size {self.median_ess:.1f}"
            + (
                f", Pareto k-hat above {self.highest_pareto_k:.2g} for {self.high_pareto_k:,})"
                if self.high_pareto_k
                else ")"
            )
        )


@takes_data
@checked_arguments
@torch.no_grad()
def score(
    model: LatentVariableModel,
    split: Split,
    *,
    num_samples: int = 1000,
    max_rows: int | None = None,
    seed: int = 0,
    pareto: bool = True,
    advance: Callable[[float], Any] | None = None,
) -> Scores:
    """log p(x) of every example; the same numbers at every call with the same seed.

    Data outside of the likelihood's support, such as 1.2 where it describes [0, 1], have a log p(x) of -infinity, which
    is exact (its error is 0), an infinite distortion, and nothing else (NaN). They leave the others' numbers alone.

    Args:
        model: The model.
        split: The data, or a tensor of them.
        num_samples: K.
        max_rows: Latents drawn at a time; by default as many as the decoder's output allows, 40,000 at the most.
        seed: Of the samples.
        pareto: Whether to fit the weights' tails for k-hat.
        advance: Called with the number of data done, as they are, in fractions.
    """
    if num_samples < 1:
        raise InputError(f"the number of samples must be at least 1, not {num_samples}")
    inside = in_support(model, split)
    if not inside.any():
        nothing = torch.full((len(split),), torch.nan, dtype=torch.float64)
        empty = Scores(nothing, nothing, nothing, nothing, nothing.unsqueeze(0), nothing, num_samples)
        return empty.where(inside)
    split = stand_ins(split, inside)
    parts = []
    max_rows = max_rows or latents_at_a_time(model, split)
    max_rows = min(max_rows, math.ceil(len(split) * num_samples / _PASSES))
    size = max(1, min(len(split), max_rows, _DATA))
    with evaluating(model), forked(seed):
        for batch in batches(split, size, seed=seed, epoch=0, shuffle=False):
            x, context = place(model, batch.x, batch.context)
            options: Any = {"num_samples": num_samples, "max_rows": max_rows, "pareto": pareto, "advance": advance}
            parts.append(log_marginal(model, x, context, **options))

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name).cpu() for part in parts], dim=-1)

    return Scores(
        joined("log_px"),
        joined("standard_error"),
        joined("effective_sample_size"),
        joined("pareto_k"),
        joined("rate"),
        joined("distortion"),
        num_samples,
    ).where(inside)


@takes_data
def evaluate(
    model: LatentVariableModel,
    split: Split,
    *,
    name: str = "test",
    num_samples: int = 1000,
    seed: int = 0,
    advance: Callable[[float], Any] | None = None,
) -> Evaluation:
    """Measures a model on held-out data.

    Args:
        model: The model.
        split: The data, or a tensor of them, at least two.
        name: What they are called in the record.
        num_samples: K of log p(x).
        seed: Of the samples.
        advance: Called with the number of data done, as they are, in fractions.

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
    advance: Callable[[float], Any] | None = None,
) -> tuple[Evaluation, Scores]:
    """As :func:`evaluate`, with the per-example numbers beside their means; `max_rows` as in :func:`score`."""
    if len(split) < 2:
        raise InputError("one example gives no standard error: evaluate on at least two")
    check_support(model, split)  # of a mean, one that is outside leaves nothing
    scores = score(model, split, num_samples=num_samples, max_rows=max_rows, seed=seed, advance=advance)
    usage = latent_usage(model, split)
    at_floor = share_at_floor(model, split)
    fitted = scores.pareto_k[~scores.pareto_k.isnan()]
    log_px, elbo = Estimate.of(scores.log_px), Estimate.of(scores.elbo)
    evaluation = Evaluation(
        log_px=log_px.mean,
        log_px_se=log_px.standard_error,
        elbo=elbo.mean,
        elbo_se=elbo.standard_error,
        rate=scores.rate.mean().item(),
        distortion=scores.distortion.mean().item(),
        active_units=int(usage.active.sum()),
        latent_dim=len(usage.active),
        bits_per_dim=bits_per_dim(scores.log_px, split.elements).mean().item(),
        median_ess=scores.effective_sample_size.nanmedian().item(),
        high_pareto_k=int((fitted > highest_pareto_k(num_samples)).sum()),
        highest_pareto_k=highest_pareto_k(num_samples),
        median_pareto_k=fitted.median().item() if len(fitted) else None,
        num_samples=num_samples,
        num_data=len(split),
        split=name,
        at_floor=at_floor,
        num_not_finite=log_px.num_not_finite,
        log_px_finite=None if log_px.others is None else log_px.others.mean,
        log_px_finite_se=None if log_px.others is None else log_px.others.standard_error,
        per_step=None if split.lengths is None else numbers_per_step(scores, split.lengths),
        layers=layer_numbers(usage, scores.rates.mean(1).tolist()) if len(usage.layers) > 1 else None,
    )
    return evaluation, scores


def numbers_per_step(scores: Scores, lengths: Tensor) -> dict[str, float]:
    """Ratios of sums, ``sum_i v_i / sum_i T_i``, and their errors."""
    terms = {
        name: linearized_ratio(getattr(scores, name), lengths) for name in ("log_px", "elbo", "rate", "distortion")
    }
    means = {name: values.mean().item() for name, values in terms.items()}
    errors = {f"{name}_se": error_of_mean(terms[name]) for name in ("log_px", "elbo")}
    return means | errors | {"num_steps": int(lengths.sum())}


def bits_per_dim(log_px: Tensor, elements: Tensor | int) -> Tensor:
    """Numbers whose mean is ``-sum_i log p(x_i) / (log 2 sum_i D_i)``, and whose spread gives the error of that ratio.

    Args:
        log_px: ``(N,)``, in nats.
        elements: D_i, how many numbers each example has; the same for all, or those of sequences.
    """
    return linearized_ratio(-log_px / math.log(2), elements)


def linearized_ratio(values: Tensor, sizes: Tensor | int) -> Tensor:
    """``R + (v_i - R s_i) / mean(s)`` with ``R = sum_i v_i / sum_i s_i``: numbers whose mean is that ratio.

    The standard error of their mean is the ratio's, to the first order in the data's fluctuations (delta method).

    Args:
        values: v, ``(N,)``.
        sizes: s, ``(N,)``, or the same for all.
    """
    sizes = torch.as_tensor(sizes, dtype=values.dtype).expand(len(values))
    ratio = values.sum() / sizes.sum()
    terms = ratio + (values - ratio * sizes) / sizes.mean()
    return terms if ratio.isfinite() else ratio.expand(len(values))  # whose mean would be inf - inf


def layer_numbers(usage: LatentUsage, rates: list[float]) -> dict[str, dict[str, float]]:
    """What is told of each layer."""
    active = usage.active_by_layer
    return {
        name: {"rate": rate, "active_units": active[name], "latent_dim": size}
        for (name, size), rate in zip(usage.layers, rates, strict=True)
    }


def latents_at_a_time(model: Any, split: Split) -> int:
    """How many latents to draw at a time: as many as are decoded, sixteen times that of a VAE: it decodes in parts.

    Not of sequences: the networks that draw and weigh their states take more memory than the decoder. Of a mixture
    prior fewer, since each component weighs each of them.
    """
    rows = rows_at_a_time(model, split)
    if not isinstance(model, VAE) or split.lengths is not None:
        return rows
    components = model.prior.num_components if isinstance(model.prior, Mixture) else 1
    return min(40_000, 16 * rows, max(1, _WEIGHED // components))


def rows_at_a_time(model: Any, split: Split) -> int:
    """How many latents to decode at a time, 5,000 at the most; of sequences fewer, so that their steps are bounded."""
    steps = split.num_elements // split.event_shape.numel()
    return min(5000, decoded_at_a_time(getattr(model, "likelihood", None), split.num_elements, steps=steps))


@torch.no_grad()
def share_at_floor(model: Any, split: Split) -> float | None:
    """Share of the likelihood's scales that lie at their floor, at the latents of some data; None without a floor."""
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
