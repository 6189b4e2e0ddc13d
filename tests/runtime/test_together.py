"""A process that is lost ends the others within a minute, with one message, and the run goes on from its checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from subo.errors import InputError, ProcessLostError
from subo.runs.run import Run
from subo.runtime.together import Together


@pytest.fixture(autouse=True)
def first_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SUBO_FIRST_PROCESS", raising=False)


def among(*sources: str) -> Any:
    """A Fabric that has started processes, each of which runs some Python."""
    started = [subprocess.Popen([sys.executable, "-c", source]) for source in sources]
    launcher = SimpleNamespace(procs=started)
    return SimpleNamespace(
        world_size=1 + len(sources), global_rank=0, local_rank=0, strategy=SimpleNamespace(launcher=launcher)
    )


KILLED = "import os; os.kill(os.getpid(), 9)"
WAITS = "import time; time.sleep(60)"
BROKEN = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3456"


def left() -> str:
    return "All is whole."


@pytest.mark.parametrize(
    ("source", "code", "what"),
    [(KILLED, 137, r"was ended by SIGKILL \(signal 9\).*memory"), ("exit(3)", 3, "has failed, with exit code 3")],
)
def test_the_process_behind_a_broken_connection_is_named_and_the_others_end(source: str, code: int, what: str):
    fabric = among(WAITS, source)
    processes = list(fabric.strategy.launcher.procs)
    with (
        pytest.raises(ProcessLostError, match=rf"process 3 of 3 {what}.*All is whole\.$") as lost,
        Together(fabric, left),
    ):
        raise RuntimeError(BROKEN)
    assert lost.value.code == code
    assert [process.wait(timeout=60) for process in processes] == [-9, -9 if source is KILLED else 3]
    assert not fabric.strategy.launcher.procs  # which Fabric would watch, and end all without a word


def test_errors_of_other_causes_stay_what_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("subo.runtime.together._PATIENCE", 0.1)
    for error in (InputError("a mistake"), ZeroDivisionError("a bug")):
        fabric = among(WAITS)
        (process,) = fabric.strategy.launcher.procs
        with pytest.raises(type(error)) as raised, Together(fabric, left):
            time.sleep(0.5)  # until the process is known
            raise error
        assert raised.value is error
        assert process.wait(timeout=60) == -9  # it waits for nothing


def test_a_training_that_ends_leaves_the_others_to_end_by_themselves():
    fabric = among("import time; time.sleep(1)")
    (process,) = fabric.strategy.launcher.procs
    with Together(fabric, left):
        time.sleep(0.5)
    assert process.wait(timeout=60) == 0


def test_a_process_of_a_launcher_says_that_another_is_lost(monkeypatch: pytest.MonkeyPatch):
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    joined = Together(SimpleNamespace(world_size=2, global_rank=0), left)  # pyright: ignore[reportArgumentType]
    with (
        pytest.raises(ProcessLostError, match="process 1 of 2 lost the connection.*torchrun says.*whole") as lost,
        joined,
    ):
        raise RuntimeError(BROKEN)
    assert lost.value.code == 1
    with pytest.raises(RuntimeError, match="shapes"), joined:
        raise RuntimeError("shapes do not match")


HANGS = f"""
import subprocess, sys, time
from types import SimpleNamespace
from subo.runtime import together

together._GRACE = 0.5
process = subprocess.Popen([sys.executable, "-c", {KILLED!r}])
strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[process]))
with together.Together(SimpleNamespace(world_size=2, strategy=strategy), lambda: "All is whole."):
    time.sleep(60)  # as a GPU waits for numbers of another
"""


def test_a_process_that_waits_in_vain_is_ended():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=150, env=environment())
    assert done.returncode == 137
    assert done.stderr.startswith("subo: process 2 of 2 was ended by SIGKILL")
    assert done.stderr.count("\n") == 1


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


FIT = [sys.executable, "-m", "subo", "fit"]
OPTIONS = [
    *("digits", "--device", "cpu", "--threads", "1", "--precision", "64-true", "--batch-size", "100"),
    *("--decay", "constant", "--warmup-epochs", "0", "--kl-warmup-epochs", "0"),  # whatever the number of epochs
    *("--measure", "validation", "--evaluation-samples", "5", "--quiet"),
]


def started_by(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_a_training_whose_process_was_killed_goes_on_in_another_number_of_processes(tmp_path: Path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    two = ["--processes", "2", "--epochs", "100000", "--checkpoint-minutes", "0.001", "--out", str(out)]
    first = subprocess.Popen([*FIT, *OPTIONS, *two], stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 900
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    (other,) = started_by(first.pid)
    os.kill(other, signal.SIGKILL)
    message = first.communicate(timeout=120)[1]
    assert first.returncode == 137
    assert message.startswith("subo: process 2 of 2 was ended by SIGKILL (signal 9)")
    assert message.endswith(f"That is: subo fit --resume --out {out}\n")
    step = Run(out).load_checkpoint()["step"]
    assert f"The checkpoint of step {step}, in epoch {step // 15 + 1}, is whole" in message

    epochs = str(step // 15 + 2)
    for command in (["--resume", "--processes", "1", "--out", str(out)], [*OPTIONS, "--out", str(whole)]):
        quiet = ["--quiet", "--measure", "validation"] if "--resume" in command else []
        subprocess.run([*FIT, *command, *quiet, "--epochs", epochs], check=True, timeout=900, env=environment())
    for a, b in zip(Run(whole).read_metrics(), Run(out).read_metrics(), strict=True):
        for part in ("train", "validation"):
            assert b[part]["bound"] == pytest.approx(a[part]["bound"], rel=1e-8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_the_others_report_that_the_first_process_was_killed(tmp_path: Path):
    two = ["--processes", "2", "--epochs", "100000", "--checkpoint-minutes", "0.001", "--out", str(tmp_path)]
    first = subprocess.Popen([*FIT, *OPTIONS, *two, "--overwrite"], stderr=-1, text=True, env=environment())
    deadline = time.monotonic() + 900
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    first.kill()
    message = first.communicate(timeout=120)[1]  # until the last process that could write there has ended
    assert message.startswith("subo: the first of 2 processes was ended by a signal, most likely SIGKILL")
    assert "is whole: resume the run" in message
    assert message.count("\n") == 1
