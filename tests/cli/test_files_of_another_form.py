"""A later file in another form than that of the fit: words for missing cells, separators, decimal marks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import assert_refused, run

pytestmark = pytest.mark.slow


def measured(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    weight = rng.normal(70, 9, rows).round(1)
    return pd.DataFrame({"weight": weight, "height": (weight + rng.normal(100, 5, rows)).round(1)})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    measured().to_csv(folder / "t.csv", index=False)
    few = ["--epochs", 3, "--hidden", "16", "--evaluation-samples", 50, "--quiet"]
    assert run("fit", folder / "t.csv", "--out", folder / "run", *few) == 0
    return folder / "run"


def test_words_for_missing_cells_are_named_when_they_are_met(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    frame = measured(20).astype(object)
    gone = frame.copy()
    frame.loc[[3, 7], "weight"], gone.loc[[3, 7], "weight"] = "N/K", None
    frame.to_csv(tmp_path / "new.csv", index=False)
    gone.to_csv(tmp_path / "gone.csv", index=False)
    message = assert_refused(capsys, "score", fitted, tmp_path / "new.csv", "--out", tmp_path / "s.csv")
    assert "column 'weight', row 4: 'N/K' is not a number" in message
    assert "--missing=N/K" in message
    assert not (tmp_path / "s.csv").exists()
    assert run("score", fitted, tmp_path / "new.csv", "--missing=N/K", "--out", tmp_path / "s.csv") == 0
    assert run("score", fitted, tmp_path / "gone.csv", "--out", tmp_path / "g.csv") == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "s.csv"), pd.read_csv(tmp_path / "g.csv"))
    assert run("impute", fitted, tmp_path / "new.csv", "--missing=N/K", "--out", tmp_path / "i.csv") == 0
    filled = pd.read_csv(tmp_path / "i.csv")
    assert filled.loc[[3, 7], "weight"].between(30, 110).all()
    pd.testing.assert_frame_equal(filled.drop([3, 7]), measured(20).drop([3, 7]))


def test_separators_and_decimal_marks_are_those_of_the_file(fitted: Path, tmp_path: Path):
    measured(20).to_csv(tmp_path / "plain.csv", index=False)
    measured(20).to_csv(tmp_path / "other.csv", index=False, sep="%", decimal=",")
    for name, form in (("plain", ()), ("other", ("--separator", "%", "--decimal", ","))):
        assert run("encode", fitted, tmp_path / f"{name}.csv", *form, "--out", tmp_path / f"{name}.npy") == 0
    assert (np.load(tmp_path / "plain.npy") == np.load(tmp_path / "other.npy")).all()


def test_data_that_are_no_table_have_no_such_words(tmp_path: Path, capsys: pytest.CaptureFixture):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    few = ["--epochs", 1, "--hidden", "8", "--evaluation-samples", 10, "--quiet"]
    assert run("fit", tmp_path / "x.npy", "--out", tmp_path / "run", *few) == 0
    options = ["--missing=?", "--out", tmp_path / "z.npy"]
    assert "--missing says how a table" in assert_refused(
        capsys, "encode", tmp_path / "run", tmp_path / "x.npy", *options
    )
