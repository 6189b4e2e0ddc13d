"""Files of anndata: counts, names, and columns of obs as condition, size and classes."""

import builtins
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from annotated import counts, write
from assertions import assert_refused
from subo.data.loading import load_data, load_rows
from subo.data.sparse_rows import SparseRows
from subo.data.tables.options import TableOptions

X, OBS = counts()


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    write(path, X, OBS)
    return path


def test_rows_names_and_classes_are_read_and_rows_stay_sparse(cells: Path):
    said: list[str] = []
    data = load_data(cells, note=said.append)
    assert said == ["rows are X"]
    assert isinstance(data.train.x, SparseRows)
    assert data.feature_names == tuple(f"gene{i}" for i in range(5))
    assert data.class_names == ("B", "T")
    rows = load_rows(cells, meaning=data.meaning)
    assert_close(rows.read(torch.arange(60))[0], torch.from_numpy(X))
    assert rows.names is not None
    assert rows.names[:2] == ("cell0", "cell1")
    assert rows.label_names() == list(OBS.label)


def test_columns_of_obs_are_the_condition_and_the_size(cells: Path):
    options = TableOptions(condition=("batch",))
    data = load_data(cells, table=options, size_factor="depth")
    meaning = data.meaning
    assert meaning.given is not None
    assert meaning.given.described == ("boolean 2",) or meaning.given.described == ("category 2",)
    assert meaning.sizes is not None
    assert meaning.sizes.source == "depth"
    assert_close(data.train.context["size"].mean(), torch.tensor(1.0))
    rows = load_rows(cells, meaning=meaning)
    assert_close(rows.context["given"][:, 0], torch.tensor((OBS.batch == "b").to_numpy()).float())
    assert_close(rows.context["size"], torch.tensor(OBS.depth.to_numpy() / meaning.sizes.unit).float())
    assert meaning.given.modeled[0].levels == ("a", "b")


def test_the_observed_size_of_later_rows_is_in_the_unit_of_the_fit(cells: Path, tmp_path: Path):
    data = load_data(cells, size_factor="observed")
    assert data.meaning.sizes is not None
    total = torch.from_numpy(X).double().sum(1)
    unit = data.train.read(torch.arange(48))[0].double().sum(1).mean()
    assert data.meaning.sizes.unit == pytest.approx(unit.item())
    write(tmp_path / "later.h5ad", 2 * X[:7], OBS[:7])
    later = load_rows(tmp_path / "later.h5ad", meaning=data.meaning)
    assert_close(later.context["size"], (2 * total[:7] / unit).float())


def test_a_layer_of_counts_is_read_where_x_is_not_whole(tmp_path: Path):
    said: list[str] = []
    write(tmp_path / "logs.h5ad", np.log1p(X), OBS, layers={"counts": X})
    data = load_data(tmp_path / "logs.h5ad", note=said.append)
    assert data.kind == "whole"
    assert said == ["rows are layers['counts'], since X is not whole numbers"]
    write(tmp_path / "logs.h5ad", np.log1p(X), OBS)
    assert load_data(tmp_path / "logs.h5ad", note=said.append).kind == "real"
    assert "there is no layer" in said[-1]


def test_two_genes_of_one_name_are_refused(tmp_path: Path):
    write(tmp_path / "twice.h5ad", X, OBS, genes=["a", "b", "c", "b", "a"])
    with warnings.catch_warnings(), assert_refused("var_names has 'b' more than once", "adata.var_names_make_unique()"):
        warnings.simplefilter("error")
        load_data(tmp_path / "twice.h5ad")


def test_what_is_not_there_is_named(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with assert_refused("`condition`", "'site'", "batch, depth, label"):
        load_data(cells, table=TableOptions(condition="site"))
    with assert_refused("`size_factor`", "'n'", "batch, depth, label"):
        load_data(cells, size_factor="n")
    with assert_refused("the size of a row must be above 0", "its batch"):
        load_data(cells, size_factor="batch")
    empty = X.copy()
    empty[3] = 0
    write(tmp_path / "empty.h5ad", empty, OBS)
    with assert_refused("must be above 0", "its total is 0"):
        load_data(tmp_path / "empty.h5ad", size_factor="observed")
    meaning = load_data(cells, table=TableOptions(condition="batch")).meaning
    with assert_refused("conditioned on 'batch'", "only .h5ad"):
        np.save(tmp_path / "x.npy", X)
        load_rows(tmp_path / "x.npy", meaning=meaning)
    write(tmp_path / "less.h5ad", X, OBS[["label"]])
    with assert_refused("'batch' of obs", "label"):
        load_rows(tmp_path / "less.h5ad", meaning=meaning)
    (tmp_path / "bad.h5ad").write_bytes(b"no such file")
    with assert_refused("can't be read"):
        load_data(tmp_path / "bad.h5ad")
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "anndata":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with assert_refused("pip install 'subo[anndata]'"):
        load_data(cells)
