import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from shapes import check_first_calls, first_calls, unchecked_shapes
from subo.evaluation.evidence.importance import WeightSums

pytest.register_assert_rewrite("assertions", "command_line")


@pytest.fixture(scope="session", autouse=True)
def signals_that_come() -> None:
    """Ctrl-C and a hang-up reach the tests, also where the shell that started them in the background ignores both."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


WHOLE_PROGRAMS = ("cli", "explorer", "files", "runs", "runtime")
"""Tests of commands and files. What they run is called by the tests of its own package, too, and checked there."""


def pytest_configure() -> None:
    """Has shapes checked in the first calls alone."""
    check_first_calls()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test has first calls: one function with many parameters as a whole, but over the catalog for each part."""
    of = item.nodeid if item.path.name == "test_conformance.py" else item.nodeid.partition("[")[0]
    first_calls.begin(of)


@pytest.fixture(scope="module", autouse=True)
def shapes_checked_where_they_are_made(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turns the checks of shapes off where whole programs run, of which they would take half of the time."""
    with unchecked_shapes() if request.path.parent.name in WHOLE_PROGRAMS else nullcontext():
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """Closes the figures that a test leaves for a notebook to show."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same at every call."""
    return np.random.default_rng(0)


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """Tensors are of 64 bits where nothing else is said."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def errors_of_drawn_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors by the weights that were drawn alone (the delta method), narrow enough to hold estimates to a truth.

    Those that are reported allow for large weights that were not drawn, too, and have tests of their own.
    """

    def of_chains(log_weight: torch.Tensor) -> torch.Tensor:
        sums = WeightSums(log_weight.shape[1])
        sums.add(log_weight)
        return sums.standard_error

    monkeypatch.setattr(WeightSums, "error_by", lambda sums, tail: sums.standard_error)
    monkeypatch.setattr("subo.evaluation.evidence.annealed.chains_error", of_chains)


@pytest.fixture(autouse=True)
def pictures_where_they_are_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes most of a small fit, but in tests marked `pictures` and in fixtures that tests share."""
    if "pictures" not in request.keywords:
        monkeypatch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
