"""The commands on counts with sizes and a batch, from a file of anndata."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotated import counts, write
from command_line import assert_refused, run
from subo.runs.run import Run

pytestmark = pytest.mark.slow

FIT = ["--likelihood", "negative-binomial", "--hidden", "16", "--latent-dim", 1, "--evaluation-samples", 20]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("cells")
    x, obs = counts(300)
    write(folder / "cells.h5ad", x, obs)
    given = ["--size-factor", "observed", "--condition", "batch", "--epochs", 60, "--learning-rate", 0.02]
    assert run("fit", folder / "cells.h5ad", *FIT, *given, "--out", folder / "run", "--quiet") == 0
    return folder / "run", folder / "cells.h5ad"


def test_the_run_says_what_is_given_and_keeps_the_unit(fitted: tuple[Path, Path], capsys: pytest.CaptureFixture):
    run_dir, _ = fitted
    config = Run(run_dir).read_config()
    assert config.log_px == "log p(x|c,s)"
    assert config.options["size_factor"] == "observed"
    assert config.data.meaning.sizes is not None
    assert config.data.meaning.sizes.unit == pytest.approx(counts(300)[0].sum(1).mean(), rel=0.1)
    assert json.loads((run_dir / "evaluation.json").read_text())["log_px_is"].endswith("given batch, the row's total s")
    assert run("show", run_dir) == 0
    assert "log p(x|c,s)" in capsys.readouterr().out
    assert run("fit", "--resume", "--size-factor", "observed", "--out", run_dir, "--epochs", 60, "--quiet") == 0


def test_samples_have_the_size_and_the_batch_that_are_given(fitted: tuple[Path, Path], tmp_path: Path):
    run_dir, _ = fitted
    out, totals = tmp_path / "s.csv", counts(300)[0].sum(1)
    for size, batch in ((20, "a"), (200, "b")):
        assert run("sample", run_dir, "--given", f"batch={batch}", "--size", size, "-n", 300, "--out", out) == 0
        table = pd.read_csv(out)
        assert list(table.columns) == [f"gene{i}" for i in range(5)]
        assert (table.dtypes == np.int64).all()  # 2, not 2.0
        assert table.sum(axis=1).mean() == pytest.approx(size, rel=0.2)
        assert (table.gene0.mean() / size < 0.03) == (batch == "a")  # of genes, it is expressed in b alone
    assert run("sample", run_dir, "--given", "batch=a", "-n", 1000, "--out", out) == 0
    drawn = pd.read_csv(out).sum(axis=1)
    assert drawn.mean() == pytest.approx(totals.mean(), rel=0.2)
    assert drawn.std() == pytest.approx(totals.std(), rel=0.3)


def test_every_command_takes_the_file(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir, data = fitted
    out = tmp_path / "out.csv"
    assert run("score", run_dir, data, "--out", out, "--num-samples", 20) == 0
    assert "300 values of log p(x|c,s) written" in capsys.readouterr().out
    assert list(pd.read_csv(out).name[:2]) == ["cell0", "cell1"]
    assert run("encode", run_dir, data, "--out", out) == 0
    assert run("reconstruct", run_dir, data, "--out", out) == 0
    means, x = pd.read_csv(out)[[f"gene{i}" for i in range(5)]].to_numpy(), counts(300)[0]
    assert np.corrcoef(means.sum(1), x.sum(1))[0, 1] > 0.95  # a row's mean has its size
    assert run("evaluate", run_dir, "--num-samples", 20) == 0
    assert "log p(x|c,s)" in capsys.readouterr().out


def test_columns_beside_the_counts_color_a_map(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    for column in ("batch", "depth", "label"):
        assert run("encode", run_dir, data, "--out", tmp_path / f"{column}.png", "--color", column) == 0
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 3
    said = assert_refused(capsys, "encode", run_dir, data, "--out", tmp_path / "a.png", "--color", "town")
    assert "there is no column 'town' to color by; there are batch, depth, label" in said
    np.savez(tmp_path / "x.npz", x=counts(300)[0])
    short = [*FIT, "--epochs", 1, "--out", tmp_path / "run", "--quiet"]
    assert run("fit", tmp_path / "x.npz", *short) == 0
    out = ["--out", tmp_path / "a.png", "--color", "batch"]
    assert "x.npz has none" in assert_refused(capsys, "encode", tmp_path / "run", tmp_path / "x.npz", *out)
    pd.DataFrame(counts(60)[0] + np.linspace(0, 0.9, 60)[:, None]).to_csv(tmp_path / "t.csv", index=False)
    short = ["--hidden", 4, "--epochs", 1, "--out", tmp_path / "table", "--quiet"]
    assert run("fit", tmp_path / "t.csv", *short) == 0
    said = assert_refused(capsys, "impute", tmp_path / "table", data, "--out", tmp_path / "filled.csv")
    assert "is not a table" in said


def test_a_batch_that_was_never_seen_is_named(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    x, obs = counts(20)
    obs.loc[:2, "batch"] = "c"
    write(tmp_path / "later.h5ad", x, obs)
    scored = ["--out", tmp_path / "s.csv", "--num-samples", 20]
    assert run("score", fitted[0], tmp_path / "later.h5ad", *scored) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "column 'batch': 3 cells hold what the fit has never seen ('c')" in said


def test_a_column_of_a_table_is_the_size(tmp_path: Path, capsys: pytest.CaptureFixture):
    rng, rows = np.random.default_rng(0), 120
    hours = rng.gamma(3, 10, rows).round(1) + 1
    table = pd.DataFrame({"claims": rng.poisson(2 * hours), "hours": hours, "age": rng.normal(40, 9, rows).round(1)})
    table.to_csv(tmp_path / "claims.csv", index=False)
    short = ["--hidden", "4", "--latent-dim", 1, "--epochs", 30, "--learning-rate", 0.05, "--evaluation-samples", 20]
    sized = ["--size-factor", "hours", "--out", tmp_path / "run"]
    assert run("fit", tmp_path / "claims.csv", *short, *sized) == 0
    said = capsys.readouterr().out
    assert "the size of a row" in said
    assert "log p(x|s)" in said
    for size in (5, 50):
        assert run("sample", tmp_path / "run", "--size", size, "-n", 200, "--out", tmp_path / "s.csv") == 0
        drawn = pd.read_csv(tmp_path / "s.csv")
        assert list(drawn.columns) == ["claims", "age"]
        assert drawn.claims.mean() == pytest.approx(2 * size, rel=0.4)
    table.drop(columns="hours").to_csv(tmp_path / "less.csv", index=False)
    message = assert_refused(capsys, "score", tmp_path / "run", tmp_path / "less.csv", "--out", tmp_path / "o.csv")
    assert "'hours' of the fit is missing" in message
    numbers = ["--likelihood", "poisson", *short, "--size-factor", "hours", "--out", tmp_path / "numbers"]
    table[["claims", "hours"]].to_csv(tmp_path / "numbers.csv", index=False)
    assert run("fit", tmp_path / "numbers.csv", *numbers, "--quiet") == 0
    assert Run(tmp_path / "numbers").read_config().data.event_shape == (1,)
    colored = ["--out", tmp_path / "plane.png", "--color", "hours"]
    assert run("encode", tmp_path / "numbers", tmp_path / "numbers.csv", *colored) == 0


def test_what_makes_no_sense_is_refused(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir, data = fitted
    out = ["--out", tmp_path / "run"]
    table = tmp_path / "t.csv"
    pd.DataFrame({"city": ["a", "b", "c", "d"] * 9, "n": range(36)}).to_csv(table, index=False)
    for argv, facts in (
        (["fit", data, "--size-factor", "observed", *out], ["--size-factor", "means of counts"]),
        (["fit", data, *FIT, "--size-factor", "nothing", *out], ["'nothing' of obs", "batch, depth, label"]),
        (["fit", data, *FIT, "--condition", "nothing", *out], ["--condition", "'nothing' of obs"]),
        (["fit", table, "--size-factor", "observed", *out], ["no column 'observed'", "name a column"]),
        (["fit", "digits", "--size-factor", "n", *out], ["has no columns"]),
        (["sample", run_dir, "--given", "batch=c", "--out", tmp_path / "s.csv"], ["batch cannot be 'c'"]),
        (["sample", run_dir, "--given", "batch=a", "--size", 0, "--out", tmp_path / "s.csv"], ["--size", "positive"]),
    ):
        message = assert_refused(capsys, *argv)
        assert all(fact in message for fact in facts), message
    assert not (tmp_path / "run").exists()
