"""Commands run in this process."""

import pytest

from subo.cli.entry import main


def run(*argv: object) -> int:
    """Runs a command and gives its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in argv])
    return stopped.value.code if isinstance(stopped.value.code, int) else 1


def assert_refused(capsys: pytest.CaptureFixture, *argv: object) -> str:
    """The command fails with code 2 and one message, without a traceback; gives what it wrote to stderr."""
    code, captured = run(*argv), capsys.readouterr()
    assert code == 2, captured
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("subo: ")]
    assert len(lines) == 1, captured.err
    return captured.err
