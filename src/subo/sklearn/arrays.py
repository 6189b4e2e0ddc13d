"""Arrays and sparse matrices of numbers, checked as scikit-learn checks them."""

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from subo.data.dataset import describe_constants
from subo.data.sparse_rows import SparseRows, checked
from subo.data.values import check_resolution, check_values, constant_elements
from subo.errors import InputError
from subo.runtime.memory import check_room

__all__ = ["as_stored", "numbers_of", "seed_of", "warn_of_constants"]


def numbers_of(
    estimator: Any, X: Any, *, reset: bool, missing: bool, dtype: type = np.float64, dense: bool = True
) -> Any:
    """X as an array of numbers, ``(N, D)``, or as a sparse matrix if it is one and need not be dense.

    Args:
        estimator: The estimator, whose ``n_features_in_`` and ``feature_names_in_`` are set or compared with.
        X: An array, a sparse matrix, or a frame of numbers.
        reset: Whether this is the fit.
        missing: Whether cells may be missing, NaN.
        dtype: The type of its numbers.
        dense: Whether a sparse matrix is made dense.

    Raises:
        ValueError: X is not a table of finite numbers, or not of the width of the fit.
        NoRoomError: Memory does not hold a sparse matrix as a dense one.
    """
    checks: Any = {"ensure_min_samples": 2 if reset else 1, "dtype": dtype, "ensure_all_finite": "allow-nan"}
    array: Any = validate_data(estimator, X, reset=reset, accept_sparse=("csr", "csc", "coo"), **checks)
    if sparse.issparse(array) and not dense and not np.isnan(array.data).any():
        return array
    if sparse.issparse(array):
        rows, columns = array.shape
        check_room(
            rows * columns * (np.dtype(dtype).itemsize + 4),  # and as float32
            f"X as a dense table of {rows:,} rows and {columns:,} columns",
            "Pass fewer rows at a time, or fewer columns.",
        )
        array = array.toarray()
    if not missing and (count := int(np.isnan(array).sum())):
        raise InputError(
            f"X: {count:,} of {array.size:,} cells are missing (NaN), which is described by a table of columns alone: "
            "fit it with likelihood='columns', or fill the cells"
        )
    return np.ascontiguousarray(array)


def as_stored(array: Any, names: tuple[str, ...] | None) -> Any:
    """The numbers in float32, in which data are stored; sparse ones stay sparse.

    Raises:
        InputError: A column's values cannot be told apart in float32, or one is beyond it.
    """
    if sparse.issparse(array):
        return checked(SparseRows(array.astype(np.float32)), where="X")
    wide = torch.tensor(array)
    check_resolution(wide, where="X", names=names)
    check_values(wide.float(), where="X", names=names)
    return wide.float()


def warn_of_constants(x: Tensor | SparseRows, names: tuple[str, ...] | None) -> None:
    """Warns of constant columns: they carry no information, and only the minimum scale limits their density."""
    names = names or tuple(f"column {number}" for number in range(1, x.shape[1] + 1))
    constant = [names[column] for column in constant_elements(x).nonzero()[:, 0].tolist()]
    if constant:
        warnings.warn(f"X: {describe_constants(constant)}", UserWarning, stacklevel=3)


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """A seed drawn from a random state of scikit-learn."""
    return int(check_random_state(random_state).randint(2**31 - 1))
