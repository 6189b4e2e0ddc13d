"""How much memory there is: what would not fit is refused before it is begun."""

import os
import resource

from subo.errors import InputError

__all__ = ["available_bytes", "check_memory"]


def available_bytes() -> int:
    """This machine's memory in bytes, or as much of it as the process may take."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)


def check_memory(size: int, *, where: str) -> None:
    """Refuses data that are larger than the memory.

    Args:
        size: Of the data, in bytes.
        where: What they are called in the message.

    Raises:
        InputError: They do not fit; says how large they are.
    """
    if size > available_bytes():
        raise InputError(
            f"{where} holds {size / 2**30:,.4g} GiB, or says so, and this machine has {available_bytes() / 2**30:.3g} "
            "GiB of memory: use a part of it. A file that is damaged may say so as well"
        )
