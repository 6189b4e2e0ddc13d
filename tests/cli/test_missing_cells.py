"""The commands where cells are missing not at random."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import assert_refused, run
from shapes import unchecked_shapes

pytestmark = pytest.mark.slow

FIT = ["--hidden", "16", "--latent-dim", 2, "--evaluation-samples", 50, "--quiet"]


def hiding(rows: int = 400) -> pd.DataFrame:
    """Two columns of one factor; the second is missing where it is above its mean, in nine of ten rows."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=rows)
    high = factor + 0.5 * rng.normal(size=rows)
    frame = pd.DataFrame({"low": (factor + 0.5 * rng.normal(size=rows)).round(3), "high": high.round(3)})
    frame.loc[(high > 0) & (rng.random(rows) < 0.9), "high"] = None
    return frame


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hiding")
    hiding().to_csv(folder / "t.csv", index=False)
    own = ["--missing-model", "self", "--epochs", 60, "--learning-rate", 0.01]
    with unchecked_shapes():
        assert run("fit", folder / "t.csv", "--out", folder / "own", *FIT, *own) == 0
        assert run("fit", folder / "t.csv", "--out", folder / "random", *FIT, "--epochs", 30) == 0
    return folder


def test_imputed_and_sampled_cells_lie_where_they_hide(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    gone = hiding()["high"].isna()
    above = {}
    for name in ("own", "random"):
        assert run("impute", fitted / name, fitted / "t.csv", "--draws", 1, "--out", tmp_path / "i.csv") == 0
        above[name] = (pd.read_csv(tmp_path / "i.csv")["high"][gone] > 0).mean()
    assert above["own"] > 0.6 > 0.5 > above["random"]
    assert run("sample", fitted / "own", "-n", 2000, "--missing", "--out", tmp_path / "s.csv") == 0
    samples = pd.read_csv(tmp_path / "s.csv")["high"]
    assert samples.isna().mean() == pytest.approx(gone.mean(), abs=0.08)
    assert (samples.dropna() > 0).mean() < 0.3
    assert run("score", fitted / "own", fitted / "t.csv", "--out", tmp_path / "c.csv") == 0
    assert "values of log p(x, mask)" in capsys.readouterr().out


def test_draws_may_come_from_refits(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "r.csv"
    data = hiding().head(50)
    data.to_csv(tmp_path / "few.csv", index=False)
    few = [fitted / "random", tmp_path / "few.csv"]
    before = (fitted / "random" / "model.safetensors").read_bytes()
    assert run("impute", *few, "--draws", 4, "--refits", 2, "--num-samples", 50, "--out", out) == 0
    assert "rows filled by 2 refits" in capsys.readouterr().out
    filled = pd.read_csv(out)
    assert filled["draw"].value_counts().to_dict() == {1: 50, 2: 50, 3: 50, 4: 50}
    assert not filled.isna().any().any()
    assert (fitted / "random" / "model.safetensors").read_bytes() == before
    message = assert_refused(capsys, "impute", *few, "--refits", 2, "--out", out)
    assert "--draws must be a multiple of 2" in message


def test_it_is_not_compared_with_a_model_of_the_cells_alone(fitted: Path, capsys: pytest.CaptureFixture):
    message = assert_refused(capsys, "compare", fitted / "own", fitted / "random")
    assert "one of them also describes which cells are missing" in message
