"""The command score: log p(x) with its error, of which rows, and a warning where it is worth nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from command_line import run
from subo.data.loading import load_data

SMALL = ["--hidden", "16", "--epochs", "2", "--latent-dim", "2", "--evaluation-samples", "10", "--quiet"]


def columns_of(table: Path) -> dict[str, list[str]]:
    header, *lines = (line.split(",") for line in table.read_text().splitlines())
    return dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))


def test_a_published_part_is_scored_in_its_order(tmp_path: Path):
    fitted = tmp_path / "run"
    assert run("fit", "digits", "--out", fitted, "--binarize", "dynamic", *SMALL) == 0
    assert run("score", fitted, "digits", "--part", "test", "--num-samples", 10, "--out", tmp_path / "s.csv") == 0
    table = columns_of(tmp_path / "s.csv")
    assert list(table) == ["row", "label", "log_px", "standard_error", "effective_sample_size", "pareto_k"]
    assert list(table["label"]) == load_data("digits").test.label_names()
    values = np.array(table["log_px"], dtype=float)
    evaluation = json.loads((fitted / "evaluation.json").read_text())
    assert values.mean() == pytest.approx(evaluation["log_px"], abs=1e-4)
    whole = tmp_path / "whole.csv"
    assert run("score", fitted, "digits", "--num-samples", 10, "--out", whole) == 0
    of_all = columns_of(whole)
    assert sorted(map(int, of_all["row"])) == list(range(1, 1798))
    assert of_all["row"][-179:] == table["row"]
    source: Any = load_digits()
    assert list(map(int, of_all["label"])) == [source.target[int(row) - 1] for row in of_all["row"]]
    assert run("encode", fitted, "digits", "--out", whole) == 0
    assert columns_of(whole)["row"] == of_all["row"]
    assert run("score", fitted, "digits", "--part", "test", "--num-samples", 10, "--out", tmp_path / "s.npy") == 0
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), values, rtol=1e-4)


def test_a_part_of_a_file_says_which_of_its_rows_they_are(tmp_path: Path, capsys: pytest.CaptureFixture):
    file, fitted = tmp_path / "x.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    np.save(file, x)
    assert run("fit", file, "--out", fitted, *SMALL) == 0
    split = load_data(file)
    for part, rows in (("test", split.test), ("validation", split.validation)):
        capsys.readouterr()
        assert run("score", fitted, file, "--part", part, "--num-samples", 20, "--out", tmp_path / "s.csv") == 0
        table = columns_of(tmp_path / "s.csv")
        named = [int(row) - 1 for row in table["row"]]
        assert np.array_equal(x[named], rows.x.numpy())
        lowest = table["row"][int(np.argmin(np.array(table["log_px"], dtype=float)))]
        said = " ".join(capsys.readouterr().out.split())
        assert f"in row {lowest}" in said
    assert run("score", fitted, file, "--num-samples", 20, "--out", tmp_path / "s.csv") == 0
    assert columns_of(tmp_path / "s.csv")["row"] == list(map(str, range(1, 31)))


def test_many_examples_take_fewer_samples_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    file, fitted, scores = tmp_path / "x.npy", tmp_path / "run", tmp_path / "s.csv"
    np.save(file, np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32))
    assert run("fit", file, "--out", fitted, *SMALL) == 0
    monkeypatch.setattr("subo.evaluation.effort._SCORED", 30 * 200)
    capsys.readouterr()
    assert run("score", fitted, file, "--out", scores) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "200 samples for each of 30 examples" in said
    assert "--num-samples 1000" in said
    by_default = scores.read_text()
    assert run("score", fitted, file, "--out", scores, "--num-samples", 200) == 0
    assert scores.read_text() == by_default
    assert "to save time" not in capsys.readouterr().out
    assert run("score", fitted, file, "--out", scores, "--part", "test") == 0  # by as many, for the same p-values
    assert "200 samples for each of 30 examples" in capsys.readouterr().out
    few = tmp_path / "few.npy"
    np.save(few, np.load(file)[:5])
    assert run("score", fitted, few, "--out", scores) == 0
    assert "to save time" not in capsys.readouterr().out


def test_a_row_without_a_density_is_minus_infinity_and_never_stops_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    fitted, x = tmp_path / "run", np.random.default_rng(0).random(size=(30, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert run("fit", tmp_path / "x.npy", "--likelihood", "continuous-bernoulli", "--out", fitted, *SMALL) == 0
    options = ["--num-samples", 20, "--out", tmp_path / "s.csv"]
    assert run("score", fitted, tmp_path / "x.npy", *options) == 0
    before = columns_of(tmp_path / "s.csv")["log_px"]
    x[1, 2] = 1.2
    np.save(tmp_path / "x.npy", x)
    capsys.readouterr()
    assert run("score", fitted, tmp_path / "x.npy", *options) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 30 contain values outside the support of the run's likelihood (continuous-bernoulli)" in said
    assert "the first is number 2" in said
    scores = columns_of(tmp_path / "s.csv")["log_px"]
    assert scores[1] == "-inf"
    assert scores[:1] + scores[2:] == before[:1] + before[2:]
    assert run("encode", fitted, tmp_path / "x.npy", "--out", tmp_path / "z.npy") == 0
    assert np.isfinite(np.load(tmp_path / "z.npy")).all()
    # a high k-hat is told as what it is, a word on the estimate of log p(x), and not against the score
    monkeypatch.setattr("subo.evaluation.evidence.pareto.highest_pareto_k", lambda num_samples: -num_samples)
    capsys.readouterr()
    assert run("score", fitted, tmp_path / "x.npy", "--num-samples", 30, "--out", tmp_path / "s.csv") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "29 of 30 have Pareto k-hat above -30" in said
    assert "no reason to doubt that they are unusual" in said
    assert "trust" not in said
