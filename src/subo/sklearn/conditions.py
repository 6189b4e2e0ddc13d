"""What the estimator's model of p(x|c) is given where no rows are: cells and sizes of training rows, or a user's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from subo.data.tables.coding import encode
from subo.data.tables.given import check_cells, given_cells
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.sklearn.frames import as_pandas, is_frame
from subo.typing import Context

__all__ = ["Condition", "Known"]


@dataclass(frozen=True, eq=False)
class Known:
    """What some rows are given.

    Attributes:
        context: Their coded cells ``given`` and their ``size``; None without any.
        cells: The cells as a user gave them, one row for all or one for each; None for those of training rows.
    """

    context: Context | None
    cells: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Condition:
    """The condition of a fitted model.

    Attributes:
        of_training: What the training rows were given.
        schema: What the columns of the table are; None for numbers of one kind.
    """

    of_training: Context
    schema: Schema | None

    def drawn(self, count: int, given: Any) -> Known:
        """What samples are given: `given`, and for the rest the cells and sizes of training rows at random."""
        cells, known = self._cells(given, count), dict[str, Tensor]()
        if self.of_training:
            rows = torch.randint(len(next(iter(self.of_training.values()))), (count,))
            known = {name: values[rows].double() for name, values in self.of_training.items()}
        return Known({**known, **self._coded(cells, count)} or None, cells)

    def at(self, count: int, given: Any) -> Known:
        """What the means of latents are given: `given`, and the size 1.

        Raises:
            InputError: The model is conditioned on columns, and `given` does not say on which values.
        """
        if "given" in self.of_training and given is None:
            names = ", ".join(column.name for column in self._columns)
            raise InputError(f"the model is conditioned on {names}: give their cells as `given`")
        cells = self._cells(given, count)
        size = {"size": torch.ones(count, dtype=torch.float64)} if "size" in self.of_training else {}
        return Known({**size, **self._coded(cells, count)} or None, cells)

    @property
    def _columns(self) -> tuple[Any, ...]:
        return () if self.schema is None else self.schema.given.modeled

    def _cells(self, given: Any, count: int) -> pd.DataFrame | None:
        """The cells that a user gave, checked."""
        if given is None:
            return None
        if self.schema is None or not self._columns:
            raise InputError("this model is not conditioned on columns of a table: leave `given` out")
        if isinstance(given, Mapping):
            return given_cells(given, self.schema)
        if not is_frame(given):
            raise InputError(f"`given` is a value for each column or a frame; received {type(given).__name__}")
        frame, names = as_pandas(given), [column.name for column in self._columns]
        if left := [name for name in names if name not in frame]:
            raise InputError(f"`given` leaves out {', '.join(left)}, on which the model is conditioned")
        if len(frame) not in (1, count):
            raise InputError(f"`given` has {len(frame):,} rows: one is needed, or one for each of {count:,}")
        check_cells(frame[names], self.schema)
        return frame[names]

    def _coded(self, cells: pd.DataFrame | None, count: int) -> dict[str, Tensor]:
        if cells is None or self.schema is None:
            return {}
        return {"given": encode(cells, self.schema.given).double().expand(count, -1)}
