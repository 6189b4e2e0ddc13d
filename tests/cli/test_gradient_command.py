"""The command gradients, and its figure."""

import csv
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from catalog import vae
from command_line import run
from subo import IWAE, InputError
from subo.evaluation.gradient_statistics import gradient_statistics
from subo.figures.gradients import gradient_variances, signal_to_noise_curves

# Figures


def test_curves_leave_out_what_is_lost_in_the_noise():
    ratios = np.array([[0.5, 0.1], [0.4, 0.0], [0.6, 0.3]])  # and the ends of their intervals
    curves = {"phi": {"one": ratios, "other": np.array([[1.0, 2.0], [0.9, 1.8], [1.1, 2.2]])}}
    curves["theta"] = {"one": np.full((3, 2), np.nan)}
    figure = signal_to_noise_curves([1, 8], curves, biased={"other"})
    figure.canvas.draw()
    assert len(figure.axes) == 2
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.5, np.nan])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other (biased)"]
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((0.1, 10))


def test_bars_stand_side_by_side_on_one_scale_and_biased_ones_are_hatched():
    figure = gradient_variances(
        {"phi": {"one": 0.002, "other": 3.0}, "theta": {"one": 0.0, "other": 0.1}}, biased={"one"}
    )
    figure.canvas.draw()
    phi, theta = figure.axes
    assert phi.get_xlim() == theta.get_xlim()
    assert [bool(patch.get_hatch()) for patch in phi.patches] == [True, False]  # pyright: ignore[reportAttributeAccessIssue]
    assert [label.get_text() for label in phi.get_yticklabels()] == ["one (biased)", "other"]


# The command


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    settings = ["--latent-dim", 2, "--hidden", 16, "--epochs", 2, "--evaluation-samples", 10, "--binarize", "dynamic"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", "digits", "--out", out, "--quiet", *settings) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_command_writes_a_table_and_a_picture(fitted: Path, capsys: pytest.CaptureFixture):
    backend = matplotlib.get_backend()
    assert run("gradients", fitted, "--bound", "iwae", "--num-samples", "1,4", "--draws", 10) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("written to")[0].splitlines())) <= 100
    for words in ("phi, the posterior", "theta, the model", "wake-phi *", "left out: vimco at K = 1", "score function"):
        assert words in printed
    assert "pathwise: from K = 1 to 4" in printed
    assert "dreg: from K = 1 to 4" in printed
    table = rows(fitted / "gradients.csv")
    assert {row["part"] for row in table} == {"phi", "theta"}
    assert float(table[0]["variance"]) > 0
    with Image.open(fitted / "figures" / "gradients.png") as picture:
        assert picture.size[0] > 1000
    assert matplotlib.get_backend() == backend


def test_the_command_takes_names_and_another_folder(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "new" / "folder"
    names = "score-none,pathwise"
    settings = ("--num-samples", 2, "--draws", 10, "--batch-size", 5, "--estimators", names, "--out", out)
    assert run("gradients", fitted, *settings) == 0
    assert "times that of pathwise" in " ".join(capsys.readouterr().out.split())
    assert [row["estimator"] for row in rows(out / "gradients.csv")][:2] == ["pathwise", "score-none"]
    assert (out / "gradients.png").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--estimators", "pathways"), "Estimators: pathwise, sticking-the-landing"),
        (("--estimators", "dreg"), "dreg: DReG is the gradient of IWAE"),
        (("--num-samples", "1,x"), "such as 1,8,64"),
        (("--num-samples", "0"), "such as 1,8,64"),
        (("--draws", 3), "at least 10"),
        (("--batch-size", 0), "--batch-size must be at least 1, not 0"),
    ],
)
def test_the_command_refuses_in_one_line(fitted: Path, argv, words, capsys: pytest.CaptureFixture):
    assert run("gradients", fitted, *argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len([line for line in error.splitlines() if line.startswith("subo: ")]) == 1


def test_the_command_refuses_a_file_for_a_folder(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").touch()
    assert run("gradients", fitted, "--out", tmp_path / "file") == 2
    assert "it is a file" in capsys.readouterr().err


def test_a_reference_that_is_refused_at_one_k_is_not_replaced():
    x = torch.zeros(3, 6)
    with pytest.raises(InputError, match="vimco cannot be the reference at K = 1"):
        gradient_statistics(vae(), x, bound=IWAE(), num_samples=(1, 4), draws=10, reference="vimco")
