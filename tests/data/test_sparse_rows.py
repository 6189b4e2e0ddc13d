"""Sparse rows give what dense ones do, and are never made dense all at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.testing import assert_close

import subo
from assertions import assert_refused
from subo.data import Data
from subo.data.loading import load_data, load_rows
from subo.data.sparse_rows import SparseRows
from subo.data.splits import as_split
from subo.data.spread import far_rows
from subo.data.stored_rows import chunks
from subo.data.values import constant_elements, kind_of, num_classes_of
from subo.recipes.for_data import make

DENSE = np.random.default_rng(0).poisson(0.3, (40, 6)).astype(np.float32)
DENSE[:, 2] = 0
COUNTS: dict[str, Any] = {"likelihood": "negative-binomial", "latent_dim": 2, "hidden": (8,)}


@pytest.mark.parametrize("make_sparse", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_they_are_read_taken_and_described_as_dense_ones(make_sparse):
    x, rows = torch.from_numpy(DENSE), as_split(make_sparse(DENSE))
    index = torch.tensor([3, 0, 3, 39])
    assert isinstance(rows.x, SparseRows)
    assert (len(rows), rows.event_shape, rows.x.dtype) == (40, torch.Size([6]), torch.float32)
    assert_close(rows.read(index)[0], x[index])
    assert_close(rows.take(index).read(torch.arange(4))[0], x[index])
    assert_close(rows.x[..., [5, 1]].index_select(0, index), x[index][:, [5, 1]])
    assert_close(torch.cat([*chunks(rows.x)]), x)
    assert_close(rows.x.sums(), x.double().sum(1))
    assert kind_of(rows.x) == kind_of(x) == "whole"
    assert kind_of(SparseRows(sparse.csr_array(DENSE > 0))) == "binary"
    assert_close(constant_elements(rows.x), constant_elements(x))
    assert num_classes_of([rows.x]) == num_classes_of([x])


def test_a_far_value_is_found():
    x = DENSE.copy()
    x[7, 3] = 1e7
    assert far_rows(SparseRows(sparse.csr_array(x))).nonzero().flatten().tolist() == [7]
    assert not far_rows(SparseRows(sparse.csr_array(DENSE))).any()


def test_a_model_of_them_is_that_of_dense_ones():
    models = []
    for x in (torch.from_numpy(DENSE), sparse.csr_array(DENSE)):
        objective = make("vae", x, **COUNTS)
        subo.fit(objective, x, epochs=2, batch_size=16)
        models.append(objective.model)
    dense, kept = (
        subo.evaluate(model, as_split(x), num_samples=5) for model, x in zip(models, (DENSE, DENSE), strict=True)
    )
    assert dense.log_px == kept.log_px
    assert subo.evaluate(models[0], sparse.csr_array(DENSE), num_samples=5).log_px == dense.log_px


def test_fit_and_evaluate_never_make_the_matrix_dense(monkeypatch: pytest.MonkeyPatch):
    """Of 12,000 rows, never more than 4,000 become dense together, by SciPy's methods and ours."""
    rng, size = np.random.default_rng(0), (12_000, 1_000)
    rows, columns = rng.integers(0, size[0], 30_000), rng.integers(0, size[1], 30_000)
    matrix = sparse.coo_matrix((np.ones(30_000, np.float32), (rows, columns)), shape=size).tocsr()
    largest, read = 0, SparseRows.index_select

    def watched(self, dim, index):
        nonlocal largest
        largest = max(largest, len(index))
        return read(self, dim, index)

    monkeypatch.setattr(SparseRows, "index_select", watched)
    for method in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_matrix, method, _only_few(getattr(sparse.csr_matrix, method)))
    split = as_split(matrix)
    index = torch.arange(len(split))
    data = Data("cells", *(split.take(part) for part in index.split([11_000, 500, 500])), kind="whole")
    objective = make("vae", data, likelihood="poisson", latent_dim=2, hidden=(2,))
    subo.fit(objective, data, epochs=1, batch_size=1000)
    subo.evaluate(objective.model, data.test, num_samples=2)
    assert 0 < largest <= 4000
    assert len(data.fingerprint) == 16


def _only_few(method):
    def checked(self, *args, **kwargs):
        assert self.shape[0] <= 4000
        return method(self, *args, **kwargs)

    return checked


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_a_file_of_a_sparse_matrix_is_read(tmp_path: Path, kind: str):
    path = tmp_path / "counts.npz"
    sparse.save_npz(path, sparse.csr_array(DENSE).asformat(kind))
    data = load_data(path, size_factor="observed") if DENSE.sum(1).min() > 0 else load_data(path)
    assert isinstance(data.train.x, SparseRows)
    assert (data.kind, len(data.train)) == ("whole", 32)
    again = load_rows(path, meaning=data.meaning)
    assert_close(again.read(torch.arange(40))[0], torch.from_numpy(DENSE))
    joined = load_rows(path, part="train", meaning=data.meaning)
    assert_close(joined.read(torch.arange(32))[0], data.train.read(torch.arange(32))[0])


def test_a_damaged_file_and_missing_numbers_are_refused(tmp_path: Path):
    path = tmp_path / "counts.npz"
    np.savez(path, format="csr", shape=[3, 2], data=[1.0], indices=[7], indptr=[0, 1, 1, 1])
    with assert_refused("not a whole sparse matrix", "save_npz"):
        load_data(path)
    np.savez(path, format="dia", shape=[3, 2], data=[1.0], offsets=[0])
    with assert_refused("csr, csc or coo"):
        load_data(path)
    broken = DENSE.copy()
    broken[4, 1] = np.nan
    sparse.save_npz(path, sparse.csr_array(broken))
    with assert_refused("must be finite", "row 5"):
        load_data(path)
