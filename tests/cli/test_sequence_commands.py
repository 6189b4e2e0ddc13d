"""The command line on sequences, end to end, and its refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import assert_refused, run
from subo.data.loading import load_rows
from subo.experiments.experiment import open_run
from subo.report import Depth, evaluate_fully

pytestmark = pytest.mark.slow

SMALL = ["--latent-dim", 2, "--reader-hidden", 6, "--transition-hidden", 6, "--hidden", 6, "--epochs", 2]


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty noisy waves of different lengths, in an archive."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 9, 20)
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    np.savez(path, *[np.sin(np.arange(n) + s)[:, None] + generator.normal(size=(n, 2)) for s, n in enumerate(lengths)])
    return path


@pytest.fixture(scope="module")
def fitted(waves: Path) -> Path:
    out = waves.parent / "run"
    options = [*SMALL, "--evaluation-samples", 30, "--quiet"]
    assert run("fit", waves, "--recipe", "deep-markov", "--out", out, *options) == 0
    return out


def test_fit_measures_per_sequence_and_per_step(fitted: Path, capsys: pytest.CaptureFixture):
    config = json.loads((fitted / "config.json").read_text())
    evaluation = json.loads((fitted / "evaluation.json").read_text())
    assert config["data"]["sizes"] == {"train": 16, "validation": 2, "test": 2}
    steps = evaluation["per_step"]
    assert steps["num_steps"] == config["data"]["steps"]["test"]
    assert steps["log_px"] == pytest.approx(2 * evaluation["log_px"] / steps["num_steps"])
    assert run("show", fitted) == 0
    assert "per time step" in capsys.readouterr().out
    assert {file.name for file in (fitted / "figures").iterdir()} == {
        *("training.png", "reconstructions.png", "samples.png", "activity.png")
    }


def test_results_are_written_by_sequence_and_step(fitted: Path, waves: Path, tmp_path: Path):
    data = load_rows(waves)
    assert data.lengths is not None
    assert run("encode", fitted, waves, "--out", tmp_path / "z.csv") == 0
    table = np.genfromtxt(tmp_path / "z.csv", delimiter=",", names=True)
    assert table.dtype.names == ("sequence", "step", "z1", "z2")
    assert np.array_equal(np.bincount(table["sequence"].astype(int))[1:], data.lengths.numpy())
    assert run("reconstruct", fitted, waves, "--out", tmp_path / "r.npz") == 0
    back = load_rows(tmp_path / "r.npz")
    assert back.lengths is not None
    assert torch.equal(back.lengths, data.lengths)
    assert run("score", fitted, waves, "--out", tmp_path / "s.csv", "--num-samples", 10) == 0
    scores = np.genfromtxt(tmp_path / "s.csv", delimiter=",", names=True)
    assert np.allclose(scores["log_px_per_step"] * scores["steps"], scores["log_px"])
    assert scores["steps"].tolist() == data.lengths.tolist()


def test_results_of_a_folder_name_its_files(fitted: Path, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "recordings"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in (("tuesday", 0), ("monday", 50)):
        np.save(folder / f"{name}.npy", size + generator.normal(size=(3, 2)))
    assert run("score", fitted, folder, "--out", tmp_path / "s.csv", "--num-samples", 10) == 0
    with (tmp_path / "s.csv").open() as file:
        rows = {row["name"]: float(row["log_px"]) for row in csv.DictReader(file)}
    assert list(rows) == ["monday.npy", "tuesday.npy"]
    assert rows["monday.npy"] < rows["tuesday.npy"]
    assert "of monday.npy" in capsys.readouterr().out
    assert run("encode", fitted, folder, "--out", tmp_path / "z.csv") == 0
    assert run("forecast", fitted, folder, "--steps", 2, "--num-samples", 5, "--out", tmp_path / "f.csv") == 0
    for path, steps in ((tmp_path / "z.csv", 3), (tmp_path / "f.csv", 2)):
        with path.open() as file:
            places = [(row["sequence"], row["step"]) for row in csv.DictReader(file)]
        assert places == [(f"{day}day.npy", str(t + 1)) for day in ("mon", "tues") for t in range(steps)]


def test_samples_and_forecasts(fitted: Path, waves: Path, tmp_path: Path):
    assert run("sample", fitted, "--out", tmp_path / "x.npz", "--steps", 7, "-n", 3) == 0
    assert load_rows(tmp_path / "x.npz").x.shape == (21, 2)
    assert run("sample", fitted, "--out", tmp_path / "x.png", "-n", 2) == 0
    for ending in ("csv", "png", "npz"):
        options = ["--steps", 5, "--num-samples", 50, "--out", tmp_path / f"f.{ending}"]
        assert run("forecast", fitted, waves, *options) == 0
    table = np.genfromtxt(tmp_path / "f.csv", delimiter=",", names=True)
    assert len(table) == 20 * 5
    assert (table["lower0"] <= table["upper0"]).all()
    means = load_rows(tmp_path / "f.npz").x.numpy()
    assert np.allclose(means[:, 1], table["mean1"], rtol=1e-5)
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("x.png", "f.png"))


def test_data_and_recipe_must_agree(fitted: Path, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    assert "--recipe deep-markov" in assert_refused(capsys, "fit", waves, "--out", out)
    assert "digits are single data" in assert_refused(capsys, "fit", "digits", "--recipe", "deep-markov", "--out", out)
    assert not out.exists()
    assert ".npz, .csv" in assert_refused(capsys, "encode", fitted, waves, "--out", tmp_path / "z.png")
    message = assert_refused(capsys, "forecast", fitted, waves, "--steps", 0, "--out", tmp_path / "f.csv")
    assert "--steps must be at least 1, not 0" in message


def test_what_cannot_be_trained_is_refused_before_a_run_is_replaced(
    waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "run"
    base = ["fit", waves, "--recipe", "deep-markov", "--out", out, "--quiet", *SMALL]
    for options in (["--gradient", "dreg"], ["--gradient", "score-function", "--free-bits", 1]):
        assert_refused(capsys, *base, *options)
        assert not out.exists()


def test_fit_trains_in_windows_and_says_so(waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    base = ["fit", waves, "--recipe", "deep-markov", "--out", out, *SMALL, "--evaluation-samples", 5]
    assert run(*base, "--window", 3) == 0
    said = capsys.readouterr().out
    assert "windows of 3 steps" in said
    assert "truncated at their borders (--window 8 for whole ones)" in said
    assert json.loads((out / "config.json").read_text())["training"]["window"] == 3
    assert "--window 4 differs from the run's, 3" in assert_refused(
        capsys, "fit", "--resume", "--out", out, "--window", 4
    )
    assert run("fit", "--resume", "--out", out, "--epochs", 3, "--window", 3) == 0
    for options, words in (
        (["digits"], "--window counts time steps, but these data are not sequences"),
        ([waves, "--recipe", "deep-markov", "--bound", "iwae", "--num-samples", 2], "with --window, training follows"),
        ([waves, "--recipe", "deep-markov", "--free-bits", 1], "without free bits"),
    ):
        assert words in assert_refused(capsys, "fit", *options, "--out", tmp_path / "other", "--window", 3)
    assert not (tmp_path / "other").exists()


def test_a_full_evaluation_keeps_the_numbers_per_step(fitted: Path):
    experiment = open_run(fitted)
    test = experiment.data().test
    depth = Depth(num_samples=20, max_data=2, intensive_data=2, temperatures=2, chains=2, calibration_data=100)
    findings = evaluate_fully(experiment.objective.model, test, depth=depth, minutes=1e-9)
    evaluation = findings.evaluation(split=test, name="test")
    assert evaluation is not None
    steps = evaluation.per_step
    assert steps is not None
    measured = findings.measured["importance"]  # a first piece of them, in so little time
    assert test.lengths is not None
    num_steps = int(test.lengths[measured.rows].sum())
    assert steps["num_steps"] == num_steps
    assert steps["log_px"] == pytest.approx(measured.record.log_px.sum().item() / num_steps)
