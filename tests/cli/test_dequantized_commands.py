"""The commands on dequantized data."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import assert_refused, run
from subo.data.dataset import Data
from subo.data.loading import load_rows
from subo.data.quantization import binarized
from subo.data.splits import Split
from subo.data.values import kind_of
from subo.experiments.config import dequantizes
from subo.experiments.fitting import start_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dequantized run that the command line made, and small runs of other kinds."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--hidden", 16, "--latent-dim", 2, "--epochs", 2, "--evaluation-samples", 20]
    assert run("fit", "digits", "--out", folder / "noisy", *options) == 0  # which nobody has to ask for
    others: dict[str, dict[str, Any]] = {
        "laplace": {"dequantize": True, "options": {"likelihood": "laplace"}},
        "categorical": {"options": {"likelihood": "categorical"}},
        "bits": {"binarize": "static"},
        "grey": {"options": {"likelihood": "continuous-bernoulli"}},
    }
    for name, given in others.items():
        small = {"hidden": (16,), "latent_dim": 2, **given.pop("options", {})}
        start_run("digits", folder / name, options=small, data=given, training={"epochs": 1})
    return folder


@pytest.mark.parametrize(
    "likelihood, binarize, levels, expected",
    [
        ("auto", "none", 16, True),
        ("gaussian", "none", 255, True),
        ("laplace", "none", 16, True),
        ("continuous-bernoulli", "none", 16, False),
        ("categorical", "none", 16, False),
        ("auto", "dynamic", 16, False),
        ("auto", "none", 1, False),
        ("auto", "none", 999, False),
    ],
)
def test_integers_with_levels_are_dequantized_for_densities_unless_they_become_bits(
    likelihood: str, binarize: Any, levels: int, expected: bool
):
    y = torch.arange(40, dtype=torch.int16).reshape(10, 1, 2, 2) % 17
    data = Data("y", *[Split(y, levels=levels)] * 3, kind=kind_of(y, levels=levels))
    assert dequantizes(binarized(data, binarize, seed=0), likelihood) is expected


def test_grey_values_without_levels_are_left_as_they_are():
    x = torch.rand(10, 1, 2, 2)
    assert not dequantizes(Data("x", *[Split(x)] * 3, kind="grey"), "auto")


MEANING = "lower bound on the log-probability of the values 0 to 16, by uniform dequantization"


def test_a_run_says_what_its_numbers_are(runs: Path, capsys: pytest.CaptureFixture):
    out = runs / "noisy"
    data = json.loads((out / "config.json").read_text())["data"]
    assert (data["dequantize"], data["kind"], data["levels"], data["binarize"]) == (True, "real", 16, "none")
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["log_px_is"] == MEANING
    assert "y + u" in evaluation["noise"]
    assert evaluation["bits_per_dim"] == pytest.approx(-evaluation["log_px"] / 64 / math.log(2))
    assert 3 < evaluation["bits_per_dim"] < 6  # uniform over 17 levels has 4.09; a density of x/16 would have 0
    assert run("evaluate", out, "--num-samples", 20) == 0
    shown = capsys.readouterr().out
    assert MEANING in shown
    assert "an upper bound   (4.09 for a uniform guess)" in next(
        line for line in shown.splitlines() if "bits/dim" in line
    )
    assert json.loads((out / "evaluation.json").read_text()) == evaluation
    assert run("evaluate", out, "--split", "train", "--num-samples", 2) == 0
    assert run("show", out) == 0
    assert "y + u" in capsys.readouterr().out
    assert {path.name for path in (out / "figures").iterdir()} >= {"samples.png", "reconstructions.png"}
    assert run("fit", "--resume", "--out", out, "--epochs", 3, "--evaluation-samples", 5, "--quiet") == 0


def test_what_leaves_a_run_is_in_levels(runs: Path, tmp_path: Path):
    out, data = runs / "noisy", load_rows("digits").x.numpy()
    for command in (["sample", out, "-n", 40], ["reconstruct", out, "digits"], ["encode", out, "digits"]):
        for name in ("x.npy", "x.png"):
            assert run(*command, "--out", tmp_path / f"{command[0]}-{name}") == 0
    samples = np.load(tmp_path / "sample-x.npy")
    assert samples.dtype == np.uint8
    assert samples.max() <= 16
    assert len(np.unique(samples)) == 17
    means = np.load(tmp_path / "reconstruct-x.npy")
    assert abs(means.mean() - data.mean()) < 0.4  # the noise's mean of 1/2 is taken off
    assert run("sample", out, "-n", 400, "--mean", "--out", tmp_path / "m.npy") == 0
    assert abs(np.load(tmp_path / "m.npy").mean() - data.mean()) < 0.4
    for source in ("digits", tmp_path / "sample-x.npy"):  # samples go back in
        assert run("score", out, source, "--num-samples", 5, "--out", tmp_path / "s.npy") == 0
    log_px = np.load(tmp_path / "s.npy")
    assert log_px.shape == (40,)
    assert (-64 * math.log(40) < log_px).all()
    np.save(tmp_path / "grey.npy", data / 16)
    assert run("score", out, tmp_path / "grey.npy", "--out", tmp_path / "s.npy") == 2


@pytest.mark.parametrize(
    "options, words",
    [
        (["--binarize", "static"], ["binarize static", "one of the two"]),
        (["--likelihood", "continuous-bernoulli"], ["[0, 17)", "outside the support [0, 1]", "such as gaussian"]),
        (["--likelihood", "categorical"], ["gives probabilities to integers", "leave --dequantize out"]),
        (["--likelihood", "poisson"], ["gives probabilities to integers"]),
        (["--likelihood", "bernoulli"], ["gives probabilities to bits", "such as gaussian"]),
    ],
)
def test_what_does_not_go_with_dequantized_data(options: list, words: list, tmp_path: Path, capsys):
    said = assert_refused(capsys, "fit", "digits", "--dequantize", "--out", tmp_path / "x", *options)
    for word in words:
        assert word in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    "other, words",
    [
        ("categorical", ["one is the probability of discrete values", "the other a lower bound on such"]),
        ("grey", ["log-density of x/16", "one is a density", "the other bounds a probability"]),
        ("bits", ["its binarization is", "one is the probability", "the other a lower bound"]),
    ],
)
def test_a_bound_is_not_compared_with_another_kind_of_number(
    runs: Path, other: str, words: list[str], swapped: bool, capsys: pytest.CaptureFixture
):
    pair = [runs / "noisy", runs / other]
    said = assert_refused(capsys, "compare", *(reversed(pair) if swapped else pair))
    for word in [*words, MEANING]:
        assert word in said


def test_dequantized_runs_are_compared(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--num-samples", 3, "--max-data", 20, "--out", tmp_path / "c.json"]
    assert run("compare", runs / "noisy", runs / "laplace", *options) == 0
    assert MEANING in capsys.readouterr().out.replace("\n", " ")
    assert json.loads((tmp_path / "c.json").read_text())["log_px_is"] == MEANING


def test_runs_from_before_dequantization_are_as_they_were(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    old = shutil.copytree(Path(__file__).parents[1] / "runs-of-0.1" / "grey", tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["data"]["dequantize"], config["data"]["noise"]
    (old / "config.json").write_text(json.dumps(config))
    assert run("show", old) == 0
    assert run("compare", runs / "grey", old, "--num-samples", 2, "--max-data", 5) == 0
    assert "sample" in capsys.readouterr().out
    assert run("sample", old, "--out", tmp_path / "s.npy") == 0
    assert np.load(tmp_path / "s.npy").max() <= 1
