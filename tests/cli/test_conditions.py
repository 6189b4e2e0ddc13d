"""The commands on a model of a table that is conditioned on some of its columns."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from command_line import assert_refused, run
from shapes import unchecked_shapes
from subo.evaluation.gaps import Gaps, gaps
from subo.experiments.experiment import open_run
from subo.inference.ascent import Ascent
from subo.runs.run import Run

pytestmark = pytest.mark.slow

FIT = ["--hidden", "16", "--latent-dim", 1, "--epochs", 60, "--learning-rate", 0.02, "--evaluation-samples", 50]
SHORT = ["--hidden", "4", "--latent-dim", 1, "--epochs", 1, "--evaluation-samples", 20]
CONDITION = ["--condition", 'sort,"ripe, days"']


def fruit(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """The color is decided by the sort, and the weight nearly by the days."""
    rng = np.random.default_rng(seed)
    sort, days = rng.choice(["lemon", "plum", "kiwi"], rows), rng.normal(20, 5, rows).round(1)
    frame = pd.DataFrame(
        {
            "color": [{"lemon": "yellow", "plum": "blue", "kiwi": "green"}[name] for name in sort],
            "sort": sort,
            "weight": (10 * days + rng.normal(0, 2, rows)).round(2),
            "ripe, days": days,
            "label": rng.choice(["a", "b"], rows),
        }
    )
    for name in ("weight", "sort"):
        frame.loc[rng.random(rows) < 0.1, name] = None
    return frame


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("fruit")
    data = folder / "fruit.csv"
    fruit().to_csv(data, index=False)
    with unchecked_shapes():
        assert run("fit", data, *CONDITION, "--out", folder / "run", *FIT, "--quiet") == 0
    return folder / "run", data


def test_fit_says_what_is_the_condition_and_what_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = tmp_path / "fruit.csv"
    fruit().to_csv(data, index=False)
    assert run("fit", data, *CONDITION, "--out", tmp_path / "run", *SHORT) == 0
    said = capsys.readouterr().out
    lines = {line.split("  ")[1].strip(): line for line in said.splitlines() if line.startswith("  ")}
    assert "the condition" in lines["sort"]
    assert "the condition" in lines["ripe, days"]
    assert "the condition" not in lines["color"]
    assert "log p(x|c)" in said
    assert "in the data's units, given sort, ripe, days" in said
    baseline = json.loads((tmp_path / "run" / "evaluation.json").read_text())["baseline"]
    assert baseline["name"].startswith("one Gaussian for numbers around a linear regression on the condition")
    assert -4 < baseline["log_px"] < -2.8  # log 1/3 of the color, and -2.1 of a normal of deviation 2 in 9 of 10 rows
    config = Run(tmp_path / "run").read_config()
    assert config.options["condition"] == ("sort", "ripe, days")
    assert config.data.event_shape == (2,)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["log_px_is"].endswith(
        "given sort, ripe, days"
    )
    assert run("fit", "--resume", *CONDITION, "--out", tmp_path / "run", "--epochs", 2, "--quiet") == 0
    assert run("show", tmp_path / "run") == 0


def test_samples_follow_what_is_given(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir, _ = fitted
    out = tmp_path / "s.csv"
    for sort, color, days in (("plum", "blue", 12.25), ("lemon", "yellow", 28)):
        assert run("sample", run_dir, "--given", f'"ripe, days={days}",sort={sort}', "-n", 200, "--out", out) == 0
        table = pd.read_csv(out)
        assert list(table.columns) == ["color", "sort", "weight", "ripe, days"]
        assert (table["sort"] == sort).all()
        assert (table["ripe, days"] == days).all()
        assert (table.color == color).mean() > 0.9
        assert abs(table.weight.mean() - 10 * days) < 30
    assert "200 samples given" in capsys.readouterr().out
    assert run("sample", run_dir, "--given", '"ripe, days=",sort=', "--out", out) == 0
    assert "'ripe, days' of the condition had no missing cell" in capsys.readouterr().out
    assert pd.read_csv(out)[["sort", "ripe, days"]].isna().all().all()
    assert run("sample", run_dir, "--given", '"ripe, days=3",sort=', "--out", tmp_path / "s.png") == 0


def test_what_is_given_must_be_the_condition(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir, _ = fitted
    out = ["--out", tmp_path / "s.csv"]
    for given, facts in (
        ([], ["--given leaves out sort, ripe, days", "sort=kiwi"]),
        (["--given", "sort=plum"], ["leaves out ripe, days"]),
        (["--given", 'sort=fig,"ripe, days=3"'], ["sort cannot be 'fig'", "kiwi, lemon, plum"]),
        (["--given", 'sort=plum,"ripe, days=old"'], ["'old'", "not a number"]),
        (["--given", 'sort=plum,"ripe, days=3",color=blue'], ["describes column 'color'"]),
        (["--given", "sort=plum,ripe, days=3"], ["received 'ripe'", "double quotes"]),
        (["--given", 'sort=plum,sort=kiwi,"ripe, days=3"'], ["two values for sort"]),
        (["--label", "a"], ["conditioned on columns (sort, ripe, days)", "--given"]),
    ):
        message = assert_refused(capsys, "sample", run_dir, *given, *out)
        assert all(fact in message for fact in facts), message
    assert not (tmp_path / "s.csv").exists()


def test_the_file_of_the_fit_serves_every_command(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    before = pd.read_csv(data)
    gone = before["sort"].isna()
    out = tmp_path / "out.csv"
    assert run("score", run_dir, data, "--out", out, "--num-samples", 50, "--cells", tmp_path / "cells.csv") == 0
    assert "values of log p(x|c) written" in capsys.readouterr().out
    assert len(pd.read_csv(out)) == len(before)
    assert list(pd.read_csv(tmp_path / "cells.csv").columns) == ["row", "label", "color", "weight"]
    assert run("impute", run_dir, data, "--out", out, "--num-samples", 200) == 0
    assert f"{gone.sum()} missing cells of the condition (sort, ripe, days) stay missing" in capsys.readouterr().out
    after = pd.read_csv(out)
    assert list(after.columns) == list(before.columns)
    assert not after.weight.isna().any()
    assert (after["sort"].isna() == gone).all()
    missing = before.weight.isna()
    assert np.corrcoef(after.weight[missing], before["ripe, days"][missing])[0, 1] > 0.9
    assert run("reconstruct", run_dir, data, "--out", out) == 0
    after = pd.read_csv(out)
    assert list(after.columns) == ["color", "sort", "weight", "ripe, days"]
    assert (after["sort"].fillna("") == before["sort"].fillna("")).all()
    assert (after.color == before.color)[~gone].mean() > 0.95
    assert run("encode", run_dir, data, "--out", out) == 0
    assert run("encode", run_dir, data, "--out", tmp_path / "plane.png") == 0


def test_numbers_of_a_conditional_model_are_called_so_everywhere(
    fitted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    monkeypatch.setattr(import_module("subo.report.full"), "gaps", _few_steps)
    monkeypatch.setattr(import_module("subo.evaluation.evidence.annealed"), "_PILOT", (5, 5))
    shallow = ["--max-data", 6, "--intensive-data", 2, "--temperatures", 3, "--chains", 2, "--num-samples", 20]
    assert run("fit", data, *CONDITION, "--out", tmp_path / "other", *SHORT, "--quiet") == 0
    for command in (
        ["evaluate", run_dir, "--num-samples", 20],
        ["evaluate", run_dir, "--full", *shallow],
        ["compare", run_dir, tmp_path / "other", "--num-samples", 20],
    ):
        assert run(*command) == 0
        said = capsys.readouterr().out
        assert "log p(x|c)" in said
        assert "log p(x)" not in said


def _few_steps(*arguments: Any, **options: Any) -> Gaps:
    return gaps(*arguments, **options | {"ascent": Ascent(steps=20)})


def test_log_px_of_a_row_depends_on_its_condition(fitted: tuple[Path, Path], tmp_path: Path):
    run_dir, _ = fitted
    frame = fruit(40, seed=3).dropna()
    scores = []
    for sort in (frame["sort"], frame["sort"].map({"lemon": "plum", "plum": "kiwi", "kiwi": "lemon"})):
        frame.assign(sort=sort).to_csv(tmp_path / "x.csv", index=False)
        assert run("score", run_dir, tmp_path / "x.csv", "--out", tmp_path / "s.csv", "--num-samples", 50) == 0
        scores.append(pd.read_csv(tmp_path / "s.csv").log_px)
    assert (scores[0] > scores[1] + 1).mean() > 0.9


def test_a_file_without_the_condition_is_refused(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    pd.read_csv(data).drop(columns="sort").to_csv(tmp_path / "x.csv", index=False)
    message = assert_refused(capsys, "score", run_dir, tmp_path / "x.csv", "--out", tmp_path / "s.csv")
    assert "'sort' of the fit is missing" in message


@pytest.mark.parametrize(("options", "facts"), [
    (["--condition", "sort,sorts"], ["--condition: there is no column 'sorts'", "color, sort, weight"]),
    (["--condition", "sort", "--columns", "sort=drop"], ["column 'sort' is left out", "--columns"]),
    (["--condition", 'color,sort,weight,"ripe, days"'], ["names all columns"]),
    (["--condition", "label"], ["--condition labels"]),
    (["--condition", "sort", "--likelihood", "gaussian"], ["--condition has no effect with --likelihood gaussian"]),
    (["--condition", "sort", "--prior", "vamp"], ["vamp"]),
    (["--condition", "sort", "--prior", "by-label"], ["needs condition labels"]),
    (["--condition", "sort", "--num-labels", "3"], ["--num-labels has no effect"]),
    (["--condition", "sort", "--recipe", "ladder"], ["--condition is a setting of the recipe vae"]),
    (["--condition", ""], ["names of columns separated by commas"]),
], ids=str)  # fmt: skip
def test_conditions_that_cannot_be(options: list[str], facts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    data = tmp_path / "fruit.csv"
    fruit(60).to_csv(data, index=False)
    message = assert_refused(capsys, "fit", data, *options, "--out", tmp_path / "run")
    assert all(fact in message for fact in facts), message
    assert not (tmp_path / "run").exists()


def test_data_that_are_no_mixed_table_have_no_such_condition(tmp_path: Path, capsys: pytest.CaptureFixture):
    message = assert_refused(capsys, "fit", "digits", "--condition", "sort", "--out", tmp_path / "run")
    assert "digits is not a table of mixed columns" in message


def test_labels_stay_the_condition_that_they_were(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = tmp_path / "fruit.csv"
    fruit(80).to_csv(data, index=False)
    for name, options in (("labels", ["--condition", "labels"]), ("none", [])):
        assert run("fit", data, *options, "--out", tmp_path / name, *SHORT, "--quiet") == 0
        message = assert_refused(capsys, "sample", tmp_path / name, "--given", "sort=plum", "--out", tmp_path / "s.csv")
        assert ("--label" in message) == (name == "labels")
        baseline = json.loads((tmp_path / name / "evaluation.json").read_text())["baseline"]["name"]
        assert ("on the condition" in baseline) == (name == "labels")
        assert "conditioned on" in message
    assert open_run(tmp_path / "labels").config.given == "the label"
    assert run("sample", tmp_path / "labels", "--label", "a", "--out", tmp_path / "s.csv") == 0


@pytest.mark.pictures
def test_pictures_of_numbers_alone_are_drawn_for_their_conditions(tmp_path: Path):
    data, rng = tmp_path / "numbers.csv", np.random.default_rng(0)
    pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"]).to_csv(data, index=False)
    small = ["--hidden", "4", "--latent-dim", 2, "--epochs", 2, "--evaluation-samples", 20, "--quiet"]
    assert run("fit", data, "--condition", "c", "--out", tmp_path / "run", *small) == 0
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert {"samples.png", "reconstructions.png", "columns.png", "latent_plane.png", "latent_plane.gif"} <= drawn
    assert "decoder_grid.png" not in drawn
