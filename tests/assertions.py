"""What many tests assert: that an estimate is exact in the mean, and that bad input is refused with the facts."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor

from subo.errors import InputError


def assert_within(estimates: Tensor, truth: Tensor | float, *, slack: float = 1e-12) -> None:
    """The mean of independent estimates, along the first axis, is within five standard errors of the truth."""
    error = (estimates.mean(0) - truth).abs()
    assert (error <= 5 * estimates.std(0) / len(estimates) ** 0.5 + slack).all()


@contextmanager
def assert_refused(*facts: object) -> Iterator[None]:
    """What is done inside is refused, and the message holds all facts."""
    with pytest.raises(InputError) as info:
        yield
    for fact in facts:
        assert str(fact) in str(info.value)
