"""Annotated matrices (.h5ad): counts of genes in cells, and what is known of each cell beside them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from subo.data.classes import numbered
from subo.data.contents import Contents
from subo.data.sparse_rows import SparseRows, checked, is_sparse
from subo.data.splits import Split
from subo.data.stored_rows import stored
from subo.data.tables.coding import encode
from subo.data.tables.given import unlearned
from subo.data.tables.inferring import infer_schema
from subo.data.tables.options import TableOptions
from subo.data.tables.remarks import unseen
from subo.data.tables.schema import Schema
from subo.errors import InputError

__all__ = ["ANNOTATED", "read_annotated"]

ANNOTATED = ".h5ad"
"""The ending of such a file."""

_COUNTS = "counts"  # the layer's usual name
_LABEL = "label"


def read_annotated(
    path: Path,
    *,
    options: TableOptions,
    schema: Schema | None = None,
    size: str | None = None,
    on_frame: Callable[[pd.DataFrame], object] | None = None,
) -> Contents:
    """Reads a file of anndata: rows are its ``X``, or its layer ``counts`` if ``X`` is not whole numbers.

    A sparse matrix stays sparse. Columns of ``obs`` can be the condition, the size of a row or, under the name
    ``label``, the classes.

    Args:
        path: The file.
        options: The condition, and kinds of its columns that were asked for.
        schema: What the columns of the condition are, if a run has decided it.
        size: The column of sizes.
        on_frame: Receives ``obs``.

    Raises:
        InputError: anndata is not installed, the file is not of this kind, has no such column, or two columns of ``X``
            have one name.
    """
    annotated = _opened(path)
    x, note = _counts(annotated, path)
    obs = annotated.obs.reset_index(drop=True)
    if on_frame is not None:
        on_frame(obs)
    context, beside, notes = _condition(obs, options, schema, path) if schema or options.given else ({}, None, [])
    if size is not None:
        context["size"] = _sizes(obs, size, path)
    names = tuple(map(str, annotated.obs_names))
    rows = Split(x, names=names, context=context)
    classes = None
    if _LABEL in obs.columns and _LABEL not in (size, *options.given):
        if obs[_LABEL].isna().any():
            raise InputError(f"{path}: the label of some rows is missing: drop these rows, or rename the column")
        classes, numbers = numbered([str(label) for label in obs[_LABEL]])
        rows = replace(rows, labels=numbers)
    return Contents((rows,), tuple(map(str, annotated.var_names)), classes, notes=(note, *notes), beside=beside)


def _opened(path: Path) -> Any:
    """What the file holds; its columns have names of their own."""
    try:
        import anndata
    except ImportError as error:
        raise InputError(f"{path}: reading {ANNOTATED} needs anndata: pip install 'subo[anndata]'") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Variable names are not unique")  # they are refused below
            annotated: Any = anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise nearly anything on bytes that are not such a file
        raise InputError(
            f"{path} can't be read as {ANNOTATED} ({str(error).splitlines()[0]}): write it again"
        ) from error
    names = annotated.var_names
    if (twice := names.duplicated()).any():
        raise InputError(
            f"{path}: each column of X needs a name of its own, and var_names has {names[twice][0]!r} more than once: "
            "call adata.var_names_make_unique(), and write the file again"
        )
    return annotated


def _counts(annotated: Any, path: Path) -> tuple[Any, str]:
    """The rows, and a sentence about where they are from."""
    x = _rows(annotated.X, path)
    if _are_whole(x):
        return x, "rows are X"
    if _COUNTS in annotated.layers:
        counts = _rows(annotated.layers[_COUNTS], path)
        return counts, f"rows are layers['{_COUNTS}'], since X is not whole numbers"
    return x, f"rows are X, which is not whole numbers, and there is no layer '{_COUNTS}'"


def _rows(matrix: Any, path: Path) -> torch.Tensor | SparseRows:
    if matrix is None or matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{path}: expected a matrix X of at least one row and one column")
    if is_sparse(matrix):
        return checked(SparseRows(matrix), where=str(path))
    return torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))


def _are_whole(x: torch.Tensor | SparseRows) -> bool:
    values = stored(x)
    return bool(((values >= 0) & (values == values.round())).all())


def _condition(
    obs: pd.DataFrame, options: TableOptions, schema: Schema | None, path: Path
) -> tuple[dict[str, torch.Tensor], Schema, list[str]]:
    """The cells of the condition as context, what its columns are, and what is said of them."""
    wanted: Sequence[str] = options.given if schema is None else [column.name for column in schema.given.modeled]
    _check_there(obs, wanted, path, "condition")
    if schema is None:
        kinds = {name: kind for name, kind in options.kinds().items() if name in wanted}
        found = infer_schema(obs[[*wanted]], kinds)
        if found.dropped:
            raise InputError(
                f"{path}: the column {found.dropped[0].name!r} of obs is no condition ({found.dropped[0].why})"
            )
        schema = replace(found, columns=tuple(replace(column, given=True) for column in found.columns))
    given = encode(obs, schema.given)
    return {"given": given}, schema, [*unseen(obs, given, schema.given), *unlearned(given, schema)]


def _sizes(obs: pd.DataFrame, size: str, path: Path) -> torch.Tensor:
    _check_there(obs, [size], path, "size_factor")
    return torch.tensor(pd.to_numeric(obs[size], errors="coerce").to_numpy(np.float64))


def _check_there(obs: pd.DataFrame, names: Sequence[str], path: Path, option: str) -> None:
    for name in names:
        if name not in obs.columns:
            known = ", ".join(map(str, obs.columns)) or "none"
            raise InputError(f"{path}: `{option}` names the column {name!r} of obs, which has: {known}")
