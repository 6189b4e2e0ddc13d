"""Signals that ask to stop: one rule for every command."""

import csv
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from command_line import run
from subo.data.saving import save_array
from subo.errors import Interrupted
from subo.runtime.interrupts import Stopped, Stops, stop_signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers():
    """The same before and after."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("lost", [False, True], ids=["raised", "lost in C"])
def test_a_command_ends_with_one_message_and_the_signals_code(number: signal.Signals, lost: bool, capsys, monkeypatch):
    def read(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if not lost:
                raise

    monkeypatch.setattr("subo.cli.show.print_run", lambda _: None)
    monkeypatch.setattr("subo.runs.run.Run.open", read)
    assert run("show", "a") == 128 + number
    assert capsys.readouterr().err == "subo: stopped.\n"


def test_what_a_library_makes_of_a_signal_is_still_that(capsys, monkeypatch):
    def read(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("subo.runs.run.Run.open", read)
    assert run("show", "a") == 143
    assert capsys.readouterr().err == "subo: stopped.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_during_the_imports_ends_with_the_message_alone(number: signal.Signals, tmp_path: Path):
    (tmp_path / "torch.py").write_text(f"import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(30)")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.pathsep.join(sys.path)}"}
    command = [sys.executable, "-m", "subo", "show", "a"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (128 + number, "subo: stopped.\n")


def test_training_takes_note_and_the_same_request_may_come_twice():
    with stop_signals() as came:
        assert came() == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # as `timeout` sends it, to the process and to its group
        assert came() == signal.SIGTERM


def test_another_request_is_obeyed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("subo.runtime.interrupts.time.monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), stop_signals() as came:
        signal.raise_signal(signal.SIGHUP)
        now[0] = 2.0
        assert came() == signal.SIGHUP
        signal.raise_signal(signal.SIGINT)


def test_what_was_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stops() as stops, stop_signals() as came:
            stops.begin()
            signal.raise_signal(signal.SIGHUP)
            assert (stops.came, came()) == (0, 0)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_catch_nothing():
    found = []

    def inside() -> None:
        with Stops(), stop_signals() as came:
            found.append((signal.getsignal(signal.SIGTERM), came()))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(signal.getsignal(signal.SIGTERM), 0)]


def test_a_table_that_is_being_written_is_stopped_and_left_whole(tmp_path: Path):
    """NumPy's conversion of a row to text loses exceptions."""
    path, rows = tmp_path / "a.csv", np.random.default_rng(0).normal(size=(2000, 20)).astype(np.float32)
    save_array(path, rows[:3])
    number = random.Random(0)
    for _ in range(20):
        with pytest.raises(Stopped), Stops() as stops:
            stops.begin()
            timer = threading.Timer(number.uniform(0.002, 0.02), os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            save_array(path, rows)
            time.sleep(0.1)
    with path.open() as file:
        assert len(list(csv.reader(file))) == 4
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["a.csv"]


def test_a_full_evaluation_tells_of_the_signal_that_stopped_it(monkeypatch, tmp_path: Path):
    from subo.cli import evaluate as measuring

    def stopped(*_: object, **__: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("subo.experiments.full_evaluation.evaluate_run_fully", stopped)

    class Experiment:
        config = SimpleNamespace(is_local=True)

        def data(self) -> None: ...

    with pytest.raises(Interrupted) as error:
        measuring._evaluate_fully(Experiment(), "test", None, 0)  # pyright: ignore[reportArgumentType]
    assert error.value.signal == signal.SIGTERM
