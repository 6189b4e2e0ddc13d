"""Processes that a launcher, such as torchrun or srun, has started for one run, on one machine or on several."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from subo.errors import InputError

__all__ = ["Launched", "launched"]

STARTED_BY_SUBO = "SUBO_FIRST_PROCESS"
"""The environment variable in which processes that subo starts find the first one's number."""


@dataclass(frozen=True)
class Launched:
    """This process among those of a launcher.

    Attributes:
        by: Name of the launcher.
        processes: Number of processes of the run.
        per_node: Number of them on this machine.
        rank: Number of this process, from 0.
        local_rank: Its number on this machine, from 0.
        address: Host of process 0.
        port: The port at which it is reached.
    """

    by: str
    processes: int
    per_node: int
    rank: int
    local_rank: int
    address: str
    port: str

    @property
    def nodes(self) -> int:
        """Number of machines.

        Raises:
            InputError: They have different numbers of processes.
        """
        if self.processes % self.per_node:
            raise InputError(
                f"{self.by} started {self.processes} processes, {self.per_node} of them on this machine: all machines "
                "need the same number. Give each as many"
            )
        return self.processes // self.per_node

    def checked(self, processes: int | None) -> int:
        """The number of processes, if a requested one does not contradict it.

        Raises:
            InputError: It does.
        """
        if processes not in (None, self.processes):
            raise InputError(
                f"`processes` is {processes}, but {self.by} started {self.processes} for this run. The launcher "
                f"decides: leave `processes` out, or let {self.by} start {processes}"
            )
        return self.processes

    def announce(self) -> None:
        """Sets the environment variables that torch reads, where the launcher has others."""
        known = {
            "RANK": self.rank,
            "LOCAL_RANK": self.local_rank,
            "WORLD_SIZE": self.processes,
            "LOCAL_WORLD_SIZE": self.per_node,
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
        }
        for name, value in known.items():
            os.environ.setdefault(name, str(value))


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """What a launcher says in the environment; None if it started one process, or if subo started the others itself.

    Args:
        environment: Environment variables; by default this process's.

    Example:
        >>> srun = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "gpu[07-08]"}
        >>> one = launched(srun | {"SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_ID": "123456"})
        >>> one.processes, one.nodes, one.rank, one.address, one.port
        (4, 2, 3, 'gpu07', '18456')
    """
    known = os.environ if environment is None else environment
    if STARTED_BY_SUBO in known:
        return None
    found = _of_torch(known) or _of_slurm(known)
    return None if found is None or found.processes == 1 else found


def _of_torch(known: Mapping[str, str]) -> Launched | None:
    """The variables of torchrun, which others set, too."""
    if not all(name in known for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")):
        return None
    size = int(known["WORLD_SIZE"])
    return Launched(
        by="torchrun" if "TORCHELASTIC_RUN_ID" in known else "the launcher",
        processes=size,
        per_node=int(known.get("LOCAL_WORLD_SIZE", size)),
        rank=int(known["RANK"]),
        local_rank=int(known["LOCAL_RANK"]),
        address=known["MASTER_ADDR"],
        port=known.get("MASTER_PORT", "29500"),
    )


def _of_slurm(known: Mapping[str, str]) -> Launched | None:
    """The variables of a step of srun; a batch script itself is one process, whatever its job may start."""
    if not all(name in known for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")):
        return None
    size, nodes = int(known["SLURM_STEP_NUM_TASKS"]), int(known.get("SLURM_STEP_NUM_NODES", 1))
    return Launched(
        by="srun",
        processes=size,
        per_node=max(1, size // nodes),
        rank=int(known["SLURM_PROCID"]),
        local_rank=int(known["SLURM_LOCALID"]),
        address=known.get("MASTER_ADDR", _first_host(known.get("SLURM_STEP_NODELIST", "127.0.0.1"))),
        port=known.get("MASTER_PORT", str(15_000 + int(known.get("SLURM_JOB_ID", "0")[-4:]))),
    )


def _first_host(hosts: str) -> str:
    """The first of hosts as SLURM writes them: ``gpu[07-08,11],cpu1``.

    Example:
        >>> _first_host("gpu[07-08,11],cpu1"), _first_host("a1,a2"), _first_host("n[3]-ib")
        ('gpu07', 'a1', 'n3-ib')
    """
    first = re.match(r"[^,\[]*(\[[^\]]*\][^,]*)?", hosts)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0] if first else hosts)
