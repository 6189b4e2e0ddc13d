"""Files of data that tests write, and the real ones that they look for."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from subo.data.splits import Split

SUBO_DATA = Path(os.environ.get("SUBO_DATA") or "nowhere")


def needs(name):
    return pytest.mark.skipif(
        not (SUBO_DATA / name).is_dir(), reason=f"the folder {name} isn't in $SUBO_DATA, or that isn't set"
    )


def labels_of(part: Split) -> Tensor:
    assert part.labels is not None
    return part.labels


def rows_sorted(*parts: Split) -> list:
    return sorted(row for part in parts for row in part.x.flatten(1).tolist())


def saved(path, array):
    np.save(path, array)
    return path


def zipped(path, **arrays: Any):
    np.savez(path, **arrays)
    return path


def text(path, content):
    path.write_text(content, encoding="utf-8")
    return path
