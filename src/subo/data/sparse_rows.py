"""Rows of a sparse matrix in the place of a tensor of rows: only those that are read become dense."""

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Size, Tensor

from subo.errors import InputError

with warnings.catch_warnings():  # whose filters SciPy's import changes
    from scipy.sparse import sparray, spmatrix

__all__ = ["Sparse", "SparseRows", "checked", "is_sparse", "sparse_ranges"]

_AT_A_TIME = 4_000_000  # numbers of rows that are made dense together


Sparse: TypeAlias = sparray | spmatrix
"""A sparse matrix or array of SciPy."""


class SparseRows:
    """Rows of a sparse matrix, ``(N, D)``, as a :class:`~subo.Split` keeps them; float32, or float64 if they are.

    They are taken as those of a tensor are, and stay sparse; :meth:`index_select` makes those that it takes dense.

    Args:
        matrix: A matrix or array of SciPy in any sparse format.

    Example:
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows(csr_array(np.array([[0.0, 2.0], [3.0, 0.0]])))
        >>> rows.shape, rows.index_select(0, torch.tensor([1]))
        (torch.Size([2, 2]), tensor([[3., 0.]], dtype=torch.float64))
    """

    ndim = 2

    def __init__(self, matrix: Any):
        matrix = matrix.tocsr()
        kept = matrix.dtype if matrix.dtype in (np.float32, np.float64) else np.float32
        self.matrix = matrix.astype(kept, copy=False)
        self.matrix.sum_duplicates()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"SparseRows({len(self):,} rows of {self.shape[1]:,} numbers, {self.matrix.nnz:,} of them not 0)"

    @property
    def shape(self) -> Size:
        """``(N, D)``."""
        return Size(self.matrix.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return torch.float32 if self.matrix.dtype == np.float32 else torch.float64

    @property
    def at_a_time(self) -> int:
        """How many rows may be dense together where all are gone through."""
        return max(1, _AT_A_TIME // max(1, self.shape[1]))

    def is_floating_point(self) -> bool:
        """True: these are no pixels."""
        return True

    def __getitem__(self, index: Any) -> "SparseRows":
        """Rows in the order of their numbers; columns with ``[..., columns]``."""
        if isinstance(index, tuple):
            return SparseRows(self.matrix[:, list(index[1])])
        return SparseRows(self.matrix[index.numpy() if isinstance(index, Tensor) else index])

    def index_select(self, dim: int, index: Integer[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """These rows, dense."""
        return torch.from_numpy(self.matrix[index.numpy()].toarray())

    def spread(self) -> Float[Tensor, "n D"]:
        """A few million numbers of them, dense: rows that are spread evenly over all."""
        step = max(1, -(-len(self) // self.at_a_time))
        return self.index_select(0, torch.arange(0, len(self), step))

    def sums(self) -> Float[Tensor, " N"]:
        """The sum of each row, in float64."""
        return torch.from_numpy(np.asarray(self.matrix.sum(1, dtype=np.float64)).ravel())


def is_sparse(x: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy."""
    return isinstance(x, Sparse)


def sparse_ranges(x: SparseRows) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number of each column."""
    least, most = (np.asarray(x.matrix.min(0).todense()), np.asarray(x.matrix.max(0).todense()))
    return torch.from_numpy(least.ravel()), torch.from_numpy(most.ravel())


def checked(x: Any, *, where: str) -> Any:
    """Refuses NaN and infinity.

    Raises:
        InputError: Names the first row.
    """
    wrong = ~np.isfinite(x.matrix.data)
    if wrong.any():
        row = int(np.searchsorted(x.matrix.indptr, int(wrong.argmax()), side="right"))
        raise InputError(
            f"{where}: all values must be finite, but {int(wrong.sum())} are not; the first is in row {row}"
        )
    return x
