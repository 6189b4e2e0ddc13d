"""Several commands of subo, each in a process of its own, some at a time."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from subo.errors import InputError
from subo.runtime.interrupts import Stopped, stop_signals
from subo.runtime.launchers import launched

__all__ = ["Ended", "Job", "num_cores", "run_jobs"]

_LOOK = 0.05  # seconds between looks


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: What it is called in messages.
        words: The words after ``subo``.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        job: The command.
        code: Its exit code; 0 if it did what it was asked for.
        message: What it wrote to its standard error.
    """

    job: Job
    code: int
    message: str


def run_jobs(
    jobs: Sequence[Job], *, at_a_time: int | None = None, on_end: Callable[[Ended], object] | None = None
) -> list[Ended]:
    """Runs commands until all have ended, also if some fail.

    They have a session of their own: Ctrl-C reaches this process alone, which then asks them to stop, as SIGTERM does,
    and waits until they have written what they need to go on.

    Args:
        jobs: The commands.
        at_a_time: How many run at the same time; by default one for each processor core. With several, each has one
            thread, unless it asks for more.
        on_end: Called after each.

    Raises:
        InputError: A launcher has started several processes, each of which would run them all.
    """
    if (among := launched()) is not None:
        raise InputError(
            f"{among.by} started {among.processes} processes, which share one training; several trainings at a time "
            f"are started by subo itself, on this machine: run the command without {among.by}"
        )
    at_a_time = min(at_a_time or num_cores(), len(jobs))
    waiting, ended = deque(jobs), list[Ended]()
    running: dict[subprocess.Popen, tuple[Job, IO[bytes]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                with stop_signals() as came:  # a process that is just being started is not forgotten
                    process, job, said = _started(waiting.popleft(), alone=at_a_time == 1)
                    running[process] = job, said
                if came():
                    raise Stopped(came())
            for process in [process for process in running if process.poll() is not None]:
                job, said = running.pop(process)
                ended.append(Ended(job, process.returncode, _read(said)))
                if on_end is not None:
                    on_end(ended[-1])
            time.sleep(_LOOK)
    except BaseException:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()
        raise
    return ended


def num_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started(job: Job, *, alone: bool) -> tuple[subprocess.Popen, Job, IO[bytes]]:
    said = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it is read; a pipe could fill up)
    environment = dict(os.environ) if alone else {**os.environ, "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
    command = [sys.executable, "-m", "subo", *job.words]
    return subprocess.Popen(command, start_new_session=True, env=environment, **options), job, said


def _read(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace").strip()
