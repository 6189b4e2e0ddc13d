"""The commands on a model that is told each example's class: samples are of their class, and bad labels are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from command_line import assert_refused, run
from subo import InputError, figures, load_data
from subo.cli.sample import _labels_to_draw
from subo.experiments.compare import _differences
from subo.runs.run import Run

pytestmark = pytest.mark.slow

SMALL = ["--latent-dim", "2", "--hidden", "32", "--evaluation-samples", "5", "--quiet"]
FITTED = ["--binarize", "dynamic", "--condition", "labels", "--learning-rate", "0.01", "--epochs", "12"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run on digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:  # pictures take long
        patch.setattr("subo.report.pictures._GRIDS", 2)
        patch.setattr("subo.report.pictures._FRAMES", 2)
        assert run("fit", "digits", "--out", out, *FITTED, *SMALL) == 0
    return out


def test_fit_tells_the_classes_apart_and_draws_them_in_rows(fitted: Path):
    options = json.loads((fitted / "config.json").read_text())["options"]
    assert (options["condition"], options["num_labels"]) == ("labels", 10)
    assert "given the label" in json.loads((fitted / "evaluation.json").read_text())["log_px_is"]
    pictures = {path.name for path in (fitted / "figures").iterdir()}
    grids = {f"decoder_grid-{c}.png" for c in range(2)}
    assert pictures >= grids | {"samples.png", "latent_plane.png", "reconstructions.png"}


def test_a_row_of_the_picture_is_a_class():
    shades = np.arange(6.0).reshape(6, 1, 1, 1) / 10 + np.zeros((6, 1, 4, 4))
    (axes,) = figures.samples(shades, classes=("ant", "bee")).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee"]
    drawn = np.asarray(axes.images[0].get_array())
    for tick, row in zip(axes.get_yticks(), (shades[:3], shades[3:]), strict=True):
        np.testing.assert_allclose(drawn[int(tick), [1, 6, 11]], row[:, 0, 0, 0])
    (axes,) = figures.decoder_grid(np.zeros((4, 1, 4, 4)), name="class bee").axes
    assert axes.get_title(loc="left").endswith("plane: class bee")


def agreement(path: Path, classes: np.ndarray) -> float:
    """How often a classifier of real digits' bits sees the class that was asked for."""
    data = load_data("digits", binarize="static")
    assert data.train.labels is not None
    classifier = LogisticRegression(max_iter=300).fit(data.train.x.flatten(1).numpy(), data.train.labels.numpy())
    return float((classifier.predict(np.load(path).reshape(len(classes), -1)) == classes).mean())


def test_samples_are_of_their_class(fitted: Path, tmp_path: Path):
    assert run("sample", fitted, "-n", 1000, "--mean", "--out", tmp_path / "all.npy") == 0
    assert agreement(tmp_path / "all.npy", np.arange(10).repeat(100)) > 0.9
    assert run("sample", fitted, "-n", 200, "--mean", "--label", 3, "--out", tmp_path / "threes.npy") == 0
    assert agreement(tmp_path / "threes.npy", np.full(200, 3)) > 0.9


def test_samples_of_all_classes_and_of_one(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for options, count in (([], 80), (["-n", 30], 30), (["--label", 3], 64), (["--label", 0, "-n", 5], 5)):
        assert run("sample", fitted, *options, "--out", tmp_path / "s.npy") == 0
        assert np.load(tmp_path / "s.npy").shape == (count, 1, 8, 8)
    for name in ("s.csv", "s.png"):
        assert run("sample", fitted, "--out", tmp_path / name) == 0
    assert run("sample", fitted, "--label", 9, "--out", tmp_path / "nines.png") == 0
    capsys.readouterr()
    assert "give 70" in assert_refused(capsys, "sample", fitted, "-n", 64, "--out", tmp_path / "s.npy")
    for label in (10, -1):
        assert "0 to 9" in assert_refused(capsys, "sample", fitted, f"--label={label}", "--out", tmp_path / "s.npy")


def test_the_other_commands_read_the_labels_of_their_data(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    few = tmp_path / "few.npz"
    data = load_data("digits", binarize="static").test
    assert data.labels is not None
    x, labels = data.x[:20].numpy().astype(bool), data.labels[:20].numpy()
    np.savez(few, x=x, labels=labels)
    assert run("reconstruct", fitted, few, "--out", tmp_path / "r.npy") == 0
    assert run("encode", fitted, few, "--out", tmp_path / "z.npy") == 0
    assert run("encode", fitted, few, "--out", tmp_path / "z.png") == 0
    assert run("score", fitted, few, "--num-samples", 50, "--out", tmp_path / "right.npy") == 0
    np.savez(few, x=x, labels=(labels + 1) % 10)
    assert run("score", fitted, few, "--num-samples", 50, "--out", tmp_path / "wrong.npy") == 0
    assert (np.load(tmp_path / "right.npy") - np.load(tmp_path / "wrong.npy")).mean() > 5
    np.savez(few, x=x, labels=labels + 5)
    capsys.readouterr()
    assert "0 to 9" in assert_refused(capsys, "score", fitted, few, "--out", tmp_path / "s.npy")
    np.savez(few, x=x)
    for command in ("reconstruct", "encode", "score"):
        assert "no labels" in assert_refused(capsys, command, fitted, few, "--out", tmp_path / "s.npy")
    assert "no labels" in assert_refused(capsys, "fit", few, "--condition", "labels", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_told_nothing_has_no_class_to_draw_and_is_not_compared_with_one_that_is(fitted: Path):
    with pytest.raises(InputError, match="not conditional"):
        _labels_to_draw((), None, "3")
    config = Run(fitted).read_config()
    assert _differences(config, config) == []
    plain = replace(config, options={name: v for name, v in config.options.items() if name != "condition"})
    for pair in ((config, plain), (plain, config)):
        (found,) = _differences(*pair)
        assert "given the label" in found
