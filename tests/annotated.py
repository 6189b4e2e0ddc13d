"""Counts of genes in cells as files of anndata."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse


def counts(rows: int = 60, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Counts that grow with the size of a cell, those of the first gene only in the batch b; none is empty."""
    rng = np.random.default_rng(seed)
    size, batch = rng.gamma(4, 0.5, rows) + 0.3, rng.choice(["a", "b"], rows)
    mean = size[:, None] * np.array([3.0, 8.0, 0.5, 2.0, 20.0])
    mean[:, 0] *= batch == "b"
    x = rng.poisson(mean).astype(np.float32)
    x[:, 4] += 1
    obs = pd.DataFrame({"batch": batch, "depth": 100 * size, "label": rng.choice(["T", "B"], rows)})
    return x, obs


def write(
    path: Path,
    x: Any,
    obs: pd.DataFrame,
    *,
    layers: dict[str, Any] | None = None,
    genes: Sequence[str] | None = None,
) -> None:
    """Writes them sparse, with names of genes and cells."""
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.set_option("future.infer_string", False)  # anndata writes no other text
        names = [
            pd.Index([f"{word}{i}" for i in range(n)], dtype=object)
            for word, n in zip(("cell", "gene"), x.shape, strict=True)
        ]
        names[1] = names[1] if genes is None else pd.Index(genes, dtype=object)
        plain = {name: list(cells) for name, cells in obs.items()}
        held = anndata.AnnData(
            sparse.csr_matrix(x), obs=pd.DataFrame(plain, index=names[0]), var=pd.DataFrame(index=names[1])
        )
        for name, layer in (layers or {}).items():
            held.layers[name] = sparse.csr_matrix(layer)
        held.write_h5ad(path)
        pd.set_option("future.infer_string", True)
