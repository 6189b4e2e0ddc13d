"""Loops of many small steps without the checks of their shapes, which would take most of the time."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import config


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Turns off the checks that the tests' import hook puts into subo; also a decorator.

    For a test that is about where thousands of steps lead. What it calls must be called by a shorter test too, and
    there with the checks: the ten-thousandth step has the shapes of the first.
    """
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
