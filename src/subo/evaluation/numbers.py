"""Lines of tables: a number with its error, unit and estimator, and the records that consist of such numbers."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from subo.evaluation.estimates import Estimate

__all__ = ["ALONE", "BITS", "CARRIED", "LIKELY", "LOSS", "SECTIONS", "Beside", "Number", "Tabulated"]

LIKELY, LOSS, CARRIED = SECTIONS = ("How likely", "Where the loss is", "What the latents carry")
BITS = "bits per dimension"
_PAIRED = "the same data, paired"


@dataclass(frozen=True)
class Number:
    """One line of a table.

    Attributes:
        section: Which of the three questions it answers.
        name: Name of the number.
        value: The value; a mean over the data, if it refers to data.
        standard_error: Standard error of the value; None if it has none.
        unit: ``nats``, ``bits``, or empty for fractions and counts.
        estimator: Name of the estimator.
        num_samples: K, or the number of chains; None if there are none.
        num_data: Number of examples; None if it does not depend on data.
    """

    section: str
    name: str
    value: float
    standard_error: float | None
    unit: str
    estimator: str
    num_samples: int | None = None
    num_data: int | None = None

    @classmethod
    def mean(
        cls,
        section: str,
        name: str,
        values: Float[Tensor, " N"],
        estimator: str,
        num_samples: int | None = None,
        *,
        unit: str = "nats",
    ) -> "Number":
        """A mean over data, with its error from the spread over the data, which includes that of the samples.

        Example:
            >>> import torch
            >>> line = Number.mean(LIKELY, "log p(x)", torch.tensor([-3.0, -1.0]), "importance sampling", 100)
            >>> line.value, round(line.standard_error, 3), line.num_data
            (-2.0, 1.0, 2)
        """
        found = Estimate.of(values.double()) if len(values) > 1 else Estimate(values.double().mean().item(), math.nan)
        error = None if math.isnan(found.standard_error) else found.standard_error
        return cls(section, name, found.mean, error, unit, estimator, num_samples, len(values))

    @classmethod
    def paired(cls, section: str, name: str, difference: Float[Tensor, " N"], num_samples: int | None) -> "Number":
        """The mean of a difference, computed example by example."""
        return cls.mean(section, name, difference, _PAIRED, num_samples)


@dataclass(frozen=True, eq=False)
class Beside:
    """What a record's numbers appear beside in one table.

    Attributes:
        num_data: Number of examples of the whole table; None if it is that of the record.
        num_elements: Elements of each example, for bits per dimension; None for a density, whose bits have no meaning.
        log_px: Log p(x) by importance sampling for the record's own data, ``(N,)``, NaN where unknown; None if there is
            nothing to compare with.
    """

    num_data: int | None = None
    num_elements: Tensor | int | None = None
    log_px: Float[Tensor, " N"] | None = None

    def name(self, name: str, num_data: int) -> str:
        """The name of a line, which says so if it refers to fewer examples than the table."""
        return name if self.num_data in (None, num_data) else f"{name}, {num_data:,} of the data"

    def difference(self, log_px: Float[Tensor, " N"]) -> Float[Tensor, " M"]:
        """How much another estimate of log p(x) exceeds that of importance sampling, where both are finite."""
        if self.log_px is None:
            return log_px[:0]
        difference = log_px - self.log_px
        return difference[difference.isfinite()]

    def less(self, log_px: Float[Tensor, " N"], num_samples: int) -> Iterator[Number]:
        """The line of :meth:`difference`, if any example has both estimates."""
        difference = self.difference(log_px)
        if len(difference):
            yield Number.paired(LIKELY, "  minus importance sampling's", difference, num_samples)


ALONE = Beside()


class Tabulated(Protocol):
    """A record that knows its lines of a table."""

    def numbers(self, beside: Beside = ALONE) -> Iterable[Number]:
        """Its lines, in order."""
        ...
