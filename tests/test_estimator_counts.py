"""The estimator on counts: sparse matrices, and sizes."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.testing import assert_close

from assertions import assert_refused
from subo import VariationalAutoencoder
from subo.data.sparse_rows import SparseRows
from subo.evaluation.scores import score

QUICK: dict[str, Any] = {
    "likelihood": "negative-binomial",
    "size_factor": "observed",
    "latent_dim": 1,
    "hidden": (8,),
    "epochs": 5,
    "evaluation_samples": 50,
    "random_state": 0,
}
RNG = np.random.default_rng(0)
SIZE = RNG.gamma(3, 1, 200) + 0.3
X = RNG.poisson(SIZE[:, None] * np.array([1.0, 5.0, 20.0])).astype(float) + np.array([0.0, 0.0, 1.0])


def test_a_sparse_matrix_gives_what_a_dense_one_does_and_stays_sparse(monkeypatch: pytest.MonkeyPatch):
    dense = VariationalAutoencoder(**QUICK).fit(X)
    read: list[int] = []
    select = SparseRows.index_select
    monkeypatch.setattr(SparseRows, "index_select", lambda *args: read.append(len(args[2])) or select(*args))
    kept = VariationalAutoencoder(**QUICK).fit(sparse.csr_matrix(X))
    assert read
    for method in ("score_samples", "transform", "p_values", "predict"):
        assert_close(
            getattr(kept, method)(sparse.csr_array(X[:9])), getattr(dense, method)(X[:9]), rtol=1e-4, atol=1e-4
        )


def test_the_size_of_a_row_is_its_total_in_the_unit_of_the_fit():
    model = VariationalAutoencoder(**QUICK).fit(X)
    assert model.size_factor_ is not None
    assert model.size_factor_.unit == pytest.approx(X.sum(1).mean(), rel=0.1)
    rows = torch.from_numpy(X[:7]).float()
    sizes = {"size": rows.sum(1) / model.size_factor_.unit}
    known = score(model.model_, (rows, sizes), num_samples=20_000, pareto=False)
    ours = torch.from_numpy(model.set_params(evaluation_samples=20_000).score_samples(X[:7]))
    assert ((ours - known.log_px.double()).abs() < 5 * 2**0.5 * known.standard_error.double()).all()
    mean = model.inverse_transform(np.zeros((1, 1)))
    assert mean.sum() == pytest.approx(model.size_factor_.unit, rel=0.5)
    drawn = model.sample(2000, random_state=0).sum(1)
    assert drawn.std() > 0.7 * X.sum(1).std()  # the sizes vary as those of the data


def test_sizes_that_make_no_sense_are_refused():
    with assert_refused("means of counts"):
        VariationalAutoencoder(**{**QUICK, "likelihood": "gaussian"}).fit(X)
    with assert_refused("a total of columns of several kinds means nothing"):
        VariationalAutoencoder(**{**QUICK, "likelihood": "columns"}).fit(X)
    with assert_refused("its total is 0"):
        VariationalAutoencoder(**QUICK).fit(np.vstack([X, np.zeros((1, 3))]))
    broken = X.copy()
    broken[3, 1] = np.nan
    with assert_refused("are missing"):
        VariationalAutoencoder(**QUICK).fit(sparse.csr_matrix(broken))
