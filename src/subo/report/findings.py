"""What a full evaluation found."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from subo.data.splits import Split
from subo.evaluation.inference_gaps import Gaps
from subo.evaluation.latents.usage import LatentUsage
from subo.evaluation.numbers import SECTIONS, Beside, Number
from subo.evaluation.results import Result, Table, rows_of
from subo.evaluation.summary import Evaluation
from subo.files.nonfinite import encoded
from subo.report.depth import Depth
from subo.report.stages import Measured

__all__ = ["Findings"]

_ORDER = ("importance", "annealed", "prior", "bracket", "gaps", "usage", "information", "probe", "calibration")
"""Order in the table; other stages follow these in their section."""


@dataclass(frozen=True, eq=False, repr=False)
class Findings(Result):
    """The results, stage by stage; each stage's record knows its lines of the table.

    Attributes:
        measured: Results of each stage so far: ``importance``, ``information``, ``calibration``, ``probe``, ``prior``,
            ``gaps``, ``annealed``, ``bracket``.
        usage: How each dimension of z is used; None if the latents are not a vector.
        depth: Amount of work that went into it.
        bracket: The estimator of the bracket: ``annealed``, or ``importance`` if latents are discrete.
    """

    measured: dict[str, Measured]
    usage: LatentUsage | None
    depth: Depth
    bracket: str

    @property
    def complete(self) -> bool:
        """Whether everything has been measured."""
        return all(stage.complete for stage in self.measured.values())

    def record(self, stage: str) -> Any:
        """What a stage measured; None if nothing is known yet."""
        return self.measured[stage].record if stage in self.measured else None

    def values(self, stage: str, name: str) -> Tensor | None:
        """A per-example result, if it is known."""
        return getattr(self.record(stage), name, None)

    def column(self, stage: str, name: str, length: int) -> Tensor:
        """A per-example result at the data's positions in the split; NaN elsewhere."""
        column = torch.full((length,), torch.nan, dtype=torch.float64)
        values = self.values(stage, name)
        if values is not None:
            column[self.measured[stage].rows] = values.double()
        return column

    @property
    def gaps(self) -> Gaps | None:
        """The gaps with the larger estimate of log p(x), on the examples for which everything requested is known."""
        found = self.record("gaps")
        return None if found is None else found.with_annealing(*self._annealed())

    @property
    def rows_of_gaps(self) -> Tensor:
        """Positions of the examples in :attr:`gaps`."""
        rows, known = self.measured["gaps"].rows, ~self._annealed()[0].isnan()
        return rows[known] if known.any() else rows  # examples that annealing has not reached yet wait

    def numbers(self, *, num_elements: Tensor | int | None = None) -> tuple[Number, ...]:
        """All lines of the table that are known.

        Args:
            num_elements: Elements of each measured example, for bits per dimension; None for a density, whose bits have
                no meaning.
        """
        records = {name: stage.record for name, stage in self.measured.items()}
        records |= {"usage": self.usage, "gaps": self.gaps}
        lines = [
            line
            for name in sorted(records, key=(*_ORDER, *records).index)
            if records[name] is not None
            for line in records[name].numbers(self.beside(name, num_elements))
        ]
        return tuple(sorted(lines, key=lambda line: (*SECTIONS, line.section).index(line.section)))

    def beside(self, stage: str, num_elements: Tensor | int | None = None) -> Beside:
        """What a stage's numbers are compared with: log p(x) by importance sampling, on the same data and on all."""
        known = self.measured.get("importance")
        if known is None or known.record is None or stage not in self.measured:
            return Beside(num_elements=num_elements)
        rows = self.measured[stage].rows
        length = int(max([-1, *rows.tolist(), *known.rows.tolist()])) + 1
        return Beside(len(known.rows), num_elements, self.column("importance", "log_px", length)[rows])

    def evaluation(self, *, split: Split, name: str, at_floor: float | None = None) -> Evaluation | None:
        """The summary of the importance-sampling results; None if there are none yet, or z is not a vector.

        Args:
            split: The data.
            name: Name of the split.
            at_floor: Fraction of the likelihood's scales at their minimum.
        """
        stage = self.measured["importance"]
        if stage.record is None or self.usage is None:
            return None
        lengths = None if split.lengths is None else split.lengths[stage.rows]
        known: dict[str, Any] = {"elements": split.elements[stage.rows], "lengths": lengths, "at_floor": at_floor}
        return Evaluation.from_scores(stage.record, self.usage, split=name, **known)

    def table(self) -> Table:
        """All numbers, grouped by the question that they answer, and what was left out."""
        importance = self.measured.get("importance")
        count = 0 if importance is None else len(importance.rows)
        left_out = tuple(f"Left out, {name}: {s.refused}" for name, s in self.measured.items() if s.refused)
        title = f"Full evaluation of {count:,} examples: means per example, ± standard errors"
        columns = ("", "value", "unit", "estimator", "K", "examples")
        return Table(title, columns, rows_of(self.numbers(), sections=True), left_out)

    def records(self) -> list[dict[str, Any]]:
        """One row per number."""
        return [asdict(line) for line in self.numbers()]

    def to_dict(self) -> dict[str, Any]:
        """The numbers of the table, what was left out, and the depth of the evaluation; see :meth:`Result.to_dict`."""
        refused = {name: stage.refused for name, stage in self.measured.items() if stage.refused}
        about = {"complete": self.complete, "depth": asdict(self.depth), "left_out": refused}
        return encoded(about | {"numbers": self.records()})

    def _annealed(self) -> list[Tensor]:
        """Annealing's log p(x), its error and effective chains, for the data of the gaps; NaN where not known."""
        rows = self.measured["gaps"].rows
        length = max(int(stage.rows.max()) for stage in self.measured.values() if len(stage.rows)) + 1
        names = ("log_px", "standard_error", "effective_sample_size")
        return [self.column("annealed", name, length)[rows] for name in names]
