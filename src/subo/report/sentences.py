"""What the numbers of a full evaluation say, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from subo.evaluation.estimates import Estimate
from subo.evaluation.evidence.annealed import few_chains
from subo.evaluation.evidence.pareto import highest_pareto_k
from subo.evaluation.latents.calibration import Calibration
from subo.evaluation.latents.collapse import verdict
from subo.evaluation.numbers import LIKELY, Number
from subo.files.nonfinite import in_words
from subo.report.findings import Findings
from subo.runtime.digits import in_digits

__all__ = ["sentences"]


_TELLING = 1.0  # nats of standard error above which a difference compatible with 0 does not mean agreement


def sentences(findings: Findings, *, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """What the numbers mean, and what they do not show; advice is based on the training's `settings`, if known."""
    said = []
    log_px = findings.values("importance", "log_px")
    if log_px is not None and (found := Estimate.of(log_px)).num_not_finite:
        others = found.others and in_digits(found.others.mean, found.others.standard_error)
        said.append(in_words(found.num_not_finite, len(log_px), others) + " Differences and gaps refer to these only.")
    k_hat = findings.values("importance", "pareto_k")
    highest = highest_pareto_k(findings.depth.num_samples)
    if k_hat is not None and (concerned := int((k_hat > highest).sum())):
        advice = "Use more samples (`num_samples`)" + ("." if findings.bracket == "importance" else ", or annealing.")
        said.append(
            f"Importance sampling: {concerned:,} of {len(k_hat):,} examples have Pareto k-hat above {highest:.2g}, for "
            f"which {findings.depth.num_samples:,} samples are too few. Their log p(x) is too low more often than too "
            f"high, by more than its error. {advice}"
        )
    chains = findings.values("annealed", "effective_sample_size")
    if chains is not None and (concerned := int(few_chains(chains).sum())):
        said.append(
            f"Annealing: for {concerned:,} of {len(chains):,} examples the effective sample size is below four of "
            f"{findings.depth.chains} chains. Their log p(x) by annealing may be far too low, and its error is rough. "
            "More `temperatures` improve the estimate, more `chains` its error."
        )
    said.extend(_on_estimates(findings))
    rate, calibration = findings.values("importance", "rate"), findings.record("calibration")
    if findings.usage is not None and rate is not None:
        said.append(verdict(findings.usage, rate.mean().item(), settings=settings).text)
    if calibration is not None:
        said.extend(_on_calibration(calibration))
    for name, stage in findings.measured.items():
        if stage.refused:
            said.append(f"Left out, {name}: {stage.refused}")
    return tuple(said)


def _on_estimates(findings: Findings) -> Iterator[str]:
    """What annealing and the bracket say about importance sampling, and what causes the gap."""
    annealed = findings.values("annealed", "log_px")
    difference = () if annealed is None else findings.beside("annealed").difference(annealed)
    if len(difference) > 1:
        line = Number.paired(LIKELY, "", difference, None)
        error = line.standard_error or 0.0
        what, then = "agrees with", ""
        if abs(line.value) > 2 * error:
            what = "differs from"
            then = ": the tighter bound" if line.value > 0 else ": too low; raise `temperatures` or `chains`"
        by = f"{line.value:.3g} +- {error:.2g} nats"
        if what == "agrees with" and error > _TELLING:
            yield (
                f"{line.num_data} examples are too few to tell whether annealing and importance sampling agree: they "
                f"differ by {by}. Raise `intensive_data`, or `temperatures` and `chains`."
            )
        else:
            yield f"Annealing {what} importance sampling on {line.num_data} examples, by {by}{then}."
    width = findings.values("bracket", "width")
    if width is not None:
        line = Number.paired(LIKELY, "", width, None)
        error = line.standard_error or 0.0
        closed = "closed within its error" if abs(line.value) <= 2 * error else "open"
        if closed != "open" and error > _TELLING:
            closed = "too uncertain to be called closed or open"
        yield (
            f"On {line.num_data} examples drawn from the model, the bracket around log p(x) is {closed}: "
            f"{line.value:.3g} +- {error:.2g} nats wide. This is the largest error to expect of these estimators on "
            "similar data."
        )
    found = findings.gaps
    if found is not None and len((found := found.finite()).elbo) > 1:
        means = found.means()
        (whole, _), (family, _), (encoder, _) = (means[n] for n in ("inference", "approximation", "amortization"))
        if whole <= 0:
            yield (
                f"log p(x) and the ELBO differ by {whole:.3g} nats, which is noise: log p(x) is never below the ELBO. "
                "Either there is no gap to attribute, or more samples are needed (`num_samples`)."
            )
        else:
            yield (
                f"Of the {whole:.3g} nats between log p(x) and the ELBO, {family:.3g} are due to the family and "
                f"{encoder:.3g} to the encoder."
            )


def _on_calibration(calibration: Calibration) -> Iterator[str]:
    if calibration.is_calibrated:
        yield "On data drawn from the model itself, q's ranks are uniform: there is no evidence of miscalibration."
        return
    kinds: dict[str, list[str]] = {}
    for name, reading in zip(calibration.names, calibration.readings, strict=True):
        if reading != "calibrated":
            kinds.setdefault(reading, []).append(name)
    found = "; ".join(f"{reading} in {_some(names)}" for reading, names in kinds.items())
    yield f"On data drawn from the model itself, q is not the posterior: {found}."


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
