"""Tables of mixed columns for the estimator: how X is read by a schema, and how rows are written as X was."""

import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from jaxtyping import Float
from pandas.api import types
from sklearn.utils.validation import validate_data
from torch import Tensor

from subo.data.splits import Split
from subo.data.tables.coding import decode, with_constants
from subo.data.tables.filling import filled, most_likely
from subo.data.tables.given import with_given
from subo.data.tables.mixed import contents_of
from subo.data.tables.options import TableOptions
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.evaluation.imputation import Imputation, impute
from subo.recipes.condition import columns_of
from subo.runtime.wording import counted
from subo.sklearn.arrays import numbers_of
from subo.sklearn.conditions import Known
from subo.sklearn.frames import as_pandas, empty, is_frame, like, with_cells

__all__ = ["Table"]

_GUESSED_FROM = 100  # draws of a missing cell
_FEW = 10  # effective samples, below which draws repeat each other


@dataclass(frozen=True, eq=False)
class Table:
    """A table that a model was fitted to.

    Attributes:
        schema: What its columns are.
        names: All of them, as text.
        template: The frame without rows; None where X was an array.
        ordered: Whether later frames must have the same columns in the same order. That is scikit-learn's contract for
            numbers; a frame that has other columns too is read by name.
        size: The column of the sizes of rows.
    """

    schema: Schema
    names: tuple[str, ...]
    template: Any
    ordered: bool
    size: str | None = None

    @classmethod
    def of(cls, X: Any, frame: pd.DataFrame, settings: Mapping[str, Any], *, rows: Sequence[int]) -> "Table":
        """The table of a fit, with a warning of what is left out.

        Args:
            X: The table as it came.
            frame: Its cells.
            settings: Parameters of the estimator, of which those of columns are read.
            rows: The rows that the schema may see.

        Raises:
            InputError: No schema describes the cells, or not the one that was asked for.
        """
        columns, least = settings["columns"], settings["min_level_count"]
        of_levels = {"column_scaling": settings["column_scaling"], "min_level_count": least}
        options = TableOptions(columns if isinstance(columns, str) else None, **of_levels)
        kinds = options.kinds() if not isinstance(columns, Mapping) else {str(k): kind for k, kind in columns.items()}
        size = None if settings["size_factor"] == "none" else settings["size_factor"]
        how: dict[str, Any] = {"kinds": kinds, "schema": options.schema(), "scaling": options.column_scaling}
        how |= {"condition": columns_of(settings["condition"]) or None, "size": size}
        how |= {"min_level_count": least, "labeled": False, "fit": True}
        read = contents_of(frame, **how)  # whose messages count all rows
        _warn(read.notes)
        if len(rows) < len(frame):
            seen = frame.iloc[[*rows]].reset_index(drop=True)
            read = contents_of(seen, **how)
        assert read.table is not None
        left = [column for column in read.table.dropped if column.name != size and column.why != "as asked for"]
        without = [f"{column.name!r} ({column.why})" for column in left]
        if without:
            _warn([f"left out: {', '.join(without)}"])
        template = empty(X) if is_frame(X) else None
        numbers = [types.is_numeric_dtype(cells) and not types.is_complex_dtype(cells) for _, cells in frame.items()]
        return cls(read.table, tuple(map(str, frame.columns)), template, all(numbers), size)

    def arranged(self, estimator: Any, X: Any) -> pd.DataFrame:
        """The cells of a later X under the names of the fit.

        Raises:
            ValueError: By scikit-learn's contract, an array has another width, or a frame of numbers other columns.
        """
        if not is_frame(X):
            array = numbers_of(estimator, X, reset=False, missing=True)
            return pd.DataFrame(array, columns=pd.Index(self.names))
        frame = as_pandas(X)
        if len(frame) == 0:
            raise InputError("X has no rows: at least one is needed")
        sampled = {*self.schema.kept, *self.schema.constants}
        own = [*frame.columns] == [column.name for column in self.schema.columns if column in sampled]
        if self.template is None or (self.ordered and not own):
            named: Any = X if isinstance(X, pd.DataFrame) else frame
            validate_data(estimator, named, reset=False, skip_check_array=True)
            return frame.set_axis(pd.Index(self.names), axis=1)
        return frame

    def coded(self, frame: pd.DataFrame) -> Split:
        """Cells as rows of the model, without a word about levels that are new."""
        return contents_of(frame, schema=self.schema, labeled=False, size=self.size).parts[0]

    def read(self, frame: pd.DataFrame) -> Split:
        """Cells as rows of the model, with a warning of columns and levels that the fit did not have."""
        read = contents_of(frame, schema=self.schema, labeled=False, size=self.size)
        _warn(read.notes)
        return read.parts[0]

    def write(self, x: Float[Tensor, "N D"], known: Known) -> Any:
        """Rows of the model as X had them: the modeled columns, those of the condition and constants, with their types.

        Args:
            x: The rows.
            known: What they are given.
        """
        given = None if known.context is None else known.context.get("given")
        if given is None or known.cells is None:
            frame = decode(x, self.schema, given)
        else:
            frame = with_given(x, self.schema, known.cells, given)
        if self.template is None:
            return frame.to_numpy("float64")
        return like(with_constants(frame, self.schema), self.template)

    def imputed(
        self, models: Sequence[Any], X: Any, frame: pd.DataFrame, *, draws: int | None, num_samples: int, seed: int
    ) -> Any:
        """Copies of X with their missing cells filled: one with best guesses, or a list of draws.

        Args:
            models: The fitted model, or several that give as many draws each.
            X: The table as it came.
            frame: Its cells, under the names of the fit.
            draws: Number of copies; None for one of best guesses.
            num_samples: K.
            seed: Seed for the draws.
        """
        split = self.read(frame)
        split = replace(split, x=split.x.double())  # as the model draws
        each: dict[str, Any] = {"num_draws": (draws or _GUESSED_FROM) // len(models), "num_samples": num_samples}
        result = Imputation.of([impute(model, split, **each, seed=seed + k) for k, model in enumerate(models)])
        some = split.x.isnan().any(1) & ~split.x.isnan().all(1)
        if poor := int((result.effective_sample_size[some] < _FEW).sum()):
            worth = f"the weights of {counted(poor, 'row')} are worth fewer than {_FEW} samples"
            more = f"increase `evaluation_samples`, which is {num_samples:,}"
            _warn([f"{worth}, so that their draws repeat each other: {more}"])
        if draws is None:
            return self._filled(X, frame, most_likely(result.draws, self.schema))
        return [self._filled(X, frame, draw) for draw in result.draws]

    def _filled(self, X: Any, frame: pd.DataFrame, x: Float[Tensor, "N D"]) -> Any:
        """A copy of X whose missing cells are those of `x`.

        Args:
            X: The table as it came.
            frame: Its cells, under the names of the fit.
            x: Rows without missing cells.
        """
        whole = filled(frame, [x], self.schema)
        if not is_frame(X):
            return whole.to_numpy("float64")
        missing = [column.name for column in self.schema.modeled if bool(frame[column.name].isna().any())]
        own = dict(zip(frame.columns, map(str, X.columns), strict=True))
        whole, template = whole.rename(columns=own), self.template
        untyped = [own[name] for name in missing if bool(frame[name].isna().all())]
        if untyped and template is not None:
            typed = as_pandas(like(whole[untyped], template))
            whole = whole.assign(**{str(name): typed[name] for name in untyped})
        return with_cells(X, whole, [own[name] for name in missing])


def _warn(notes: Sequence[str]) -> None:
    if notes:
        warnings.warn(f"X: {'; '.join(map(_in_python, notes))}", UserWarning, stacklevel=4)


def _in_python(note: str) -> str:
    """What is advised for files, as it is done for frames.

    Example:
        >>> _in_python("if it stands for a missing cell, name it: `missing=N/K`, or give `columns=day=date`")
        "if it stands for a missing cell, replace it: `X.replace(['N/K'], None)`, or give `columns={'day': 'date'}`"
    """
    note = re.sub("name (it|them): `missing=([^`]*)`", lambda found: f"replace {found[1]}: {_replaced(found[2])}", note)
    return re.sub("`columns=([^`=]+)=([a-z]+)`", lambda found: f"`columns={{{found[1]!r}: {found[2]!r}}}`", note)


def _replaced(words: str) -> str:
    return f"`X.replace({next(csv.reader([words]))!r}, None)`"
