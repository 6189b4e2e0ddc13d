"""Two processes do what one does: the gradient of the whole batch, and its means."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from subo.runs import Run

WORKER = '''
import sys
import torch
from torch import nn
from subo import VAE, Bernoulli, Conditional, Gaussian, Objective, StandardNormal, fit, mlp
from subo.data import Data
from subo.splitting import split
from subo.devices import make_fabric

class Encoder(nn.Module):
    """q(z|x) without noise: two processes draw other noise than one, and nothing else may differ."""
    def __init__(self):
        super().__init__()
        self.network = mlp(5, 2, hidden=(8,))
    def forward(self, x):
        scale = torch.full((len(x), 2), 1e-12, dtype=x.dtype)
        return torch.distributions.Independent(torch.distributions.Normal(self.network(x), scale), 1)

def one_run(out, fabric, updates):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((203, 5), 0.5), generator=torch.Generator().manual_seed(0))
    data = Data("bits", *split(x), kind="binary")
    objective = Objective(VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,))), Encoder()))
    objective.double()
    epochs, batch_size = (3, 54) if updates == "joint" else (15, 9)
    fit(objective, data, epochs=epochs, batch_size=batch_size, optimizer="SGD", learning_rate=0.1, fabric=fabric,
        run_dir=out, updates=updates)
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
@pytest.mark.parametrize("updates", ["joint", "aggressive"])
def test_two_processes_take_the_steps_and_report_the_means_of_one(runs: Runs, updates: str):
    """Batches of 54 (or 9) of 163 data, shared unevenly in the last batch of one, whose second share is empty."""
    (one, one_metrics), (two, two_metrics) = (read(runs[processes] / updates) for processes in (1, 2))
    rtol, atol = (1e-9, 1e-12) if updates == "joint" else (1e-6, 1e-7)  # after more steps
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
