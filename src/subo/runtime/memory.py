"""How much memory there is: work that would not fit is refused before it starts."""

import ctypes
import os
import resource
from contextlib import suppress

from subo.errors import InputError

__all__ = ["NoRoomError", "available_bytes", "check_room", "free_bytes", "return_freed"]


class NoRoomError(InputError):
    """The requested work does not fit into memory."""


def available_bytes() -> int:
    """This machine's memory in bytes, or as much of it as the process may use."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)


def free_bytes() -> int:
    """Bytes of free memory; all bytes if the system does not report it."""
    try:
        with open("/proc/meminfo") as lines:
            entries = dict(line.split(":", 1) for line in lines)
        return min(available_bytes(), 1024 * int(entries["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        return available_bytes()


def return_freed() -> None:
    """Returns to the system what the C library holds of memory that is free; does nothing where it cannot be asked.

    Parsing leaves many small gaps between objects that stay: a third of a large table's size in float32.
    """
    with suppress(AttributeError, TypeError, OSError):  # only the GNU C library can be asked
        ctypes.CDLL(None).malloc_trim(0)


def check_room(needed: int | float, what: str, remedy: str, *, free: int | None = None) -> None:
    """Refuses what memory cannot hold.

    Args:
        needed: Bytes needed.
        what: What needs them, such as ``a model of 10 parameters``.
        remedy: What to do.
        free: Bytes that were free before the first of them was taken; None means those free now.

    Raises:
        NoRoomError: Fewer bytes are free; says how many.
    """
    there = free_bytes() if free is None else free
    if needed > there:
        raise NoRoomError(
            f"{what} takes about {_gigabytes(needed)}, and {_gigabytes(there)} of memory are free. {remedy}"
        )


def _gigabytes(count: int | float) -> str:
    number = count / 1e9
    return f"{number:,.1f} GB" if number >= 1 else f"{number:.2g} GB"
