"""Every option and argument has a range in which it makes sense, and what is outside is refused with the facts."""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

import numpy as np
import pytest

import subo
from assertions import assert_refused
from subo.application import make_app
from subo.arguments import accepted, checked_arguments, owner_of
from subo.commands.gradients import gradients
from subo.commands.measuring import compare, evaluate
from subo.commands.sequences import forecast
from subo.commands.using import encode, reconstruct, sample, score
from subo.limits import LIMITS, limit_of
from subo.options import fit_signature
from subo.recipes import RECIPES

COMMANDS = (evaluate, compare, gradients, sample, reconstruct, encode, score, forecast)
RECORDS = {"Draw", "Factor", "Inferred", "Interrupted", "Loss", "MarkovDistribution"}
"""What the library makes: nobody gives their numbers."""


def holds_number(kind: Any) -> bool:
    return kind in (int, float) or (get_origin(kind) is not Callable and any(map(holds_number, get_args(kind))))


def numbers() -> Iterator[tuple[str, str]]:
    """All numbers that can be given: the function's, or class's, name and theirs."""
    signatures = [("fit", fit_signature(recipe)) for recipe in RECIPES]
    signatures += [(command.__name__, inspect.signature(command)) for command in COMMANDS]
    for name in set(subo.__all__) - RECORDS:
        function = getattr(subo, name)
        if not (isinstance(function, type) and issubclass(function, Exception)):
            signatures.append((name, inspect.signature(function)))
    for owner, signature in signatures:
        for parameter in signature.parameters.values():
            if holds_number(parameter.annotation):
                yield owner, parameter.name


OF_SCIKIT_LEARN = {("VariationalAutoencoder", "verbose"), ("VariationalAutoencoder", "random_state")}


@pytest.mark.parametrize("owner, name", sorted(set(numbers()) - OF_SCIKIT_LEARN))
def test_every_number_has_a_stated_range(owner: str, name: str):
    limit = limit_of(name, owner)
    assert limit is not None, f"state the range of {name} in subo/limits.py"
    assert not limit.holds(math.nan)
    assert limit.holds(math.inf) == ((owner, name) == ("Renyi", "alpha"))


def test_a_range_is_stated_of_what_exists():
    names = {name for _, name in numbers()}
    elsewhere = {"calibration_data", "gap_steps", "gradient", "kl_warmup", "max_steps", "model_steps", "objective"}
    elsewhere |= {"n_samples", "warmup", "window"}
    assert {name.split(".")[-1] for name in LIMITS} <= names | elsewhere


@pytest.mark.parametrize(
    "name, value, kind, facts",
    [
        ("dropout", 1.0, float, "dropout must be below 1, not 1.0"),
        ("dropout", -0.5, float, "dropout must be at least 0, not -0.5"),
        ("clip", math.inf, float | None, "clip must be positive and finite, not inf. Without a limit leave it out"),
        ("beta", math.nan, float, "not nan. Usually an earlier calculation"),
        ("latent_dim", 2.5, int, "latent_dim must be a whole number, at least 1, not 2.5. Fractions are not rounded"),
        ("latent_dim", 10**12, int, "latent_dim must be at most 1,000,000, not 1000000000000"),
        ("latent_dim", True, int, "not True"),
        ("latent_dim", "3", int, "leave out the quotes"),
        ("hidden", "200", tuple[int, ...], "hidden must be whole numbers, at least 1, not '200'. It is text"),
        ("hidden", 200, tuple[int, ...], "Of a single one write (200,)"),
        ("hidden", (200, 0), tuple[int, ...], "each at least 1, not (200, 0)"),
        ("hidden", [2.5], tuple[int, ...], "Fractions are not rounded"),
        ("hidden", (1,) * 2000, tuple[int, ...], "There are 2,000, and at most 1,000"),
        ("hidden", None, tuple[int, ...], "not None"),
    ],
)
def test_what_is_outside_is_refused_with_the_facts(name: str, value: Any, kind: Any, facts: str):
    with assert_refused(facts):
        accepted(name, value, kind)
    assert f"--{name.replace('_', '-')} must be" in refusal(name, value, kind)


def refusal(name: str, value: Any, kind: Any) -> str:
    """What the command line says."""
    try:
        accepted(name, value, kind, flag=True)
    except subo.InputError as error:
        return str(error)
    raise AssertionError(f"{name} = {value} was accepted")


def test_numbers_of_numpy_are_numbers():
    for given, kind, value in (
        (np.int64(3), int, 3),
        (np.uint8(3), int, 3),
        (np.array(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (np.int64(1), float, 1.0),
        (3, float, 3.0),
        ([np.int32(3), 4], tuple[int, ...], (3, 4)),
        (np.array([3, 4]), tuple[int, ...], (3, 4)),
        (np.bool_(True), bool, True),
    ):
        came = accepted("anything", given, kind)
        assert came == value
        assert type(came) is type(value)


def test_a_function_keeps_its_signature_and_its_own_complaints():
    @checked_arguments
    def made(dim: int, *event_shape: int, clip: float | None = None) -> Any:
        return dim, event_shape, clip

    assert str(inspect.signature(made)) == "(dim: int, *event_shape: int, clip: float | None = None) -> Any"
    function: Any = made
    assert function(np.int64(1), np.int64(2), 3, clip=1) == (1, (2, 3), 1.0)
    with pytest.raises(TypeError, match="dim"):
        function()
    with assert_refused("event_shape must be at least 1, not 0"):
        function(1, 2, 0)
    assert owner_of(subo.Gaussian.__init__) == "Gaussian"


@pytest.mark.parametrize("word, value", [("12", 12), ("1e3", 1000), ("2.0", 2), ("0x10", 16)])
def test_whole_numbers_of_the_command_line(word: str, value: int):
    _, bound, _ = make_app().parse_args(["fit", "digits", "--epochs", word], exit_on_error=False, print_error=False)
    assert bound.arguments["epochs"] == value
