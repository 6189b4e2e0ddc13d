"""Runs that are stopped, and go on to the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from command_line import assert_refused, run
from shapes import unchecked_shapes

pytestmark = pytest.mark.slow

LONG = [
    "--latent-dim",
    2,
    "--hidden",
    16,
    "--binarize",
    "dynamic",
    "--epochs",
    12,
    "--evaluation-samples",
    5,
    "--quiet",
]


def start(out: Path, *options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "subo", "fit", "digits", "--out", out, *LONG, *options]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch, unchecked_shapes():
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", "digits", "--out", out, *LONG) == 0
    return load_file(out / "model.safetensors")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
@unchecked_shapes()
def test_a_stopped_run_goes_on_to_the_same_weights(
    number: signal.Signals, code: int, tmp_path: Path, uninterrupted: dict[str, torch.Tensor], capsys
):
    out = tmp_path / "run"
    checkpoint_minutes = 0.01 if number == signal.SIGKILL else 10
    process = start(out, "--checkpoint-minutes", checkpoint_minutes)
    wait_for(out / "checkpoint.pt" if number == signal.SIGKILL else out / "metrics.jsonl")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == code, stderr
    if number != signal.SIGKILL:
        assert "That is: subo fit --resume" in stderr
    assert not (out / "model.safetensors").exists()
    assert "--beta" in assert_refused(capsys, "fit", "--resume", "--out", out, "--beta", 2)
    assert run("fit", "--resume", "--out", out, "--quiet", "--evaluation-samples", 5) == 0
    resumed = load_file(out / "model.safetensors")
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in uninterrupted.items())
