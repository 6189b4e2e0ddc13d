"""Terminals that know few letters, are full or are gone cost no work; what the system refuses is one line, code 2."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import assert_refused, run
from subo.runtime.streams import standard_streams


class Refusing(io.StringIO):
    """A stream whose other end takes nothing."""

    def __init__(self, error: OSError):
        super().__init__()
        self.refusal, self.tried = error, 0

    def write(self, text: str) -> int:
        """Fails."""
        self.tried += 1
        raise self.refusal


def test_letters_that_a_terminal_lacks_are_spelled(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with standard_streams() as output:
        print("größer − \udcff")
        output.flush()
    assert raw.getvalue() == rb"gr\xf6\xdfer \u2212 \udcff" + b"\n"
    assert output.error is None


def test_a_full_stream_is_asked_once_and_the_work_goes_on(monkeypatch: pytest.MonkeyPatch):
    full = Refusing(OSError(28, "No space left on device"))
    monkeypatch.setattr(sys, "stdout", full)
    with standard_streams() as output:
        print("one", flush=True)
        print("two", flush=True)
    assert full.tried == 1
    assert output.error is full.refusal
    assert sys.stdout is full


def test_a_closed_stream_takes_words_and_says_that_they_are_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    with standard_streams() as output:
        print("one", flush=True)
        assert sys.stdout is output
    assert isinstance(output.error, OSError)
    assert output.error.errno == errno.EBADF
    assert sys.stdout is None


def test_no_file_gets_the_number_of_a_closed_stream_and_its_words(tmp_path: Path):
    script = f"""
import os
from subo.runtime.streams import standard_streams
with standard_streams(), open({str(tmp_path / "file")!r}, "w"):
    os.write(1, b"words that a library writes")
"""
    closed = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, script]
    assert subprocess.run(closed, check=False, capture_output=True).stderr == b""
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    "stream, code, lost",
    [
        (lambda: Refusing(OSError(28, "No space left on device")), 2, "No space left on device"),
        (lambda: None, 2, "Bad file descriptor"),
        (lambda: Refusing(BrokenPipeError(32, "Broken pipe")), 141, ""),
    ],
)
def test_the_exit_code_says_that_words_were_lost(
    stream, code: int, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    done = tmp_path / "done"

    def work(_: object) -> None:
        print("words", flush=True)
        done.touch()

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("subo.cli.show.print_run", work)
    monkeypatch.setattr(sys, "stdout", stream())
    assert run("show", tmp_path) == code
    said = f"subo: standard output: {lost}. The output is lost.\n" if lost else ""
    assert capsys.readouterr().err == said
    assert done.exists()


@pytest.mark.parametrize(
    "error, words",
    [
        (PermissionError(13, "Permission denied", "run/x.npy"), "run/x.npy: Permission denied. Change the permissions"),
        (OSError(28, "No space left on device", "run"), "run: No space left on device. Free some space"),
        (OSError(36, "File name too long", "a" * 300), "File name too long. Choose a shorter name"),
        (OSError(30, "Read-only file system", "run"), "run: Read-only file system. Choose a path"),
        (OSError(5, "Input/output error"), "Input/output error. The disk"),
        (IsADirectoryError(21, "Is a directory", "run"), "It is a folder where a file is expected"),
        (MemoryError(), "memory ran out"),
        (MemoryError("Unable to allocate 7.28 TiB"), "memory ran out (Unable to allocate 7.28 TiB). Lower"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"
            ),
            "--batch-size",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "memory ran out (CUDA out of memory"),
    ],
)
def test_what_the_system_refuses_is_no_defect(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def refused(_: object) -> None:
        raise error

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("subo.cli.show.print_run", refused)
    message = assert_refused(capsys, "show", tmp_path)
    assert words in message
    assert "should not happen" not in message


def test_a_defect_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def broken(_: object) -> None:
        raise ZeroDivisionError("division by zero")

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("subo.cli.show.print_run", broken)
    assert run("show", tmp_path) == 1
    assert "This should not happen" in capsys.readouterr().err


def test_no_window_system_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("MPLBACKEND", "foo")
    assert_refused(capsys, "show", tmp_path)
    assert os.environ["MPLBACKEND"] == "agg"
