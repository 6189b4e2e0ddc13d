"""Two processes do what one does: the gradient of the whole batch, and its means; and none outlives the first."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from subo.runs.run import Run
from subo.runtime.processes import is_first, keep_together

pytestmark = pytest.mark.slow

WORKER = '''
import sys
import torch
from subo import VAE, Bernoulli, Conditional, Gaussian, Objective, StandardNormal, fit, mlp
from subo.data import Data
from subo.data.dataset import split
from subo.data.splits import Split
from subo.recipes import deep_markov
from subo.runtime.devices import make_fabric

def one_run(out, fabric, updates):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((203, 5), 0.5), generator=torch.Generator().manual_seed(0))
    data = Data("bits", *split(x), kind="binary")
    encoder = Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))
    model = VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,))), encoder)
    objective = Objective(model, num_samples=2).double()
    epochs, batch_size = (3, 54) if updates == "joint" else (6, 9)
    fit(objective, data, epochs=epochs, batch_size=batch_size, optimizer="SGD", learning_rate=0.1, fabric=fabric,
        run_dir=out, updates=updates)
    if fabric.is_global_zero:
        torch.save(objective.state_dict(), out + "/weights.pt")

def in_windows(out, fabric):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (13,), generator=generator)
    data = Split(torch.randn(int(lengths.sum()), 3, generator=generator), lengths=lengths)
    sizes = {"latent_dim": 2, "reader_hidden": 4, "transition_hidden": 4, "hidden": (4,)}
    objective = deep_markov((3,), likelihood="gaussian", **sizes).double()
    fit(objective, data, validation=data, epochs=3, batch_size=4, optimizer="SGD", learning_rate=0.01, fabric=fabric,
        run_dir=out, window=3)
    if fabric.is_global_zero:
        torch.save(objective.state_dict(), out + "/weights.pt")

class Stop(Exception):
    """Stands for a crash of both processes."""

def stopped_and_resumed(out, fabric, crash_at):
    """Trains on noisy latents; where it crashes, a second call goes on from the checkpoint."""
    x = torch.bernoulli(torch.full((203, 5), 0.5), generator=torch.Generator().manual_seed(0))
    data = Data("bits", *split(x), kind="binary")
    calls = 0

    class Crashing(Objective):
        def forward(self, *given, **named):
            nonlocal calls
            calls += self.training
            if calls == crash_at:
                raise Stop
            return super().forward(*given, **named)

    for kind, resume in ((Crashing, False), (Objective, True))[: 2 if crash_at else 1]:
        torch.manual_seed(int(resume))  # the second has other first weights: all must come from the checkpoint
        encoder = Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))
        objective = kind(VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,))), encoder))
        objective.double()
        try:
            fit(objective, data, epochs=3, batch_size=54, fabric=fabric, run_dir=out, checkpoint_minutes=1e-9,
                resume=resume)
        except Stop:
            continue
    if fabric.is_global_zero:
        torch.save(objective.state_dict(), out + "/weights.pt")

if __name__ == "__main__":
    torch.set_num_threads(1)
    fabric = make_fabric(device="cpu", precision="64-true", processes=int(sys.argv[2]))
    fabric.launch()
    for updates in ("joint", "aggressive"):  # one start for both: it takes longer than they do
        one_run(sys.argv[1] + "/" + updates, fabric, updates)
    in_windows(sys.argv[1] + "/windows", fabric)
    if fabric.world_size == 2:
        stopped_and_resumed(sys.argv[1] + "/whole", fabric, crash_at=None)
        stopped_and_resumed(sys.argv[1] + "/resumed", fabric, crash_at=7)  # in the second of its three epochs
'''


Runs = dict[int, Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Folders of the runs that one process made, and two."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "worker.py"
    script.write_text(WORKER)
    made = {processes: folder / str(processes) for processes in (1, 2)}
    for processes, out in made.items():
        command = [sys.executable, str(script), str(out), str(processes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    return made


def read(out: Path) -> tuple[dict, list[dict]]:
    return torch.load(out / "weights.pt", weights_only=True), Run(out).read_metrics()


@pytest.mark.skipif(sys.platform == "win32", reason="the gloo launcher needs POSIX processes")
@pytest.mark.parametrize("updates", ["joint", "aggressive", "windows"])
def test_two_processes_take_the_steps_and_report_the_means_of_one(runs: Runs, updates: str):
    """Batches of 54 (or 9) of 163 examples, shared unevenly in the last batch of one, whose second share is empty.

    Or of 4 of 13 sequences, in windows of 3 steps.
    """
    (one, one_metrics), (two, two_metrics) = (read(runs[processes] / updates) for processes in (1, 2))
    rtol, atol = (1e-6, 1e-7) if updates == "aggressive" else (1e-9, 1e-12)  # after more steps
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=rtol, atol=atol)
    for a, b in zip(one_metrics, two_metrics, strict=True):
        assert (a["step"], a["updates"]) == (b["step"], b["updates"])
        for part in ("train", "validation"):
            for name in ("bound", "elbo", "rate", "distortion"):
                assert b[part][name] == pytest.approx(a[part][name], rel=rtol)


@pytest.mark.skipif(sys.platform == "win32", reason="the gloo launcher needs POSIX processes")
def test_two_processes_that_were_stopped_in_an_epoch_go_on_as_if_they_had_not(runs: Runs):
    """Each with its own random state and its own sums over the epoch's data."""
    (whole, whole_metrics), (resumed, resumed_metrics) = (read(runs[2] / name) for name in ("whole", "resumed"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    for a, b in zip(whole_metrics, resumed_metrics, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


FIRST = """
import os, subprocess, sys, time
from subo.runtime.processes import keep_together

if os.environ.get("LOCAL_RANK") == "1":
    time.sleep(float(sys.argv[1]))
    keep_together()
    print("ready", flush=True)
    time.sleep(60)
keep_together()
other = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, "LOCAL_RANK": "1"})
print(other.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("import_seconds", [0.0, 1.0], ids=["while it works", "before it watches"])
def test_no_process_outlives_the_first(import_seconds: float):
    command = [sys.executable, "-c", FIRST, str(import_seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert first.stdout is not None
    other = int(first.stdout.readline())
    if not import_seconds:
        assert first.stdout.readline() == "ready\n"
    first.kill()
    first.wait()
    deadline = time.monotonic() + 10
    while is_running(other) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(other)
    first.stdout.close()


def is_running(pid: int) -> bool:
    """Whether there is such a process that is no zombie, which is all of it that a container without an init keeps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        if Path("/proc").exists():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_port_in_use_is_not_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("SUBO_FIRST_PROCESS", "1")  # taken back after the test
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(taken))
        keep_together()
        assert "MASTER_PORT" not in os.environ
    monkeypatch.setenv("MASTER_PORT", str(taken))
    keep_together()
    assert os.environ["MASTER_PORT"] == str(taken)
    assert is_first()
