"""Which calls have their shapes checked."""

import pytest
import torch
from jaxtyping import TypeCheckError

from shapes import CHECKED, unchecked_shapes
from subo.core.bounds import log_mean_exp
from subo.data.values import constant_elements

MATRIX = torch.zeros(3, 2)


def test_a_wrong_type_is_refused_in_the_first_calls_of_a_test_alone():
    assert log_mean_exp(MATRIX, 0).shape == (2,)
    for _ in range(CHECKED - 1):
        with pytest.raises(TypeCheckError):
            log_mean_exp(MATRIX, "0")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):  # torch's own, unchecked
        log_mean_exp(MATRIX, "0")  # pyright: ignore[reportArgumentType]


def test_each_test_and_each_function_has_first_calls():
    with pytest.raises(TypeCheckError):
        log_mean_exp(MATRIX, "0")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeCheckError):
        constant_elements("x")  # pyright: ignore[reportArgumentType]


@unchecked_shapes()
def test_nothing_is_checked_where_checks_are_off():
    with pytest.raises(TypeError) as error:
        log_mean_exp(MATRIX, "0")  # pyright: ignore[reportArgumentType]
    assert not isinstance(error.value, TypeCheckError)
