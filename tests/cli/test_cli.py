"""The command line end to end on digits, and every bad input: one clear line, exit code 2, nothing lost."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from command_line import assert_refused, run
from run_configs import run_config
from subo.cli.messages import print_evaluation
from subo.cli.options import fit_signature
from subo.cli.show import _relevant
from subo.evaluation import Evaluation
from subo.experiments.units import bits_of_a_guess
from subo.recipes import RECIPES, vae
from subo.recipes.recipe import OF_THE_DATA, defaults_of, settled
from subo.runs.run import Run
from subo.runtime.digits import in_digits

SMALL = ["--hidden", "16", "--epochs", "2", "--evaluation-samples", "10"]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on digits, two latents."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert run("fit", "digits", "--latent-dim", 2, "--out", out, "--binarize", "dynamic", "--quiet", *SMALL) == 0
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on a small table in .csv, and the table."""
    folder = tmp_path_factory.mktemp("table")
    x = np.random.default_rng(0).normal(size=(60, 3)) * [1, 10, 100] + [0, 5, 1000]
    np.savetxt(folder / "table.csv", x, delimiter=",", header="age,size,income", comments="")
    assert run("fit", folder / "table.csv", "--out", folder / "run", "--latent-dim", 3, "--quiet", *SMALL) == 0
    return folder / "run", folder / "table.csv"


@pytest.fixture
def no_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes all pictures of a model, and writes none."""
    monkeypatch.setattr("subo.figures.save", lambda figure, path: None)


def test_fit_writes_everything(fitted: Path):
    config = json.loads((fitted / "config.json").read_text())
    assert config["data"]["kind"] == "binary"
    assert config["data"]["binarize"] == "dynamic"
    assert config["options"]["likelihood"] == "bernoulli"
    metrics = [json.loads(line) for line in (fitted / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in metrics] == [1, 2]
    evaluation = json.loads((fitted / "evaluation.json").read_text())
    names = "log_px log_px_se elbo elbo_se rate distortion active_units bits_per_dim num_samples num_data split"
    assert set(names.split()) <= set(evaluation)
    assert evaluation["elbo"] == pytest.approx(-(evaluation["rate"] + evaluation["distortion"]))
    assert evaluation["bits_per_dim"] == pytest.approx(-evaluation["log_px"] / 64 / np.log(2))
    assert evaluation["log_px"] >= evaluation["elbo"]
    assert (evaluation["num_samples"], evaluation["num_data"], evaluation["split"]) == (10, 179, "test")
    pictures = {path.name for path in (fitted / "figures").iterdir()}
    expected = {"training", "reconstructions", "samples", "kl", "latent_plane", "decoder_grid"}
    assert pictures == {f"{name}.png" for name in expected} | {"latent_plane.gif"}
    assert load_file(fitted / "model.safetensors")


def test_evaluate_gives_the_same_numbers_again(fitted: Path, capsys: pytest.CaptureFixture):
    before = json.loads((fitted / "evaluation.json").read_text())
    assert run("evaluate", fitted, "--num-samples", 10) == 0
    assert json.loads((fitted / "evaluation.json").read_text()) == before
    for split in ("validation", "train"):
        path = fitted / f"evaluation-{split}.json"
        assert run("evaluate", fitted, "--split", split, "--num-samples", 20) == 0
        after = json.loads(path.read_text())
        assert (after["split"], after["num_samples"]) == (split, 20)
        printed = capsys.readouterr().out
        assert f"{split}, {after['num_data']} examples" in printed
        assert str(path) in printed
    assert json.loads((fitted / "evaluation.json").read_text()) == before
    assert run("show", fitted) == 0
    assert "test, 179 examples" in capsys.readouterr().out
    (fitted / "evaluation.json").unlink()
    assert run("show", fitted) == 0
    assert "validation, 179 examples" in capsys.readouterr().out
    (fitted / "evaluation.json").write_text(json.dumps(before))


def test_encode_is_deterministic_and_of_the_latents(fitted: Path, tmp_path: Path):
    for name in ("a.npy", "b.npy", "c.csv", "d.png"):
        assert run("encode", fitted, "digits", "--part", "test", "--out", tmp_path / name) == 0
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert a.shape == (179, 2)
    assert np.array_equal(a, b)
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == "row,label,z1,z2"
    table = np.loadtxt(tmp_path / "c.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, 2:], a, rtol=1e-5, atol=1e-7)
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.size[0] > 300


def test_reconstruct_and_sample(fitted: Path, tmp_path: Path):
    assert run("reconstruct", fitted, "digits", "--part", "test", "--out", tmp_path / "r.npy") == 0
    means = np.load(tmp_path / "r.npy")
    assert means.shape == (179, 1, 8, 8)
    assert 0 < means.min() <= means.max() < 1
    assert run("reconstruct", fitted, "digits", "--part", "test", "--out", tmp_path / "r.png") == 0
    assert run("sample", fitted, "-n", 5, "--out", tmp_path / "s.npy") == 0
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (5, 1, 8, 8)
    assert set(np.unique(samples)) == {0, 1}
    assert run("sample", fitted, "-n", 5, "--mean", "--out", tmp_path / "m.npy") == 0
    assert len(np.unique(np.load(tmp_path / "m.npy"))) > 2
    for name, option in (("s.png", []), ("mean.png", ["--mean"]), ("drawn.png", ["--no-mean"])):
        assert run("sample", fitted, "--out", tmp_path / name, *option) == 0
    pictures = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("s", "mean", "drawn")}
    assert pictures["s"] == pictures["mean"] != pictures["drawn"]


def test_an_ending_in_capitals_gives_the_same_file(fitted: Path, tmp_path: Path):
    for name in ("s.npy", "S.NPY"):
        assert run("score", fitted, "digits", "--part", "test", "--num-samples", 2, "--out", tmp_path / name) == 0
    assert (tmp_path / "s.npy").read_bytes() == (tmp_path / "S.NPY").read_bytes()
    assert run("sample", fitted, "--out", tmp_path / "S.Png") == 0
    assert run("sample", fitted, "--out", tmp_path / "S.Csv") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"s.npy", "S.NPY", "S.Png", "S.Csv"}


def test_show_says_what_is_in_a_run(fitted: Path, capsys: pytest.CaptureFixture):
    assert run("show", fitted) == 0
    shown = capsys.readouterr().out
    for word in ("digits", "drawn again", "bernoulli", "latent_dim 2", "finished", "log p(x)", "beta 1.0"):
        assert word in " ".join(shown.split())  # however lines wrap
    for word in ("flow_", "channels", "scale", "num_classes", "groups"):  # which say nothing of this model
        assert word not in shown
    assert "(1 for a uniform guess)" in next(line for line in shown.splitlines() if "bits/dim" in line)


def test_a_rate_that_is_small_for_its_latents_is_cautioned(fitted: Path, capsys: pytest.CaptureFixture):
    kept = (fitted / "evaluation.json").read_text()
    for active, rate, cautioned in ((2, 0.19, True), (2, 0.21, False), (1, 0.19, False), (2, 0.09, False)):
        changed = json.loads(kept) | {"active_units": active, "rate": rate}
        (fitted / "evaluation.json").write_text(json.dumps(changed))
        assert run("show", fitted) == 0
        shown = capsys.readouterr().out
        assert ("the 2 active latents carry 0.095 nats each" in shown) == cautioned
        assert ("carry almost no information" in shown) == (rate < 0.1)
    (fitted / "evaluation.json").write_text(kept)


@pytest.mark.parametrize(
    "likelihood, num_classes, dequantize, bits",
    [
        ("bernoulli", None, False, 1.0),
        ("categorical", 4, False, 2.0),
        ("categorical", (2, 8), False, 2.0),
        ("poisson", None, False, None),
        ("gaussian", None, True, 8.0),
    ],
)
def test_the_bits_of_a_uniform_guess(likelihood: str, num_classes: Any, dequantize: bool, bits: float | None):
    config = run_config(likelihood, levels=255, dequantize=dequantize)
    assert bits_of_a_guess(replace(config, options={**config.options, "num_classes": num_classes})) == bits


def test_a_model_is_told_with_the_options_that_it_takes_and_those_that_were_set():
    options = settled(vae, {"likelihood": "laplace", "bound": "iwae", "alpha": 0.25})
    shown = _relevant(replace(run_config("laplace"), options=options))
    assert {"posterior", "scale", "min_scale", "hidden", "activation", "alpha"} <= set(shown)
    assert not {"num_classes", "channels", "beta", "groups", "flow_hidden", "baseline", "num_labels"} & set(shown)


def test_an_evaluation_is_shown_by_what_is_written(fitted: Path):
    written = json.loads((fitted / "evaluation.json").read_text())
    shown = repr(Evaluation(**{field.name: written[field.name] for field in fields(Evaluation)})).splitlines()
    assert shown[0].startswith("Evaluation of 179 examples (test)")
    value, error = in_digits(written["log_px"], written["log_px_se"])
    assert f"{value} ± {error}" in next(line for line in shown if line.startswith("log p(x)"))
    active = next(line for line in shown if line.startswith("active units"))
    assert active.split()[2:] == [str(written["active_units"]), "of", "2", "latent", "dimensions"]


@pytest.mark.pictures
@pytest.mark.usefixtures("no_ink")
@pytest.mark.slow
def test_fit_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = np.random.default_rng(0).normal(size=(60, 7))
    rows[:, 1:] = 3.0
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="a,b,c,d,e,f,g", comments="")
    out = tmp_path / "run"
    as_numbers = ["--likelihood", "gaussian"]
    assert run("fit", tmp_path / "a.csv", "--out", out, "--latent-dim", 1, *as_numbers, *SMALL) == 0
    printed = capsys.readouterr().out
    for words in (
        "a.csv: 60 examples of shape (7,), real: 48 to train on, 6 to validate on, 6 to test on",
        "likelihood gaussian, 1 latent (",
        "one value in b, c, d, e, f and 1 more",
        "all epochs are done; kept the weights of epoch",
        "log-density in the data's units",
    ):
        assert words in printed, printed
    assert "bits/dim" not in printed  # of a density
    assert run("fit", "--resume", "--out", out, "--evaluation-samples", 10) == 0
    assert "nothing was left to do: all epochs are done" in capsys.readouterr().out
    write(out / "evaluation-train.json", "{}")
    assert run("fit", "--resume", "--out", out, "--evaluation-samples", 10, "--epochs", 4, "--patience", 1) == 0
    assert not (out / "evaluation-train.json").exists()  # of weights that are gone
    assert "kept the weights of epoch" in capsys.readouterr().out
    options = ["--likelihood", "laplace", "--minutes", "1e-4", "--overwrite", "--out", out]
    assert run("fit", tmp_path / "a.csv", *options, "--evaluation-samples", 10) == 0
    printed = capsys.readouterr().out
    assert "likelihood laplace, 4 latents" in printed, "a tenth of 48 rows"
    assert "time is up (--minutes 0.0001)" in printed


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, []),
        ({"rate": 0.05}, ["rate 0.050 nats", "nearly collapsed to the prior"]),
        ({"active_units": 0}, ["no latent dimension is active", "rate 5.000 nats"]),
        ({"median_ess": 99.0}, ["99.0 of 1000", "may be higher"]),
        ({"median_ess": 3.0}, ["3.0 of 1000", "much higher"]),
        ({"high_pareto_k": 12}, ["12 of", "k-hat above 0.67", "too few", "--full"]),
        ({"at_floor": 0.5}, ["50.0% of the likelihood's scales"]),
    ],
)
def test_numbers_to_be_read_with_care_have_a_warning(
    fitted: Path, changes: dict, words: list[str], capsys: pytest.CaptureFixture
):
    result = json.loads((fitted / "evaluation.json").read_text())
    result |= {
        "rate": 5.0,
        "active_units": 2,
        "median_ess": 500.0,
        "high_pareto_k": 0,
        "highest_pareto_k": 2 / 3,
        "num_samples": 1000,
        "at_floor": None,
    } | changes
    print_evaluation(result, Run(fitted).read_config(), run=fitted)
    printed = capsys.readouterr().out
    assert printed.count("Careful") == bool(words)
    for word in words:
        assert word in printed


def test_a_table_in_its_own_units(table: tuple[Path, Path], tmp_path: Path):
    run_dir, data = table
    assert run("sample", run_dir, "-n", 200, "--out", tmp_path / "s.csv") == 0
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "age,size,income"
    samples = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert abs(samples[:, 2].mean() - 1000) < 60
    assert 50 < samples[:, 2].std() < 200
    assert run("score", run_dir, data, "--num-samples", 5, "--out", tmp_path / "p.npy") == 0
    assert np.load(tmp_path / "p.npy").shape == (60,)
    assert {path.name for path in (run_dir / "figures").iterdir()} >= {"latent_plane.png", "activity.png"}
    assert run("sample", run_dir, "--out", tmp_path / "s.png") == 0
    assert run("reconstruct", run_dir, data, "--out", tmp_path / "r.png") == 0


def test_columns_are_matched_by_name(table: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir, data = table
    lines = [line.split(",") for line in data.read_text().splitlines()]
    turned = write(tmp_path / "turned.csv", "\n".join(f"{c},{a},{b}" for a, b, c in lines) + "\n")
    for source, out in ((data, tmp_path / "a.npy"), (turned, tmp_path / "b.npy")):
        assert run("score", run_dir, source, "--num-samples", 5, "--out", out) == 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    other = write(tmp_path / "other.csv", "age,size,salary\n1,2,3\n")
    message = assert_refused(capsys, "score", run_dir, other, "--out", tmp_path / "c.npy")
    assert "'salary'" in message
    assert "'income'" in message


def test_a_named_set_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert run("fit", "digits", "--out", "run", "--quiet", *SMALL) == 0
    assert run("evaluate", "run", "--num-samples", 5) == 0


@pytest.mark.pictures
@pytest.mark.usefixtures("no_ink")
@pytest.mark.slow
def test_pixels_under_a_categorical_likelihood_are_whole_numbers(tmp_path: Path):
    out = tmp_path / "run"
    assert run("fit", "digits", "--likelihood", "categorical", "--out", out, "--quiet", *SMALL) == 0
    assert json.loads((out / "config.json").read_text())["options"]["num_classes"] == 17
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["log_px_is"] == "log-probability"
    assert 0 < evaluation["bits_per_dim"] < np.log2(17)
    assert run("reconstruct", out, "digits", "--part", "test", "--out", tmp_path / "r.npy") == 0
    assert np.load(tmp_path / "r.npy").max() > 5


COMBINATIONS = [
    ["--prior", "mixture", "--posterior", "full-rank", "--prior-covariance", "full"],
    ["--prior", "vamp", "--posterior", "inverse-autoregressive", "--bound", "iwae", "--num-samples", "3"],
    ["--prior", "autoregressive-flow", "--posterior", "spline", "--bound", "renyi", "--num-samples", "3"],
    ["--prior", "spline-flow", "--posterior", "laplace", "--bound", "miwae", "--num-samples", "4", "--groups", "2"],
    ["--network", "conv", "--channels", "4,8", "--kl-warmup-epochs", "1", "--free-bits", "0.5", "--beta", "2"],
    ["--network", "residual", "--likelihood", "gaussian", "--scale", "shared", "--activation", "silu"],
    ["--likelihood", "laplace", "--scale", "network", "--optimizer", "AdamW", "--decay", "cosine", "--clip", "10"],
    ["--likelihood", "gaussian", "--scale", "0.5", "--no-closed-form-kl", "--patience", "1", "--warmup-epochs", "1"],
    ["--inference", "local", "--binarize", "static", "--precision", "64-true"],
]


@pytest.mark.pictures
@pytest.mark.usefixtures("no_ink")
@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
@pytest.mark.slow
def test_any_combination_fits_and_is_read_back(options: list[str], tmp_path: Path):
    out = tmp_path / "run"
    small = ["--latent-dim", 2, "--epochs", 1, "--evaluation-samples", 4, "--quiet"]
    hidden = [] if "--network" in options and "residual" in options else ["--hidden", "16"]
    assert run("fit", "digits", "--out", out, *small, *hidden, *options) == 0
    before = json.loads((out / "evaluation.json").read_text())
    assert np.isfinite(before["log_px"])
    assert run("evaluate", out, "--num-samples", 4) == 0
    assert json.loads((out / "evaluation.json").read_text())["log_px"] == pytest.approx(before["log_px"], rel=1e-6)


def test_options_are_the_signatures_of_what_they_set():
    signature = fit_signature("vae")
    recipe = defaults_of(vae)
    assert {name: signature.parameters[name].default for name in recipe} == recipe
    assert set(recipe) == set(inspect.signature(RECIPES["vae"]).parameters) - {*OF_THE_DATA}
    helps = [parameter.annotation.__metadata__[0].help for parameter in signature.parameters.values()]
    assert all(helps)


COMMANDS = ["fit", "evaluate", "compare", "sample", "reconstruct", "encode", "score", "show"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture):
    assert run(*filter(None, [command]), "--help") == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_help_fills_its_lines(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("score", "--help") == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("With --alpha"))
    paragraph = lines[first : lines.index("", first)]
    assert min(map(len, paragraph[:-1])) > 60


# Bad input


def test_missing_and_unreadable_data(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    assert "needs data" in assert_refused(capsys, "fit")
    assert "did you mean" in assert_refused(capsys, "fit", "digit", "--out", out).lower()
    assert "missing.npy" in assert_refused(capsys, "fit", tmp_path / "missing.npy", "--out", out)
    assert ".npy" in assert_refused(capsys, "fit", write(tmp_path / "a.docx", "x"), "--out", out)
    assert_refused(capsys, "fit", write(tmp_path / "broken.npy", "not numpy"), "--out", out)
    assert not out.exists()


def test_bad_tables(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    for text, words in {
        "": ["empty"],
        "a,b\n": ["row"],
        "a,b\n1,2\n": ["one row"],
        "a,b\n1,2\n3\n5,6\n7,8\n": ["row 2", "1 cell under", "header of 2"],
        "a,b\n1,2.5\n3,inf\n5,6.5\n7,8\n" + "9,0.5\n" * 40: ["row 2", "'b'", "inf"],
    }.items():
        message = assert_refused(capsys, "fit", write(tmp_path / "a.csv", text), "--out", out)
        for word in words:
            assert word in message, message
    for text, words in {
        "a;b\n1;2\n3;x\n5;6\n7;8\n": ["'b'", "row 2", "'x' isn't a number"],
        "a,b\n1,2\n3,nan\n5,inf\n7,8\n": ["'b'", "row 2", "the cell is empty"],
        "a,b\n1,2\n3,4\n5,inf\n7,8\n": ["1 of 8", "row 3", "'b'"],
    }.items():
        as_numbers = ("--likelihood", "gaussian")
        message = assert_refused(capsys, "fit", write(tmp_path / "a.csv", text), *as_numbers, "--out", out)
        for word in words:
            assert word in message, message
    times = "".join(f"{1_700_000_000 + i},{i}\n" for i in range(30))
    clock = write(tmp_path / "a.csv", "time,b\n" + times)
    assert "'time'" in assert_refused(capsys, "fit", clock, "--likelihood", "gaussian", "--out", out)
    assert "two" in assert_refused(capsys, "fit", write(tmp_path / "a.csv", "a,b\n1,2\n3,4\n5,7\n"), "--out", out)
    assert not out.exists()


def test_values_outside_of_the_likelihoods_support(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    message = assert_refused(capsys, "fit", "digits", "--likelihood", "bernoulli", "--out", out)
    assert "binarize" in message
    assert "continuous-bernoulli" in message
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    for likelihood, fact in {"poisson": "counts", "continuous-bernoulli": "[0, 1]", "categorical": "classes"}.items():
        options = ["--likelihood", likelihood, "--out", out]
        assert fact in assert_refused(capsys, "fit", tmp_path / "x.npy", *options)
    assert "binarize none" in assert_refused(capsys, "fit", tmp_path / "x.npy", "--binarize", "static", "--out", out)
    assert "channel" in assert_refused(capsys, "fit", tmp_path / "x.npy", "--network", "conv", "--out", out)


def test_another_number_of_features_at_encode(table: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    other = write(tmp_path / "two.csv", "age,size\n1,2\n3,4\n")
    message = assert_refused(capsys, "encode", table[0], other, "--out", tmp_path / "z.npy")
    assert "'income' of the fit is missing" in message
    assert "3 columns" in message
    assert not (tmp_path / "z.npy").exists()


def test_what_is_missing_or_left_over_is_named(capsys: pytest.CaptureFixture):
    assert "score needs --out FILE" in assert_refused(capsys, "score", "run", "table.csv")
    assert "score needs DATA" in assert_refused(capsys, "score", "run", "--out", "s.csv")
    assert "64 does not belong to any option" in assert_refused(capsys, "fit", "digits", "--hidden", 32, 64)


def test_options_and_commands_that_do_not_exist(capsys: pytest.CaptureFixture):
    assert "--latent-dim" in assert_refused(capsys, "fit", "digits", "--latent-dims", "3")
    assert '"fit"' in assert_refused(capsys, "fitt", "digits")
    assert "three" in assert_refused(capsys, "fit", "digits", "--latent-dim", "three")
    assert "vae" in assert_refused(capsys, "fit", "digits", "--recipe", "vea")
    assert "normal" in assert_refused(capsys, "fit", "digits", "--prior", "gauss")
    assert "200,200" in assert_refused(capsys, "fit", "digits", "--hidden", "2x2")
    message = assert_refused(capsys, "fit", "digits", "--recipe", "hierarchical", "--merge", "residual")
    assert "setting of the recipe ladder, not of hierarchical" in message
    assert "recipe ladder" in assert_refused(capsys, "fit", "digits", "--merge=residual")
    assert "recipe" not in assert_refused(capsys, "fit", "digits", "--merg", "residual")


def test_outputs_that_cannot_be_written(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    message = assert_refused(capsys, "fit", "digits", "--out", fitted, *SMALL)
    assert "--resume" in message
    assert "--overwrite" in message
    assert {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()} == before
    write(tmp_path / "file", "x")
    assert "is a file" in assert_refused(capsys, "fit", "digits", "--out", tmp_path / "file", *SMALL)
    assert_refused(capsys, "fit", "digits", "--out", tmp_path / "file" / "run", *SMALL)
    assert ".npy" in assert_refused(capsys, "encode", fitted, "digits", "--out", tmp_path / "z.txt")
    assert "no folder" in assert_refused(capsys, "encode", fitted, "digits", "--out", tmp_path / "none" / "z.npy")


def test_run_and_data_that_change_places(
    table: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run_dir, data = table
    for given in (data, "digits"):
        message = assert_refused(capsys, "score", given, run_dir, "--out", tmp_path / "s.npy")
        assert f"{given} is a {'data set' if given == 'digits' else 'file'}" in message
        assert "the run comes first" in message
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").symlink_to(run_dir)
    assert run("show", "digits") == 0  # a run of that name is one


def test_show_as_a_page_holds_what_show_prints(fitted: Path, capsys: pytest.CaptureFixture):
    assert run("show", fitted) == 0
    printed = capsys.readouterr().out
    assert run("show", fitted, "--html") == 0
    page = capsys.readouterr().out
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    shown = unescape(page[page.index("<pre") :].partition("</pre>")[0].partition(">")[2])
    assert shown.split() == printed.split()  # however lines wrap
    assert "<script" not in page


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = assert_refused(capsys, "fit", "digits", "--device", "cuda", "--out", tmp_path / "run")
    assert "no device 'cuda'" in message
    assert "--device cpu" in message


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
@pytest.mark.parametrize("command", ["show", "evaluate"])
@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_error(fitted: Path, command: str):
    process = subprocess.Popen(
        [sys.executable, "-m", "subo", command, str(fitted)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert not process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)


def test_runs_that_are_none_or_damaged(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "no run folder" in assert_refused(capsys, "evaluate", tmp_path / "none")
    assert "not a run folder" in assert_refused(capsys, "show", tmp_path)
    write(tmp_path / "config.json", '{"some": "thing"}')
    assert "not the config of a subo run" in assert_refused(capsys, "show", tmp_path)
    weights = fitted / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:100])
        assert "safetensors" in assert_refused(capsys, "evaluate", fitted)
        weights.unlink()
        assert "not finished" in assert_refused(capsys, "evaluate", fitted)
        assert "not finished" in assert_refused(capsys, "sample", fitted, "--out", tmp_path / "s.npy")
    finally:
        weights.write_bytes(whole)


def test_data_that_changed_since_the_fit_are_noticed(table: tuple[Path, Path], capsys: pytest.CaptureFixture):
    run_dir, data = table
    text = data.read_text()
    try:
        data.write_text(text.replace("\n", "\n", 1) + "1,2,3\n")
        assert "has changed since the run" in assert_refused(capsys, "evaluate", run_dir)
    finally:
        data.write_text(text)


def test_settings_that_make_no_sense_together(tmp_path: Path, capsys: pytest.CaptureFixture):
    def message(*options: object) -> str:
        return assert_refused(capsys, "fit", "digits", "--out", tmp_path / "run", *options)

    assert "increase num_samples" in message("--bound", "iwae")
    assert "equal groups" in message("--bound", "miwae", "--num-samples", 5, "--groups", 2)
    assert "beta" in message("--bound", "iwae", "--num-samples", 5, "--beta", 2)
    assert "local inference" in message("--prior", "vamp", "--inference", "local")
    assert "--latent-dim must be at least 1, not 0" in message("--latent-dim", 0)
    assert "--min-scale must be positive" in message("--likelihood", "gaussian", "--min-scale", 0)
    assert "no KL of its own" in message("--bound", "iwae", "--num-samples", 5, "--kl-warmup-epochs", 2)
    assert "device" in message("--device", "abacus")


def test_divergence_is_one_line_and_keeps_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture):
    x = np.random.default_rng(0).normal(size=(200, 3))
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "run"
    message = assert_refused(
        capsys, "fit", tmp_path / "x.npy", "--out", out, "--optimizer", "SGD", "--learning-rate", "1e12", *SMALL
    )
    assert "step" in message
    assert "--learning-rate" in message
    assert not (out / "model.safetensors").exists()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture):
    assert run("fit", "digit", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err
