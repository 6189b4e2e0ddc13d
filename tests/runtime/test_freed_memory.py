"""Memory that was freed between objects that stay goes back to the system."""

import ctypes
from pathlib import Path

import pytest

from subo.runtime.memory import return_freed


def resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only the GNU C library returns its gaps")
def test_gaps_between_objects_that_stay_are_returned():
    blocks = [bytes(10_000) for _ in range(10_000)]  # 100 MB
    kept = blocks[::50]
    del blocks
    before = resident_megabytes()
    return_freed()
    assert len(kept) == 200
    assert resident_megabytes() < before - 50


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    monkeypatch.setattr("subo.runtime.memory.ctypes.CDLL", lambda name: asked.append(name) or object())
    return_freed()
    assert asked == [None]  # the process itself, which has no malloc_trim here
