"""The entry point of the command line: whatever happens ends in one message, and what the exit codes mean.

Its imports are light: those of the program take seconds, and are made where a signal finds somebody at home.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from subo.errors import DivergedError, InputError, Interrupted
from subo.interrupts import Stopped, Stops
from subo.processes import wait_for_the_first

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process.

    The exit code is 0 for well done, 2 for an input that can't be used, and 128 + n where the signal n asked to stop:
    130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal; 141 for a reader that went away.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    with Stops() as stops:
        code = _run([token for token in tokens if token != "--debug"], stops, debug="--debug" in tokens)
    sys.exit(code)


def _run(tokens: Sequence[str], stops: Stops, *, debug: bool) -> int:
    """Runs a command; gives the exit code."""

    def failed(message: str, code: int) -> int:
        wait_for_the_first()
        if debug:
            traceback.print_exc()
        print(f"subo: {message}", file=sys.stderr)
        return code

    try:
        from subo.application import command_of

        command = command_of(tokens)
        stops.begin()
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has gone, such as head: nothing to tell them, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would complain
        return 128 + 13
    except (InputError, DivergedError) as error:
        return failed(str(error), 2)
    except (Interrupted, Stopped) as stopped:
        return failed(str(stopped), 128 + stopped.signal)
    except KeyboardInterrupt:
        return failed("stopped.", 130)
    except Exception as error:
        if stops.came:  # which libraries may take for something else
            return failed("stopped.", 128 + stops.came)
        hint = "" if debug else " --debug shows where."  # a defect of ours: said in one line, too
        return failed(f"{type(error).__name__}: {error}. This should not happen: please report it.{hint}", 1)
    return failed("stopped.", 128 + stops.came) if stops.came else 0
