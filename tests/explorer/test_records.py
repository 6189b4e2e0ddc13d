"""What a page is told of ladders, of sequences, and of another run beside its own."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import run
from subo.core.context import repeat
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation.comparison import compare
from subo.evaluation.forecasting import forecast
from subo.experiments.experiment import open_run
from subo.explorer.beside import beside_record
from subo.explorer.forecasts import forecasts_record
from subo.explorer.layered import layers_record
from subo.recipes import deep_markov, ladder, vae
from subo.runtime.randomness import forked

PLAIN = {"factor": 1.0, "shift": 0.0}


def unpacked(record: dict[str, Any]) -> np.ndarray:
    kinds = {"u8": "u1", "f16": "<f2", "f32": "<f4"}
    return np.frombuffer(base64.b64decode(record["base64"]), kinds[record["type"]]).reshape(record["shape"])


# Layers


def small_ladder() -> Any:
    torch.manual_seed(1)
    return ladder((1, 4, 4), likelihood="bernoulli", latent_dims=(2, 3), hidden=(8, 8)).model.eval()


def test_with_all_layers_a_picture_is_the_mean_under_the_posterior_and_with_the_top_alone_it_is_not():
    model, few = small_ladder(), Split(torch.rand(5, 1, 4, 4).round())
    record = layers_record(model, few, PLAIN)
    assert record is not None
    assert record["names"] == ["z2", "z1"]
    x, context = few.read(torch.arange(5))
    with forked(0), torch.no_grad():
        z = model.draw(x, context, num_samples=16, path=False).z
        rows = {name: leaf.flatten(0, 1) for name, leaf in z.items()}
        mean = model.decode(rows, repeat(context, 16)).mean.unflatten(0, (16, 5)).mean(0)
    shades = unpacked(record["shades"]) / 255
    np.testing.assert_allclose(shades[1], mean.numpy(), atol=0.51 / 255)
    assert np.abs(shades[0] - shades[1]).max() > 0.01


def test_pictures_are_shades():
    model, few = small_ladder(), Split(torch.zeros(2, 1, 4, 4))
    plain, shaded = (layers_record(model, few, how) for how in (PLAIN, {"factor": 2.0, "shift": -0.5}))
    assert plain is not None
    assert shaded is not None
    expected = (unpacked(plain["shades"]) * (2 / 255) - 0.5).clip(0, 1)
    np.testing.assert_allclose(unpacked(shaded["shades"]) / 255, expected, atol=2 / 255)


def test_other_models_and_other_data_have_no_layers_to_show():
    assert layers_record(vae((3,), latent_dim=2, likelihood="gaussian").model, Split(torch.zeros(4, 3)), PLAIN) is None


# Forecasts


def test_the_forecast_is_of_the_last_quarter_from_what_precedes():
    torch.manual_seed(0)
    model = deep_markov((2,), likelihood="gaussian", latent_dim=2).model.eval()
    sequences = [torch.randn(12, 2), torch.randn(3, 2), torch.randn(400, 2)]
    record = forecasts_record(model, Split.from_sequences(sequences))
    assert record is not None
    first, short, long = record["sequences"]
    assert (first["first"], first["steps"], short["steps"]) == (0, 3, 0)
    assert "mean" not in short
    assert (long["steps"], long["first"]) == (48, 400 - 4 * 48)
    np.testing.assert_allclose(unpacked(first["x"]), sequences[0], rtol=1e-3, atol=1e-3)
    ahead = forecast(model, Split.from_sequences([sequences[0][:9]]), steps=3, num_samples=200, coverage=0.9)
    for name in ("mean", "lower", "upper"):
        np.testing.assert_allclose(unpacked(first[name]), getattr(ahead, name)[0], rtol=1e-3, atol=1e-3)


def test_there_is_no_forecast_from_nothing_that_was_observed():
    model = deep_markov((2,), likelihood="gaussian", latent_dim=2).model.eval()
    sequence = torch.full((12, 2), torch.nan)
    sequence[-1] = 1.0
    record = forecasts_record(model, Split.from_sequences([sequence]))
    assert record is not None
    assert record["sequences"][0]["steps"] == 0


def test_without_a_chain_there_is_no_forecast():
    assert forecasts_record(vae((3,), latent_dim=2, likelihood="gaussian").model, Split(torch.zeros(4, 3))) is None


# Another run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    table = folder / "x.npy"
    np.save(table, np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    short = ["--epochs", 2, "--hidden", 8, "--evaluation-samples", 5, "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        for name, dim in (("a", 1), ("b", 2)):
            assert run("fit", table, "--out", folder / name, "--latent-dim", dim, *short) == 0
    return folder / "a", folder / "b"


def test_two_runs_have_the_numbers_of_their_comparison(two: tuple[Path, Path]):
    record = beside_record(*two, num_samples=20)
    first, second = map(open_run, two)
    data = load_data(two[0].parent / "x.npy")
    own = compare({"a": first.model, "b": second.model}, data.test, num_samples=20)
    assert record["names"] == ["a", "b"]
    assert record["count"] == len(data.test)
    for name in ("log_px", "elbo", "rate", "distortion"):
        estimates = [getattr(row, name) for row in own.rows]
        assert record["numbers"][name] == [[estimate.mean, estimate.standard_error] for estimate in estimates]
    difference = own.rows[1].log_px_difference
    assert difference is not None
    assert record["differences"]["log_px"] == [difference.mean, difference.standard_error]
    assert ["latent_dim", "1", "2"] in record["settings"]
    assert record["samples"][0]["shape"] == [8, 3]


def test_a_report_of_two_runs(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.html"
    assert run("report", two[0], "--out", page, "--beside", two[1], "--num-samples", 5) == 0
    assert '"beside":{"names":["a","b"]' in page.read_text()
    capsys.readouterr()
    assert run("report", two[0], "--out", page, "--num-samples", 5) == 2
    assert "--beside" in capsys.readouterr().err
    assert run("report", two[0], "--out", page, "--beside", two[1], "--split", "train") == 2
    assert run("report", two[0], "--out", page, "--beside", two[0]) == 2
    assert "same run" in capsys.readouterr().err
