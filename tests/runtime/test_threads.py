"""Threads of a fit on the CPU."""

from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import run
from subo.experiments import fitting
from subo.runtime.threads import suited_threads, with_threads


@pytest.fixture
def four():
    """A torch with four threads, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "module, rows, threads",
    [
        (nn.Linear(128, 128), 256, 1),
        (nn.Linear(256, 256), 256, 1),
        (nn.Linear(256, 256), 1024, None),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(784, 500)), 250, None),
        (nn.Conv2d(1, 2, 3), 10, None),
        (nn.ReLU(), 10, 1),
    ],
    ids=["small", "a table's", "many rows", "wide", "convolution", "no parameters"],
)
def test_a_small_model_takes_one_thread(module: nn.Module, rows: int, threads: int | None):
    assert suited_threads(module, rows) == threads


def test_threads_are_given_back(four: None):
    with with_threads(1):
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), with_threads(2):
        _ = 1 / 0
    assert torch.get_num_threads() == 4
    with with_threads(None):
        assert torch.get_num_threads() == 4


@pytest.mark.parametrize("asked, taken", [([], 1), (["--threads", 3], 3)], ids=["by itself", "asked for"])
def test_a_fit_takes_what_suits_it_or_what_is_asked_for(
    asked: list, taken: int, four: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    found, plain = [], fitting.fit

    @wraps(plain)
    def fit(*given, **named):
        found.append(torch.get_num_threads())
        return plain(*given, **named)

    monkeypatch.setattr(fitting, "fit", fit)
    short = ["--epochs", 1, "--evaluation-samples", 5, "--quiet"]
    assert run("fit", tmp_path / "x.npy", "--out", tmp_path / "run", *short, *asked) == 0
    assert found == [taken]


def test_no_thread_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "x.npy", np.zeros((40, 3), dtype=np.float32))
    assert run("fit", tmp_path / "x.npy", "--out", tmp_path / "run", "--threads", 0) == 2
    assert "--threads" in capsys.readouterr().err
