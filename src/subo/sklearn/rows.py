"""Rows of numbers for the estimator, which may be sparse and have sizes."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from subo.data.size_factors import OBSERVED, SizeFactor, totals, with_sizes
from subo.data.sparse_rows import SparseRows
from subo.data.splits import Split
from subo.errors import InputError
from subo.recipes.for_data import examples_and_context
from subo.sklearn.arrays import numbers_of
from subo.sklearn.frames import as_pandas, is_frame

__all__ = ["as_rows", "given_rows", "size_factor_of", "sized", "starting_rows"]


def as_rows(numbers: Any) -> Any:
    """An array or a sparse matrix as a split keeps it."""
    return torch.tensor(numbers) if isinstance(numbers, np.ndarray) else SparseRows(numbers)


def given_rows(estimator: Any, X: Any, settings: dict[str, Any]) -> Any:
    """The rows of a fit: a frame for a table of mixed columns, or numbers of one kind, which may be sparse."""
    likelihood, columns = settings["likelihood"], settings["columns"]
    mixed = likelihood in ("auto", "columns")
    if settings["condition"] == "labels":
        raise InputError("`condition` names columns of X: y is not read")
    if not mixed and columns is not None:
        raise InputError(f"`columns` are kinds of columns, but the likelihood {likelihood} describes all alike")
    if is_frame(X) and mixed:
        frame = as_pandas(X)
        named: Any = X if isinstance(X, pd.DataFrame) else frame
        validate_data(estimator, named, skip_check_array=True)
        return frame
    as_columns = likelihood == "columns" or columns is not None
    numbers = numbers_of(estimator, X, reset=True, missing=mixed, dense=as_columns)
    if isinstance(numbers, np.ndarray) and (as_columns or np.isnan(numbers).any()):
        return pd.DataFrame(numbers, columns=pd.Index([f"x{number}" for number in range(numbers.shape[1])]))
    if settings["condition"] != "none":
        raise InputError(
            f"`condition` names columns of a frame, which the likelihood columns describes; received "
            f"{settings['condition']!r}, and X is numbers of one kind"
        )
    return numbers


def size_factor_of(rows: Split, source: str, training: Tensor, *, is_table: bool) -> SizeFactor | None:
    """What the size of a row is, with the mean of the rows to train on as unit; None without sizes.

    Args:
        rows: All rows of the fit.
        source: The parameter ``size_factor``.
        training: Numbers of those to train on.
        is_table: Whether they are a table of mixed columns.

    Raises:
        InputError: A column is named, and there are none.
    """
    if source == "none":
        return None
    if is_table:  # whose total means nothing, as its reader says
        return SizeFactor(source, rows.context["size"].double()[training].mean().item())
    if source != OBSERVED:
        raise InputError(
            f"`size_factor` names the column {source!r}, but the likelihood of these rows describes all columns alike: "
            "use observed, or a frame with the likelihood columns"
        )
    return SizeFactor(source, totals(rows)[training].mean().item())


def sized(rows: Split, sizes: SizeFactor | None) -> Split:
    """The rows with their sizes, if the model needs them."""
    if sizes is None:
        return rows
    (found,), _ = with_sizes([rows], sizes.source, unit=sizes.unit, where="X")
    return found


def starting_rows(training: Split, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows, with their context, that set units: all, or of sparse ones some."""
    if isinstance(training.x, SparseRows):
        return examples_and_context(training, seed=seed)
    return training.x, dict(training.context)
