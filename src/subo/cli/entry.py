"""The entry point of the command line: every failure ends in one message and a defined exit code.

Its imports are light: those of the program take seconds, and are made once signals are handled.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence

from subo.cli.flags import in_flags
from subo.errors import DivergedError, InputError, Interrupted, ProcessLostError, in_words
from subo.runtime.interrupts import Stopped, Stops
from subo.runtime.processes import wait_for_the_first
from subo.runtime.streams import standard_streams

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process.

    The exit code is 0 for success, 2 for an invalid input, and 128 + n after the signal n: 130 for Ctrl-C, 143 for
    SIGTERM, 129 for a closed terminal, 137 if another process of the run was killed; 141 if the reader of the output
    went away.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    os.environ["MPLBACKEND"] = "agg"  # pictures go into files, whatever windows the environment asks for
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that spin for long take cores from each other: threads.txt
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with Stops() as stops, standard_streams() as output:
        code = _run([token for token in tokens if token != "--debug"], stops, debug="--debug" in tokens)
        output.flush()
        if isinstance(output.error, BrokenPipeError):  # the reader, such as head, is gone: nobody would see a message
            code = code or 128 + 13
        elif output.error is not None:
            what = output.error.strerror
            print(f"subo: standard output: {what}. The output is lost.", file=sys.stderr)
            code = code or 2
    sys.exit(code)


def _run(tokens: Sequence[str], stops: Stops, *, debug: bool) -> int:
    """Runs a command and returns the exit code."""

    def failed(message: str, code: int) -> int:
        try:
            wait_for_the_first()
        except KeyboardInterrupt:  # a launcher ends all processes when one has failed
            return code
        if debug:
            traceback.print_exc()
        print(f"subo: {in_flags(message)}", file=sys.stderr)
        return code

    try:
        from subo.cli.app import command_of

        command = command_of(tokens)
        stops.begin()
        command()
    except (InputError, DivergedError) as error:
        return failed(str(error), 2)
    except ProcessLostError as lost:
        return failed(str(lost), lost.code)
    except (Interrupted, Stopped) as stopped:
        return failed(str(stopped), 128 + stopped.signal)
    except KeyboardInterrupt:
        return failed("stopped.", 130)
    except Exception as error:
        if stops.came:  # libraries may mistake it for something else
            return failed("stopped.", 128 + stops.came)
        if (trouble := _trouble(error)) is not None:
            return failed(trouble, 2)
        hint = "" if debug else " --debug shows where."  # a bug of ours: also reported in one line
        return failed(f"{type(error).__name__}: {error}. This should not happen: please report it.{hint}", 1)
    return failed("stopped.", 128 + stops.came) if stops.came else 0


_NO_MEMORY = re.compile("out of memory|can(not|'t) allocate memory|bad_alloc", re.IGNORECASE)


def _trouble(error: Exception) -> str | None:
    """The message when the system runs out of resources: neither a bug nor an option is to blame."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOMEM):
        return in_words(error)
    said = str(error).strip().partition("\n")[0]
    out_of_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    out_of_memory |= isinstance(error, RuntimeError) and _NO_MEMORY.search(said) is not None
    if not out_of_memory and not isinstance(error, MemoryError):
        return None
    return (
        f"memory ran out ({said or type(error).__name__}). Lower what is large: --batch-size, --num-samples, --hidden, "
        "--latent-dim, or the number or size of the examples."
    )
