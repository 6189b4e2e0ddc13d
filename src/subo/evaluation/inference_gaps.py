"""The inference gap of each example, split in two, and the estimate of log p(x) that it is measured from."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subo.evaluation.evidence.annealed import few_chains
from subo.evaluation.numbers import ALONE, LOSS, Beside, Number
from subo.evaluation.results import Result, Table, rows_of
from subo.files.nonfinite import encoded

__all__ = ["Gaps", "larger"]

_SURE = 3.0  # standard errors by which two estimates must differ for the smaller to count as the looser
_ESTIMATES = ("log_px", "log_px_se", "elbo", "elbo_se", "elbo_best", "elbo_best_se", "elbo_richer", "elbo_richer_se")
_GAPS = ("approximation", "amortization", "inference", "approximation_richer")


@dataclass(frozen=True, eq=False, repr=False)
class Gaps(Result):
    """Per-example gaps in nats, float64 and on the CPU; a difference below 0 is noise, or a search that stopped early.

    Attributes:
        log_px: The larger of importance sampling and annealed importance sampling, each a lower bound in expectation;
            if they agree within their errors, the more precise one.
        log_px_se: Standard error of the chosen estimate.
        log_px_from: Which estimate was chosen, ``importance`` or ``annealed``.
        annealed: Whether annealing was used; it is not for discrete latents.
        elbo: ELBO of the model's own posterior.
        elbo_se: Standard error of `elbo`, over samples of z.
        elbo_best: ELBO of the best q of the same family, found for each example separately.
        elbo_best_se: Standard error of `elbo_best`.
        elbo_richer: ELBO of the best q of a richer family; None if none was requested, or none is suitable.
        elbo_richer_se: Standard error of `elbo_richer`.
        num_samples: K of the estimates; None if unknown.
    """

    log_px: Float[Tensor, " B"]
    log_px_se: Float[Tensor, " B"]
    log_px_from: tuple[str, ...]
    annealed: bool
    elbo: Float[Tensor, " B"]
    elbo_se: Float[Tensor, " B"]
    elbo_best: Float[Tensor, " B"]
    elbo_best_se: Float[Tensor, " B"]
    elbo_richer: Float[Tensor, " B"] | None
    elbo_richer_se: Float[Tensor, " B"] | None
    num_samples: int | None = None

    @property
    def approximation(self) -> Float[Tensor, " B"]:
        """``log p(x) - ELBO(best q)``: what the family cannot do."""
        return self.log_px - self.elbo_best

    @property
    def amortization(self) -> Float[Tensor, " B"]:
        """``ELBO(best q) - ELBO``: what the encoder does not find."""
        return self.elbo_best - self.elbo

    @property
    def inference(self) -> Float[Tensor, " B"]:
        """``log p(x) - ELBO``: the sum of both, the error term of the SUBO."""
        return self.log_px - self.elbo

    @property
    def approximation_richer(self) -> Float[Tensor, " B"] | None:
        """``log p(x) - ELBO(best richer q)``."""
        return None if self.elbo_richer is None else self.log_px - self.elbo_richer

    def finite(self) -> "Gaps":
        """The gaps of the examples whose numbers are all finite: with an infinite log p(x), a gap is meaningless."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return self._at(torch.stack(list(tensors.values())).isfinite().all(0))

    def _at(self, rows: Bool[Tensor, " B"]) -> "Gaps":
        """The gaps of some of the examples."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        origins = tuple(name for name, kept in zip(self.log_px_from, rows.tolist(), strict=True) if kept)
        return replace(self, log_px_from=origins, **{name: value[rows] for name, value in tensors.items()})

    def means(self) -> dict[str, tuple[float, float]]:
        """Every quantity's mean over the data with its standard error, from their spread; infinite for one example."""
        names = ("log_px", "elbo", "elbo_best", "elbo_richer")
        names += ("approximation", "approximation_richer", "amortization", "inference")
        values = {name: getattr(self, name) for name in names}
        root = math.sqrt(len(self.elbo))
        return {
            name: (value.mean().item(), value.std().item() / root if len(value) > 1 else math.inf)
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def unknown(cls, num_data: int) -> "Gaps":
        """Unknown gaps: every number is NaN."""
        blank = torch.full((num_data,), torch.nan, dtype=torch.float64)
        columns = dict.fromkeys(_ESTIMATES[:-2], blank)
        origins = ("importance",) * num_data
        return cls(**columns, log_px_from=origins, annealed=False, elbo_richer=None, elbo_richer_se=None)

    @classmethod
    def joined(cls, parts: Sequence["Gaps"]) -> "Gaps":
        """Concatenates the gaps of several sets of examples; NaN where some lack what others have."""
        columns: dict[str, Tensor] = {}
        for name in _ESTIMATES:
            values = [getattr(part, name) for part in parts]
            if any(value is not None for value in values):
                blanks = [torch.full_like(part.elbo, torch.nan) for part in parts]
                columns[name] = torch.cat([b if v is None else v for v, b in zip(values, blanks, strict=True)])
        origins = tuple(name for part in parts for name in part.log_px_from)
        return replace(parts[0], log_px_from=origins, **columns)

    def spread(self, known: Bool[Tensor, " N"]) -> "Gaps":
        """The gaps of N examples, of which these are the `known` ones; the others are NaN."""
        own, columns = iter(self.log_px_from), {}
        for name in _ESTIMATES:
            if (values := getattr(self, name)) is not None:
                columns[name] = values.new_full((len(known),), torch.nan).masked_scatter(known, values)
        origins = tuple(next(own) if found else "importance" for found in known.tolist())
        return replace(self, log_px_from=origins, **columns)

    def with_annealing(
        self,
        log_px: Float[Tensor, " B"],
        standard_error: Float[Tensor, " B"],
        effective_sample_size: Float[Tensor, " B"],
    ) -> "Gaps":
        """The gaps of the examples with a known log p(x) by annealing, from the larger of the two estimates.

        Args:
            log_px: Estimate by annealing, NaN where unknown; if all are unknown, nothing changes.
            standard_error: Standard error of `log_px`.
            effective_sample_size: Number of chains that count.
        """
        known = ~log_px.isnan()
        if not known.any():
            return self
        kept, doubtful = self._at(known), few_chains(effective_sample_size[known])
        best = larger(kept.log_px, kept.log_px_se, log_px[known], standard_error[known], doubtful=doubtful)
        origins = tuple("annealed" if by else "importance" for by in best[2].tolist())
        return replace(kept, log_px=best[0], log_px_se=best[1], log_px_from=origins, annealed=True)

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """Means over the examples whose numbers are all finite, if there are any."""
        found, count = self.finite(), self.num_samples
        if len(found.elbo) == 0:
            return
        how = "with the better log p(x)" if found.annealed else "by importance sampling"
        yield Number.mean(LOSS, "inference gap, log p(x) - ELBO", found.inference, how, count)
        yield Number.mean(LOSS, "  approximation gap", found.approximation, "best q of each example", count)
        yield Number.mean(LOSS, "  amortization gap", found.amortization, "that less the encoder's", count)
        if found.approximation_richer is not None:
            how = "best flow of each example"
            yield Number.mean(LOSS, "approximation gap of a flow", found.approximation_richer, how, count)

    def table(self) -> Table:
        """The mean gaps with their errors."""
        count, left_out = f"{len(self.elbo):,} examples", len(self.elbo) - len(self.finite().elbo)
        notes = (f"Left out: {left_out:,} of {count}, whose numbers are not finite.",) if left_out else ()
        title = f"Gaps of {count}: means per example, ± standard errors"
        return Table(title, ("", "value", "unit", "estimator", "K", "examples"), rows_of(self.numbers()), notes)

    def records(self) -> list[dict[str, Any]]:
        """One row per example: the estimates, and the gaps between them."""
        columns = {name: value for name, value in self._columns().items() if value is not None}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """The estimates and gaps of each example as lists, by name; see :meth:`Result.to_dict`."""
        return encoded(self._columns() | {"annealed": self.annealed, "num_samples": self.num_samples})

    def _columns(self) -> dict[str, list[Any] | None]:
        """The known quantities of each example, by name."""
        values = {name: getattr(self, name) for name in (*_ESTIMATES, *_GAPS)}
        columns = {name: None if value is None else value.tolist() for name, value in values.items()}
        return columns | {"log_px_from": list(self.log_px_from)}


def larger(
    log_px: Tensor, standard_error: Tensor, annealed: Tensor, annealed_error: Tensor, *, doubtful: Tensor | None = None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The larger estimate where they clearly differ, else the more precise one, and where it comes from annealing.

    Both are lower bounds in expectation. If two agree, the larger of each pair would be too large: noise, which is high
    with few chains, would be mistaken for a tighter bound.

    Args:
        log_px: Estimate by importance sampling.
        standard_error: Standard error of `log_px`.
        annealed: Estimate by annealing.
        annealed_error: Standard error of `annealed`.
        doubtful: Where annealing's error is unreliable, and therefore not treated as the smaller one.
    """
    difference = annealed - log_px
    noise = _SURE * torch.hypot(annealed_error, standard_error)
    precise = annealed_error < standard_error
    if doubtful is not None:
        precise = precise & ~doubtful
    by_annealing = (difference > noise) | ((difference > -noise) & precise)
    by_annealing = (by_annealing & annealed.isfinite()) | ~log_px.isfinite()
    return (
        torch.where(by_annealing, annealed, log_px),
        torch.where(by_annealing, annealed_error, standard_error),
        by_annealing,
    )
