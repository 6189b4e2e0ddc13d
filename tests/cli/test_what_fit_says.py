"""What fit and later commands say of a table's cells, and how often a word stands for one thing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import assert_refused, run

SMALL = ["--hidden", "16", "--epochs", "2", "--latent-dim", "1", "--evaluation-samples", "10"]


def said_in(capsys: pytest.CaptureFixture) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_fit_and_score_say_what_cells_may_mean(tmp_path: Path, capsys: pytest.CaptureFixture):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60).round(2), "t": ["u", "NULL", "w"] * 20, "label": ["p", "q"] * 30})
    data, out = tmp_path / "t.csv", tmp_path / "run"
    frame.to_csv(data, index=False)
    assert run("fit", data, "--out", out, *SMALL) == 0
    said = said_in(capsys)
    assert "column 't' has 'NULL' in 20 cells as a level of its own; if it stands for a missing cell, name it: " in said
    assert "name it: --missing=NULL" in said
    assert "column 'label' holds classes (2 different) and is not modeled; --columns label=category models it" in said
    assert ", 1 latent (prior" in said
    frame[:1].assign(a=None).to_csv(tmp_path / "new.csv", index=False)
    assert run("score", out, tmp_path / "new.csv", "--num-samples", "10", "--out", tmp_path / "s.csv") == 0
    said = said_in(capsys)
    assert "no cell of column 'a' is observed, of which the fit had cells" in said
    assert "1 value of log p(x) written" in said
    assert "holds classes" not in said
    assert run("encode", out, tmp_path / "new.csv", "--out", tmp_path / "z.csv") == 0
    assert "1 posterior mean of 1 latent written" in said_in(capsys)


def test_how_many_rows_are_needed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    pd.DataFrame({"a": np.random.default_rng(0).normal(size=19)}).to_csv(tmp_path / "t.csv", index=False)
    said = assert_refused(capsys, "fit", tmp_path / "t.csv", "--out", tmp_path / "run")
    assert "leaves only 1 example to test on, but a standard error needs two: provide at least 20 examples" in said
