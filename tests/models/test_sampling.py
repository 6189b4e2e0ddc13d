"""New data of a model: some at a time, and no more than memory holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import subo
from command_line import assert_refused, run
from subo.models.folding import draw_data


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    small = ["--hidden", 8, "--latent-dim", 2, "--epochs", 1, "--evaluation-samples", 5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", "digits", "--out", out, "--quiet", *small) == 0
    return out


@pytest.mark.parametrize("elements, steps, at_a_time", [(5, 1, 1000), (4000, 1, 500), (5, 1000, 300)])
def test_data_are_drawn_some_at_a_time(elements: int, steps: int, at_a_time: int):
    model: Any = subo.probabilistic_pca(5, 2)
    drawn, own = [], model.sample
    model.sample = lambda num, context: drawn.append((num, context["label"].tolist())) or own(num)
    x = draw_data(model, 1100, {"label": torch.arange(1100)}, elements=elements, steps=steps)
    assert x.shape == (1100, 5)
    assert len(x.unique()) > 5000
    assert [num for num, _ in drawn][:-1] == [at_a_time] * (1100 // at_a_time - (1100 % at_a_time == 0))
    assert [label for _, labels in drawn for label in labels] == list(range(1100))


@pytest.mark.parametrize("bytes_free, fits", [(9 * 64 * 70 - 1, False), (9 * 64 * 70, True)])
def test_more_samples_than_memory_holds_are_refused_before_one_is_drawn(
    fitted: Path, tmp_path: Path, bytes_free: int, fits: bool, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
):
    """What is drawn of dequantized data, the same floored, and as bytes: 9 bytes a number."""
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: bytes_free)
    out = tmp_path / "s.npy"
    if fits:
        assert run("sample", fitted, "-n", 70, "--out", out) == 0
        assert len(np.load(out)) == 70
        return
    monkeypatch.setattr("subo.models.folding.draw_data", None)
    refusal = assert_refused(capsys, "sample", fitted, "-n", 70, "--out", out)
    assert "70 samples of 64 numbers each takes about 4e-05 GB" in refusal
    assert "Lower --num." in refusal


def test_an_estimator_refuses_more_rows_than_memory_holds(monkeypatch: pytest.MonkeyPatch):
    X = np.random.default_rng(0).normal(size=(20, 3))
    model = subo.VariationalAutoencoder(hidden=(4,), epochs=1, random_state=0).fit(X)
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: 8 * 3 * 50)
    assert model.sample(50).shape == (50, 3)
    with pytest.raises(subo.InputError, match=r"51 samples of 3 numbers .* Lower n_samples\."):
        model.sample(51)
