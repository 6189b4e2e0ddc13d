"""Tables of numbers of one kind, which one likelihood describes, and a column of labels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.api import types

from subo.data.classes import as_class, numbered
from subo.data.contents import Contents
from subo.data.splits import Split
from subo.data.tables.reading import read_frame
from subo.data.values import check_resolution, check_values
from subo.errors import InputError

__all__ = ["read_numbers"]

_LABEL = "label"


def read_numbers(
    path: Path,
    *,
    later: bool = False,
    known: Sequence[str] = (),
    on_frame: Callable[[pd.DataFrame], object] | None = None,
) -> Contents:
    """Reads a table whose cells are all numbers; a column whose name is exactly ``label`` holds classes.

    Args:
        path: A file with one of the endings :data:`subo.data.tables.options.TABLES`.
        later: Whether a model is fitted already, so that the columns keep its resolution.
        known: Names of its classes.
        on_frame: Receives the cells as they came.

    Raises:
        InputError: The file can't be read or holds something else; gives the row and column.
    """
    read = read_frame(path, of_text=(_LABEL,))
    cells = read.frame.drop(columns=_LABEL, errors="ignore")
    if cells.shape[1] == 0:
        raise InputError(f"{path}: there is no column of data beside 'label'")
    names = tuple(map(str, cells.columns))
    table = np.stack([_numbers(cells[name], path) for name in names], axis=1)
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is reported as such
        x = torch.from_numpy(table.astype(np.float32))
    check_values(x, where=str(path), names=names)
    if not later:
        check_resolution(torch.from_numpy(table), where=str(path), names=names)
    if on_frame is not None:
        on_frame(read.frame)
    if _LABEL not in read.frame:
        return Contents((Split(x),), names, notes=read.notes)
    classes, labels = numbered(_classes(read.frame[_LABEL], known, path))
    said = f"column 'label' holds classes ({len(classes):,} different) and is not modeled; rename it to model it"
    notes = read.notes if later else (*read.notes, said)
    return Contents((Split(x, labels=labels),), names, classes, notes=notes)


def _numbers(cells: pd.Series, path: Path) -> np.ndarray:
    """Cells as numbers; of text, those that begin with 0 are numbers here, too."""
    values = cells.astype("str") if isinstance(cells.dtype, pd.CategoricalDtype) else cells
    other = types.is_bool_dtype(values) or types.is_datetime64_any_dtype(values) or types.is_timedelta64_dtype(values)
    numbers = pd.Series(np.nan, index=cells.index) if other else pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        row = int(np.argmax(numbers.isna()))
        cell = cells.iloc[row]
        found = "the cell is empty" if pd.isna(cell) else f"{str(cell)!r} isn't a number"
        raise InputError(
            f"{path}, column {cells.name!r}, row {row + 1}: {found}; one likelihood describes all cells as numbers: "
            "leave the likelihood at auto, which describes each column as it is, or encode text and fill what is "
            "missing"
        )
    return numbers.to_numpy("float64")


def _classes(cells: pd.Series, known: Sequence[str], path: Path) -> list[int | str]:
    """The class that each cell names: a known one, a whole number, or the text as written."""
    if cells.isna().any():
        row = int(np.argmax(cells.isna())) + 1
        raise InputError(f"{path}, row {row}, column 'label': the label is missing: drop the row, or name its class")
    texts = cells.astype("str")
    class_of = {text: text if text in known else as_class(text) for text in texts.unique()}
    _check_whole([text for text in class_of if text not in known], texts, path)
    return [class_of[text] for text in texts]


def _check_whole(new: Sequence[str], texts: pd.Series, path: Path) -> None:
    """Refuses numbers that cannot be classes; next to names they count as names."""
    parts = [text for text in new if isinstance(as_class(text), str)]
    if parts and bool(pd.to_numeric(texts, errors="coerce").notna().all()):
        row = int(np.argmax(texts.isin(parts)))
        raise InputError(
            f"{path}, row {row + 1}, column 'label': labels must be integers or names, got {texts.iloc[row]}"
        )
