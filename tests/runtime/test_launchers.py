"""What launchers say of the processes that they start, and what contradicts them."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command_line import assert_refused
from subo.errors import InputError
from subo.runs.run import Run
from subo.runtime.devices import make_fabric
from subo.runtime.jobs import Job, run_jobs
from subo.runtime.launchers import Launched, launched
from subo.runtime.processes import is_first

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29400",
}
SRUN = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[011,015]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SUBO_FIRST_PROCESS", raising=False)


def test_the_variables_of_torchrun_and_of_srun_say_the_same():
    expected = Launched("torchrun", 4, 2, rank=3, local_rank=1, address="10.0.0.1", port="29400")
    assert launched(TORCHRUN) == expected
    assert expected.nodes == 2
    assert launched(SRUN) == replace(expected, by="srun", address="node011", port="19567")
    assert launched({**SRUN, **{name: TORCHRUN[name] for name in ("MASTER_ADDR", "MASTER_PORT")}}) == replace(
        expected, by="srun"
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # the script of a job, without srun
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {**TORCHRUN, "SUBO_FIRST_PROCESS": "17"},
    ],
)
def test_one_process_and_those_that_subo_starts_have_no_launcher(environment: dict[str, str]):
    assert launched(environment) is None


def test_machines_with_different_numbers_of_processes_are_refused():
    with pytest.raises(InputError, match=r"5 processes, 2 of them on this machine.*same number"):
        _ = Launched("torchrun", 5, 2, rank=0, local_rank=0, address="", port="").nodes


@pytest.mark.usefixtures("under_torchrun")
def test_fabric_gets_the_machines_of_the_launcher(monkeypatch: pytest.MonkeyPatch):
    fabric: Any = make_fabric(device="cpu")
    assert (fabric.world_size, type(fabric.strategy).__name__) == (4, "DDPStrategy")
    assert fabric.strategy.num_processes == 2
    assert not is_first()
    monkeypatch.setenv("RANK", "0")
    assert is_first()


@pytest.mark.usefixtures("under_torchrun")
def test_what_contradicts_the_launcher_is_refused(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    message = assert_refused(capsys, "fit", "digits", "--processes", "2")
    assert "--processes is 2, but torchrun started 4 for this run" in message
    message = assert_refused(capsys, "evaluate", "nothing")
    assert "torchrun started 4 processes of 'subo evaluate'" in message
    with pytest.raises(InputError, match="run the command without torchrun"):
        run_jobs([Job("one", ("show",))])


OPTIONS = [
    *("--epochs", "2", "--precision", "64-true", "--device", "cpu", "--threads", "1"),
    *("--evaluation-samples", "5", "--measure", "validation", "--quiet"),
]
FIT = [sys.executable, "-m", "subo", "fit", "digits", *OPTIONS]


def find_unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_together(commands: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    """What each command printed, when all have ended well."""
    processes = [
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=-1, stderr=subprocess.STDOUT, text=True)
        for command, environment in zip(commands, environments, strict=True)
    ]
    said = [process.communicate(timeout=1200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torchrun's agents are started as on a cluster")
def test_two_machines_give_the_numbers_of_one_process(tmp_path: Path):
    """Two agents of torchrun on this machine, with a process each, and two processes with the variables of srun."""
    unused_port = find_unused_port()
    outs = {name: tmp_path / name for name in ("one", "torchrun", "srun")}
    said = run_together([[*FIT, "--out", str(outs["one"])]], [{}])
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    agent += ["--master-addr=127.0.0.1", f"--master-port={unused_port}"]
    agent += ["--redirects=3"]  # what subo prints goes to files: an agent may complain that the other one left first
    logs = [tmp_path / f"log-{n}" for n in range(2)]
    agents = [
        [*agent, f"--node-rank={n}", f"--log-dir={logs[n]}", *FIT[1:], "--out", str(outs["torchrun"])] for n in range(2)
    ]
    run_together(agents, [{"OMP_NUM_THREADS": "1"}] * 2)
    printed = [path.read_text() for log in logs for path in log.rglob("std*.log")]
    assert len(printed) == 4
    said += printed
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1,127.0.0.2",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(unused_port),
    }
    said += run_together(
        [[*FIT, "--out", str(outs["srun"])]] * 2, [{**step, "SLURM_PROCID": n, "SLURM_NODEID": n} for n in "01"]
    )
    assert not any(text.strip() for text in said), said
    one = Run(outs["one"]).read_metrics()
    for name, out in outs.items():
        for a, b in zip(one, Run(out).read_metrics(), strict=True):
            for part in ("train", "validation"):
                assert b[part]["bound"] == pytest.approx(a[part]["bound"], rel=1e-9), name
        assert Run(out).evaluation_of("validation").exists()
    assert Run(outs["torchrun"]).read_config().device.processes == 2
