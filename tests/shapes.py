"""Which calls have their shapes checked: the first two in every test function, as checks take half of the time."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import _decorator as hook
from jaxtyping import config

CHECKED = 2  # calls of a function in a test: the ten-thousandth step has the shapes of the first


class FirstCalls:
    """jaxtyping's switch, which its hook reads at every call: off from the third call of a function on."""

    def __init__(self):
        self.calls: Counter[int] = Counter()
        self.test = ""

    def begin(self, test: str) -> None:
        """Calls are first ones again where another test begins."""
        if test != self.test:
            self.calls.clear()
        self.test = test

    @property
    def jaxtyping_disable(self) -> bool:
        called = id(sys._getframe(1).f_locals["fn"])
        self.calls[called] += 1
        return config.jaxtyping_disable or self.calls[called] > CHECKED

    def __getattr__(self, name: str) -> Any:
        return getattr(config, name)


first_calls = FirstCalls()


def check_first_calls() -> None:
    """Puts the switch where jaxtyping's hook looks for it."""
    hook.config = first_calls


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Turns off the checks that the tests' import hook puts into subo; also a decorator.

    For a test that is about where thousands of steps lead, or about what happens without the checks. What it calls must
    be called by a shorter test too, and there with them.
    """
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
