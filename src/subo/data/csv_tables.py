"""Reading tables: numbers between commas under a header, and a column of labels."""

import csv
import math
from array import array as numbers
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from subo.data.classes import as_class, numbered
from subo.data.contents import Contents
from subo.data.splits import Split
from subo.data.values import check_resolution, check_values
from subo.errors import InputError
from subo.files.tables import name_in

__all__ = ["read_table"]

_LABEL = "label"


def read_table(path: Path, *, later: bool = False, known: Sequence[str] = ()) -> Contents:
    """Reads a `.csv`; the format is described at `subo.load_data`.

    Args:
        path: The file.
        later: Whether a model is fitted already, so that the columns keep its resolution.
        known: Names of its classes.

    Raises:
        InputError: The file can't be read or holds something else; gives the row and column.
    """
    values, labels = numbers("d"), list[int | str]()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = _header(next((cells for cells in lines if cells), []), path)
            at = header.index(_LABEL) if _LABEL in header else None
            rows = 0
            for cells in lines:
                if not cells:  # a blank line, usually the last
                    continue
                rows += 1
                place = f"row {rows} (line {lines.line_num})"
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}, {place}: {len(cells)} cells under a header of "
                        f"{len(header)}; usually a comma is missing, is part of text, or is a decimal mark"
                    )
                if at is not None:
                    labels.append(_label(name_in(cells.pop(at).strip()), known, rows, path))
                try:
                    values.extend(_parsed(cells))
                except ValueError:
                    _refuse_text(cells, [name for name in header if name != _LABEL], place, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as comma-separated text in UTF-8 ({error}): write it again") from error
    if rows == 0:
        raise InputError(f"{path} is empty: it has a header and no rows")
    names = tuple(name for name in header if name != _LABEL)
    table = np.array(values).reshape(rows, len(names))
    with np.errstate(over="ignore"):
        x = torch.from_numpy(table.astype(np.float32))
    check_values(x, where=str(path), names=names)
    if not later:
        check_resolution(torch.from_numpy(table), where=str(path), names=names)
    if at is None:
        return Contents((Split(x),), names)
    _check_whole(labels, path)
    classes, labels_read = numbered(labels)
    return Contents((Split(x, labels=labels_read),), names, classes)


def _header(cells: list[str], path: Path) -> tuple[str, ...]:
    """Checks a header, since data in its place would silently be lost."""
    header = tuple(name_in(name.strip()) for name in cells)
    if not header:
        raise InputError(f"{path} is empty: expected a header with a name per column, and rows of numbers")
    if "" in header:
        raise InputError(
            f"{path}: column {header.index('') + 1} has no name in the header; pandas writes its index this way: "
            "use to_csv(..., index=False), or name the column"
        )
    if all(_is_number(name) for name in header) and header != tuple(map(str, range(len(header)))):
        raise InputError(f"{path}: the first line holds numbers; expected a header with a name per column: add one")
    if len(set(header)) < len(header):
        raise InputError(f"{path}: two columns have the same name; the header is {', '.join(header)}")
    if header == (_LABEL,):
        raise InputError(f"{path}: there is no column of data beside 'label'")
    other = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        what = "semicolons" if other == ";" else "tabs"
        raise InputError(f"{path}: cells are separated by {what}, but commas are expected: write it with commas")
    return header


def _parsed(cells: Sequence[str]) -> list[float]:
    """Numbers as every program writes them: Python's own 1_000 and digits of other scripts are text."""
    together = "".join(cells)
    if not together.isascii() or "_" in together:
        raise ValueError
    return [float(cell) for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        _parsed([cell])
    except ValueError:
        return False
    return True


def _label(cell: str, known: Sequence[str], row: int, path: Path) -> int | str:
    """The class that a cell names: a known one, a whole number, or the text as written."""
    if cell in known:
        return cell
    if cell == "" or (_is_number(cell) and math.isnan(float(cell))):
        raise InputError(f"{path}, row {row}, column 'label': the label is missing: drop the row, or name its class")
    return as_class(cell) if _is_number(cell) else cell


def _check_whole(labels: Sequence[int | str], path: Path) -> None:
    """Refuses numbers that cannot be classes; next to names they count as names."""
    parts = (i for i, label in enumerate(labels) if isinstance(label, str) and isinstance(as_class(label), str))
    part = next(parts, None)
    if part is not None and all(isinstance(label, int) or _is_number(label) for label in labels):
        raise InputError(
            f"{path}, row {part + 1}, column 'label': labels must be integers or names, got {labels[part]}"
        )


def _refuse_text(cells: Sequence[str], header: Sequence[str], place: str, path: Path) -> NoReturn:
    name, cell = next((name, cell) for name, cell in zip(header, cells, strict=True) if not _is_number(cell))
    found = f"{cell!r} isn't a number" if cell.strip() else "the cell is empty"
    raise InputError(
        f"{path}, column {name!r}, {place}: {found}; all cells but labels must be numbers: encode or drop columns of "
        "text, fill or drop what is missing"
    )
