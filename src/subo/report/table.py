"""What a full evaluation found as a table of numbers, each with its error, unit and estimator, and in sentences."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from subo.evaluation.estimates import Estimate
from subo.evaluation.evidence.annealed import few_chains
from subo.evaluation.gaps import Gaps, larger
from subo.evaluation.latents.calibration import Calibration
from subo.evaluation.summary import bits_per_dim
from subo.report.findings import Findings

__all__ = ["BITS", "Number", "calibration_of", "gaps_of", "numbers", "rows_of_gaps"]

LIKELY, LOSS, CARRIED = "How likely", "Where the loss is", "What the latents carry"
BITS = "bits per dimension"
_LESS, _PAIRED = "  minus importance sampling's", "the same data, paired"


@dataclass(frozen=True)
class Number:
    """One line of the table.

    Attributes:
        section: Which of the three questions it answers.
        name: What it is.
        value: Mean over the data, where it is of data.
        standard_error: Of the value; None where it has none.
        unit: ``nats``, ``bits``, or empty for shares and counts.
        estimator: How it was estimated.
        num_samples: K, or the number of chains; None where there are none.
        num_data: Of how many data; None where they do not enter.
    """

    section: str
    name: str
    value: float
    standard_error: float | None
    unit: str
    estimator: str
    num_samples: int | None = None
    num_data: int | None = None


def numbers(findings: Findings, *, num_elements: Tensor | int | None) -> tuple[Number, ...]:
    """All lines of the table that are known.

    Args:
        findings: What was measured.
        num_elements: Elements of each measured example, for bits per dimension; None for a density, whose bits count
            nothing.
    """
    return (*_likely(findings, num_elements), *_loss(findings), *_carried(findings))


def _likely(findings: Findings, num_elements: Tensor | int | None) -> Iterator[Number]:
    depth, values = findings.depth, findings.values
    log_px = values("importance", "log_px")
    if log_px is not None:
        by_q = "importance sampling"
        yield _mean(LIKELY, "log p(x)", log_px, by_q, depth.num_samples)
        if num_elements is not None:
            bits = bits_per_dim(log_px, num_elements)
            yield _mean(LIKELY, BITS, bits, by_q, depth.num_samples, unit="bits")
        for name in ("elbo", "rate", "distortion"):
            label = {"elbo": "ELBO = -(rate + distortion)"}.get(name, name)
            how = "samples of q, or closed form" if name == "rate" else "samples of q"
            tensor = findings.measured["importance"].results[name]
            yield _mean(LIKELY, label, tensor, how, depth.num_samples)
    annealed = values("annealed", "log_px")
    if annealed is not None:
        how = f"annealing, {depth.temperatures:,} temperatures"
        yield _mean(LIKELY, _some_of("log p(x)", annealed, log_px), annealed, how, depth.chains)
        yield from _paired(annealed - _same(findings, "annealed"), depth.chains)
        worth, how = values("annealed", "effective_sample_size"), f"of {depth.chains}, by their weights"
        if worth is not None:
            median = worth.nanmedian().item()
            yield Number(LIKELY, "  effective chains, median", median, None, "", how, depth.chains, len(annealed))
    prior = values("prior", "log_px")
    if prior is not None:
        yield _mean(LIKELY, _some_of("log p(x)", prior, log_px), prior, "samples of the prior", depth.num_samples)
        yield from _paired(prior - _same(findings, "prior"), depth.num_samples)
        worth = findings.measured["prior"].results["effective_sample_size"].nanmedian().item()
        how = "the prior's weights"
        yield Number(LIKELY, "  effective samples, median", worth, None, "", how, depth.num_samples, len(prior))
    lower, upper = values("bracket", "lower"), values("bracket", "upper")
    if lower is not None and upper is not None:
        how = "annealing" if findings.bracket == "annealed" else "importance sampling"
        count = depth.chains if findings.bracket == "annealed" else depth.num_samples
        yield _mean(LIKELY, "simulated data: lower bound", lower, how, count)
        yield _mean(LIKELY, "simulated data: upper bound", upper, f"{how} in reverse", count)
        yield _mean(LIKELY, "  width of this bracket", upper - lower, _PAIRED, count)


def _paired(difference: Tensor, count: int) -> Iterator[Number]:
    """Where any example has both, and both finite; with other settings those that have are being measured."""
    known = difference[difference.isfinite()]
    if len(known):
        yield _mean(LIKELY, _LESS, known, _PAIRED, count)


def _loss(findings: Findings) -> Iterator[Number]:
    found, count = gaps_of(findings), findings.depth.num_samples
    if found is None or len((found := found.finite()).elbo) == 0:
        return
    how = "with the better log p(x)" if found.annealed else "by importance sampling"
    yield _mean(LOSS, "inference gap, log p(x) - ELBO", found.inference, how, count)
    yield _mean(LOSS, "  approximation gap", found.approximation, "best q of each example", count)
    yield _mean(LOSS, "  amortization gap", found.amortization, "that less the encoder's", count)
    if found.approximation_richer is not None:
        yield _mean(LOSS, "approximation gap of a flow", found.approximation_richer, "best flow of each example", count)


def _carried(findings: Findings) -> Iterator[Number]:
    usage = findings.usage
    if usage is not None:
        how = f"of {len(usage.active)}, variance of means > 0.01"
        yield Number(CARRIED, "active units", float(usage.active.sum()), None, "", how, None, len(usage.means))
    stage = findings.measured.get("information")
    if stage is not None and stage.results:
        yield from _information({name: tensor.item() for name, tensor in stage.results.items()})
    stage = findings.measured.get("probe")
    if stage is not None and stage.results:
        scalars = {name: tensor.item() for name, tensor in stage.results.items()}
        test = int(scalars["num_test"])
        for name, error, label, how in (
            ("linear_accuracy", "linear_se", "accuracy of a linear probe", "logistic regression"),
            ("knn_accuracy", "knn_se", "accuracy of neighbors", f"{int(scalars['neighbors'])} nearest means"),
            ("adjusted_rand", "", "clusters: adjusted Rand index", "k-means on means"),
            ("normalized_mutual_information", "", "clusters: mutual information", "k-means, normalized"),
        ):
            yield Number(CARRIED, label, scalars[name], scalars[error] if error else None, "", how, None, test)
    calibration = calibration_of(findings)
    if calibration is not None:
        wrong = sum(reading != "calibrated" for reading in calibration.readings)
        how, count = f"of {len(calibration.names)}, on simulated data", len(calibration.ranks)
        yield Number(
            CARRIED, "quantities out of calibration", float(wrong), None, "", how, calibration.num_ranks, count
        )


def _information(scalars: Mapping[str, float]) -> Iterator[Number]:
    """The rate in its parts; of a prior that is told the class c within classes, by the names that they have there."""
    count, samples = int(scalars["num_data"]), int(scalars["num_samples"])
    information, marginal, within = "mutual information I(x; z)", "marginal KL(q(z) || p(z))", ""
    if scalars["told"]:
        information = "mutual information I((x, c); z)"
    if scalars["given"]:
        information, marginal = "I(x; z | c) within classes", "KL(q(z|c) || p(z|c)) within classes"
        within = " within classes"
    rate = "  their sum, the rate by these samples" if "marginal_kl" in scalars else "the rate by these samples"
    bound = f"<= {'E log N_c' if scalars['given'] else 'log N'} = {scalars['ceiling']:.2f}"
    for name, error, label in (
        ("value", "standard_error", information),
        ("marginal_kl", "marginal_kl_se", marginal),
        ("rate", "rate_se", rate),
        ("total_correlation", "total_correlation_se", f"total correlation{within}"),
        ("dimension_kl", "dimension_kl_se", f"KL of the dimensions{within}"),
    ):
        if name in scalars:
            how = f"below the truth; {bound}" if name == "value" else "the same samples"
            yield Number(CARRIED, label, scalars[name], scalars.get(error), "nats", how, samples, count)


def gaps_of(findings: Findings) -> Gaps | None:
    """The gaps with the larger estimate of log p(x), on the data of which all that is asked is known."""
    stage = findings.measured.get("gaps")
    if stage is None or not stage.results:
        return None
    results, (annealed, error, effective) = dict(stage.results), _annealed(findings)
    known = ~annealed.isnan()
    by_annealing = torch.zeros_like(known)
    if known.any():  # an example that annealing has not come to yet waits
        results = {name: values[known] for name, values in results.items()}
        results["log_px"], results["log_px_se"], by_annealing = larger(
            results["log_px"],
            results["log_px_se"],
            annealed[known],
            error[known],
            doubtful=few_chains(effective[known]),
        )
    return Gaps(
        log_px_from=tuple("annealed" if by else "importance" for by in by_annealing.tolist()),
        annealed=bool(known.any()),
        elbo_richer=results.pop("elbo_richer", None),
        elbo_richer_se=results.pop("elbo_richer_se", None),
        **results,
    )


def rows_of_gaps(findings: Findings) -> Tensor:
    """Positions of the data that :func:`gaps_of` tells of."""
    rows, known = findings.measured["gaps"].rows, ~_annealed(findings)[0].isnan()
    return rows[known] if known.any() else rows


def _annealed(findings: Findings) -> list[Tensor]:
    """Annealing's log p(x), its error and effective chains, for the data of the gaps; NaN where they are not known."""
    rows = findings.measured["gaps"].rows
    length = int(max(m.rows.max() for m in findings.measured.values() if len(m.rows))) + 1
    names = ("log_px", "standard_error", "effective_sample_size")
    return [findings.column("annealed", name, length)[rows] for name in names]


def calibration_of(findings: Findings) -> Calibration | None:
    """Calibration by the ranks that are known, of at least a hundred simulated data."""
    stage = findings.measured.get("calibration")
    if stage is None or len(stage.rows) < 100:
        return None
    names = sorted(stage.results)
    ranks = torch.stack([stage.results[name] for name in names], dim=1)
    return Calibration.of([name.split(" ", 1)[1] for name in names], ranks)


def _some_of(name: str, values: Tensor, whole: Tensor | None) -> str:
    """Says where a line is of fewer data than the first."""
    return name if whole is None or len(values) == len(whole) else f"{name}, {len(values):,} of the data"


def _same(findings: Findings, stage: str) -> Float[Tensor, " n"]:
    """Importance sampling's log p(x) of another stage's data; NaN where it is not known."""
    rows = findings.measured[stage].rows
    length = int(max(rows.max(), findings.measured["importance"].rows.max())) + 1
    return findings.column("importance", "log_px", length)[rows]


def _mean(
    section: str, name: str, values: Float[Tensor, " N"], estimator: str, num_samples: int | None, *, unit: str = "nats"
) -> Number:
    """With its error by the spread over the data, which holds that of the samples."""
    found = Estimate.of(values.double()) if len(values) > 1 else Estimate(values.double().mean().item(), math.nan)
    error = None if math.isnan(found.standard_error) else found.standard_error
    return Number(section, name, found.mean, error, unit, estimator, num_samples, len(values))
