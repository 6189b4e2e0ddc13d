"""What a fit says when it is over."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import run
from run_configs import run_config
from subo.cli.fit import conclude
from subo.cli.impute import _say_what_to_know
from subo.cli.messages import _cautions
from subo.data.splits import Split
from subo.training.history import Epoch, History
from subo.training.metrics import Metrics


def history(*bounds: float, best: int | None, stopped_by: str = "epochs") -> History:
    """An epoch a validation bound."""
    metrics = [Metrics(bound, bound, bound, 0.0, -bound, (0.0,)) for bound in bounds]
    epochs = (
        Epoch(number, 10 * number, 1.0 * number, 1e-3, 1.0, values, values)
        for number, values in enumerate(metrics, start=1)
    )
    return History(tuple(epochs), best, stopped_by)  # pyright: ignore[reportArgumentType]


def said(capsys: pytest.CaptureFixture, of: History, **training: Any) -> str:
    conclude(of, replace(run_config("bernoulli").training, **training), out=Path("runs/a"), trained=True)
    return capsys.readouterr().out


def test_a_bound_that_was_still_rising_is_told_with_the_command_that_goes_on(capsys: pytest.CaptureFixture):
    rising = [-100.0 + epoch for epoch in range(20)]
    words = said(capsys, history(*rising, best=20), epochs=20)
    assert "by 2.00 nats in the last tenth of the epochs; training" in words
    few = said(capsys, history(*rising[:19], best=19), epochs=19)
    assert "by 1.00 nats in the last epoch; training" in few
    assert "subo fit --resume --out runs/a --epochs 40" in words
    assert "--minutes 3" in said(capsys, history(*rising, best=20, stopped_by="minutes"), minutes=1.5)
    late = [*rising[:18], -81.0, -81.5]  # the best epoch is not quite the last
    assert "by 2.25 nats" in said(capsys, history(*late, best=19), epochs=20)
    assert "by 1.00 nats in the last epoch" in said(capsys, history(-3.0, -2.0, best=2), epochs=2)


@pytest.mark.parametrize(
    "bounds, best",
    [
        ([-100.0 + epoch for epoch in range(16)] + [-80.0] + [-84.0] * 3, 15),
        ([-100.0, -90.0, -89.95], 3),
        ([-100.0, -90.0], None),
        ([-100.0], 1),
    ],
    ids=["the best is earlier", "it hardly rises", "no validation", "one epoch"],
)
def test_a_bound_that_was_not_rising_is_no_reason_to_go_on(bounds, best, capsys: pytest.CaptureFixture):
    words = said(capsys, history(*bounds, best=best), epochs=len(bounds))
    assert "Careful" not in words
    assert "all epochs are done" in words


def test_a_model_that_is_worse_than_before_training_is_told_of_instead_of_a_rise(capsys: pytest.CaptureFixture):
    worse = replace(history(-900.0, -500.0, best=2), before=-45.0, after=-500.0)
    words = said(capsys, worse, epochs=2)
    assert words.count("Careful") == 1
    assert "worse than before training: the objective is -500 nats per data point on validation data" in words
    assert "was -45 before the first step" in words


SMALL = ["--epochs", "1", "--hidden", "4", "--latent-dim", "1"]


def fitted(capsys: pytest.CaptureFixture, tmp_path: Path, x: np.ndarray, *arguments: str) -> str:
    path = tmp_path / ("x.csv" if x.ndim == 2 else "x.npy")
    if x.ndim == 2:
        np.savetxt(path, x, delimiter=",", header="a,b", comments="", fmt="%g")
    else:
        np.save(path, x)
    assert run("fit", path, *SMALL, *arguments, "--out", tmp_path / "run") == 0
    return capsys.readouterr().out


def test_what_a_fit_says_of_constant_columns_and_of_far_values(tmp_path: Path, capsys: pytest.CaptureFixture):
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:, 1] = 5
    words = fitted(capsys, tmp_path, x, "--likelihood", "gaussian")
    assert "all training data have one value in b: such a column carries no information" in words
    assert "1,000 standard deviations" not in words
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:2, 0] = 1e6  # by the split of seed 0 at least one is trained on
    words = fitted(capsys, tmp_path, x, "--overwrite")  # as a table of mixed columns
    assert "Gradients are clipped at a norm of 100, so that the others count" in words
    assert "one value in" not in words
    assert "clipped" not in fitted(capsys, tmp_path, x, "--overwrite", "--clip", "10")


def test_epochs_that_are_few_for_the_rows_are_said_before_they_are_spent(tmp_path: Path, capsys: pytest.CaptureFixture):
    x = np.random.default_rng(0).normal(size=(60, 2))
    words = fitted(capsys, tmp_path, x)
    assert "Careful: 1 epoch of 3 steps: few for 48 examples, which get up to 1,334 epochs by default" in words
    assert "1 epoch, 3 steps in" in words
    for enough in (["--epochs", 300, "--patience", 1], ["--minutes", 0.001], ["--epochs", 2, "--minutes", 1]):
        arguments = ["--hidden", 4, "--latent-dim", 1, "--overwrite", "--out", tmp_path / "run", *enough]
        assert run("fit", tmp_path / "x.csv", *arguments) == 0
        assert "by default" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "dtype, said",
    [
        ("uint8", "integers are dequantized, so that log p(x) is a bound on the log-probability of their levels"),
        (
            "uint16",
            "give --likelihood poisson, for classes categorical; pixels with levels are arrays of bytes, uint8)",
        ),
        ("int64", "give --likelihood poisson, for classes categorical; pixels with levels are arrays of bytes, uint8)"),
    ],
)
def test_what_a_fit_says_of_arrays_of_integers(dtype: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    x = np.random.default_rng(0).integers(0, 255, (30, 4, 4)).astype(dtype)
    assert said in fitted(capsys, tmp_path, x)


def test_a_number_of_classes_for_each_column_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    x = np.stack([np.arange(60) % 3, np.arange(60) % 50], axis=1)
    fitted(capsys, tmp_path, x, "--likelihood", "categorical", "--num-classes", "3,50")
    run("sample", tmp_path / "run", "--num", "2000", "--out", tmp_path / "s.npy")
    rows = np.load(tmp_path / "s.npy")
    assert rows.max(0).tolist() == [2, 49]


@pytest.mark.parametrize(
    ("rate", "active", "said"),
    [(0.05, 3, "collapsed to the prior"), (16.7, 0, "no latent dimension is active"), (16.7, 5, None)],
)
def test_latents_that_carry_something_are_not_called_collapsed(rate: float, active: int, said: str | None):
    result = {"rate": rate, "active_units": active, "num_samples": 10, "median_ess": 10.0, "at_floor": 0.0}
    cautions = list(_cautions(result, run_config("bernoulli"), Path("run")))
    assert len(cautions) == (said is not None)
    assert all(said in caution and f"rate {rate:.3f} nats" in caution for caution in cautions if said)
    assert not any("collapsed" in caution for caution in cautions if rate > 1)


def test_impute_names_the_rows_whose_weights_say_little(capsys: pytest.CaptureFixture):
    """Neither rows without gaps nor such as have gaps only; by their number in the file, the poorest first."""
    gap = float("nan")
    x = torch.tensor([[1.0, gap], [gap, gap], [1.0, 2.0], [gap, 1.0], [2.0, gap]])
    effective = torch.tensor([9.9, 1.0, 1.0, 1.5, 10.0])
    _say_what_to_know(Split(x), effective, None, 100)
    assert "of 2 rows are worth fewer than 10 samples, fewest in rows 4, 1: their draws" in capsys.readouterr().out
    of_part = Split(x, rows=torch.tensor([71, 30, 12, 5, 88]))
    _say_what_to_know(of_part, effective - torch.tensor([0, 0, 0, -20, 0]), None, 100)
    said = capsys.readouterr().out
    assert "of 1 row are worth fewer than 10 samples, fewest in row 71:" in said
    assert "--num-samples 1000" in said
    _say_what_to_know(Split(x), torch.full((5,), 10.0), None, 100)
    assert capsys.readouterr().out == ""


def test_the_weight_of_the_kl_is_named_where_training_ended_before_it_was_1(capsys: pytest.CaptureFixture):
    whole = history(*[-100.0] * 20, best=20, stopped_by="minutes")
    assert "KL" not in said(capsys, whole, minutes=1.0)
    cut = replace(whole, epochs=(*whole.epochs[:-1], replace(whole.epochs[-1], kl_weight=0.321)))
    words = said(capsys, cut, minutes=1.0)
    assert "when the KL's weight had risen to 0.32 of 1" in words
    assert "--kl-warmup-epochs 4" in words
