"""Argument checks at the door: the type by the annotation, the range by :mod:`subo.runtime.limits`.

The same check serves the library's functions, where messages name parameters, and the command line, where they
name flags. It is meant for constructors and for functions that start some work. What a training step calls is
checked only after it has failed.
"""

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache, wraps
from types import UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from subo.errors import InputError
from subo.runtime.descriptions import described, expected, shape_of
from subo.runtime.limits import Limit, is_number, limit_of

__all__ = ["accepted", "check_fields", "checked_arguments", "checked_on_failure", "checked_settings"]

P = ParamSpec("P")
T = TypeVar("T")

_PLAIN = Limit()
_SEEN_LATER = ("data", "split", "validation")  # by subo.data.splits.as_split, which knows more about them


class _Refused(Exception):  # noqa: N818 (never leaves this module)
    """A value is not of the expected kind; gives the likely cause, if any, and the end of the range it is beyond."""

    def __init__(self, cause: str = "", expected: str = ""):
        super().__init__(cause)
        self.expected = expected


def checked_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Checks a function's arguments before it is called; NumPy numbers become Python numbers.

    Args:
        function: A function, or a class's ``__init__``, with annotations.

    Example:
        >>> @checked_arguments
        ... def double(dim: int) -> int:
        ...     return 2 * dim
        >>> double(np.int64(3))
        6
        >>> double(2.5)
        Traceback (most recent call last):
        ...
        subo.errors.InputError: dim must be a whole number, at least 1, not 2.5. Fractions are not rounded.
    """
    signature, owner = inspect.signature(function), owner_of(function)

    @wraps(function)
    def door(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = _bound(signature, owner, args, kwargs)
        if bound is None:
            return function(*args, **kwargs)  # its own message names what is missing
        return function(*bound.args, **bound.kwargs)

    return door


def checked_on_failure(function: Callable[P, T]) -> Callable[P, T]:
    """Checks a function's arguments after it has failed, which costs next to nothing when it succeeds.

    For functions that a training step calls and users may call, too. A wrong argument that causes no failure passes.

    Args:
        function: A method with annotations.

    Example:
        >>> @checked_on_failure
        ... def double(values: Tensor) -> Tensor:
        ...     return 2 * values.flatten()
        >>> double(None)
        Traceback (most recent call last):
        ...
        subo.errors.InputError: values must be a dense tensor of real numbers, not None
    """
    signature, owner = inspect.signature(function), owner_of(function)

    @wraps(function)
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:
            try:
                _bound(signature, owner, args, kwargs)
            except (InputError, TypeError) as refusal:
                raise refusal from error
            raise

    return watched


def _bound(
    signature: inspect.Signature, owner: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    """A call's arguments, converted; None if some are missing or there are too many.

    Raises:
        InputError: An argument is invalid.
        TypeError: A name matches no parameter, but is close to one.
    """
    parameters = signature.parameters
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        for name in kwargs:
            if name not in parameters and (near := get_close_matches(name, parameters, 1)):
                raise TypeError(f"{owner} has no parameter {name}: did you mean {near[0]}?") from None
        return None
    bound.arguments.update(checked_settings(parameters, bound.arguments, owner=owner))
    return bound


def owner_of(function: Callable[..., Any]) -> str:
    """The name under which a function's parameters may have ranges of their own; for ``__init__``, the class's name.

    Example:
        >>> owner_of(Limit.__init__), owner_of(Limit.holds)
        ('Limit', 'Limit.holds')
    """
    return function.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")


def check_fields(record: Any) -> None:
    """Checks a dataclass's fields, in its ``__post_init__``; NumPy numbers become Python numbers.

    Args:
        record: A dataclass, frozen or not.
    """
    for name, kind in _fields(type(record)):
        value = getattr(record, name)
        given = accepted(name, value, kind, type(record).__name__)
        if given is not value:
            object.__setattr__(record, name, given)


def checked_settings(
    parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any], *, owner: str = "", flag: bool = False
) -> dict[str, Any]:
    """Converts some arguments to what a function takes, before it is called; unknown names are left unchanged.

    Args:
        parameters: The function's parameters, from its signature.
        given: Some or all of its arguments, by name.
        owner: Name of the function, where it has ranges of its own.
        flag: Whether the arguments were given on the command line.

    Raises:
        InputError: An argument is invalid.

    Example:
        >>> checked_settings(inspect.signature(checked_settings).parameters, {"flag": np.True_, "other": 1})
        {'flag': True, 'other': 1}
    """
    return {name: _setting(name, value, parameters.get(name), owner, flag) for name, value in given.items()}


def _setting(name: str, value: Any, parameter: inspect.Parameter | None, owner: str, flag: bool) -> Any:
    if parameter is None or parameter.annotation is parameter.empty or name in _SEEN_LATER:
        return value
    if value is parameter.default:
        return value
    if parameter.kind is parameter.VAR_KEYWORD:
        return value
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple(accepted(name, one, parameter.annotation, owner, flag=flag) for one in value)
    return accepted(name, value, parameter.annotation, owner, flag=flag)


@lru_cache(maxsize=64)
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in fields(kind))


def accepted(name: str, value: Any, kind: Any, owner: str = "", *, flag: bool = False) -> Any:
    """A value, checked and converted.

    Args:
        name: Name of the parameter.
        value: The value given.
        kind: The parameter's annotation; one that restricts nothing, such as Any, accepts everything.
        owner: The function or class, where the parameter has a range of its own.
        flag: Whether the value was given on the command line.

    Raises:
        InputError: Says what was expected, what was received and the likely cause.
    """
    limit = limit_of(name, owner) or _PLAIN
    try:
        return _taken(value, kind, limit)
    except _Refused as refusal:
        shown = "--" + name.replace("_", "-") if flag else name
        came = str(value) if flag else described(value)
        cause = f". {refusal}" if str(refusal) else ""
        wanted = refusal.expected or expected(kind, limit, flag=flag)
        raise InputError(f"{shown} must be {wanted}, not {came}{cause}") from None


def _taken(value: Any, kind: Any, limit: Limit) -> Any:
    origin, members = get_origin(kind), get_args(kind)
    if kind is bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        raise _Refused
    if kind in (int, float):
        return _number(value, kind, limit)
    if origin is Annotated:
        return _taken(value, members[0], limit)
    if origin in (Union, UnionType):
        return _one_of(value, members, limit)
    if origin is Literal:
        if isinstance(value, str) and value in members:
            return value
        raise _Refused
    if origin in (tuple, Sequence) and members[0] in (int, float):
        return _several(value, members, limit)
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if origin in (Mapping, dict) and isinstance(value, origin):
        return {key: _taken(one, members[1], limit) for key, one in value.items()}
    if origin is Sequence and isinstance(value, Sequence):
        if isinstance(value, str):
            raise _Refused(f"For a single one write ({value!r},).")
        for one in value:
            _taken(one, members[0], limit)
        return value
    if kind is Tensor or hasattr(kind, "array_type"):
        return _tensor(value, kind, limit)
    if origin is Iterable and isinstance(value, Tensor):
        raise _Refused("For a single one write [x].")
    if not _fits(value, origin or kind):
        raise _Refused(limit.hint)
    return value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is an instance; True where isinstance cannot decide."""
    if kind is None:
        return value is None
    try:
        return isinstance(value, kind)
    except TypeError:  # Any, or a protocol that is not runtime_checkable
        return True


def _one_of(value: Any, kinds: Sequence[Any], limit: Limit) -> Any:
    refusals = []
    for kind in kinds:
        try:
            return _taken(value, kind, limit)
        except _Refused as refusal:
            refusals.append(refusal)
    raise max(refusals, key=lambda refusal: (bool(refusal.expected), bool(str(refusal))))


def _number(value: Any, kind: type, limit: Limit) -> Any:
    if type(value) is not kind:
        value = _plain(value, kind)
    if kind is float and math.isnan(value):
        raise _Refused("Usually an earlier calculation returned NaN.")
    if not limit.holds(value):
        raise _Refused(limit.too_many if value > limit.low else limit.hint, limit.side(value))
    return value


def _plain(value: Any, kind: type) -> Any:
    """The Python number equal to another one, such as NumPy's."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        raise _Refused
    if isinstance(value, str):
        raise _Refused("It is text: leave out the quotes." if is_number(value) else "")
    if kind is float and isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    try:
        return operator.index(value)
    except TypeError:
        fraction = isinstance(value, float | np.floating) and math.isfinite(value)
        raise _Refused("Fractions are not rounded." if fraction else "") from None


def _several(value: Any, kinds: Sequence[Any], limit: Limit) -> tuple[Any, ...]:
    if isinstance(value, str):
        raise _Refused("It is text: leave out the quotes.")
    try:
        given = list(value)
    except TypeError:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        raise _Refused(f"For a single one write ({value},)." if whole else "") from None
    if len(given) > limit.most:
        raise _Refused(f"There are {len(given):,}, and at most {limit.most:,} make sense.")
    if kinds[-1] is float and len(given) != len(kinds):
        raise _Refused(f"There are {len(given)}, and {len(kinds)} are needed.")
    try:
        return tuple(_number(one, kinds[0], limit) for one in given)
    except _Refused as refusal:
        raise _Refused(str(refusal), refusal.expected and f"numbers, each {refusal.expected}") from None


def _tensor(value: Any, kind: Any, limit: Limit) -> Tensor:
    if isinstance(value, np.ndarray | list | tuple):
        turned = isinstance(value, np.ndarray) and min((0, *value.strides)) < 0  # as by [::-1], which torch lacks
        raise _Refused(f"torch.as_tensor{'(array.copy())' if turned else ''} turns it into a tensor.")
    if not isinstance(value, Tensor):
        raise _Refused
    if value.layout is not torch.strided:
        raise _Refused("Make it dense: x.to_dense().")
    if value.is_meta:
        raise _Refused("It is on the meta device and holds no numbers.")
    if value.ndim == 0 and shape_of(kind):
        raise _Refused("For a single one write x[None].")
    if value.is_complex():
        raise _Refused("Pass its real and imaginary parts side by side: torch.view_as_real(x).flatten(-2).")
    if value.numel() == 0:
        raise _Refused("It holds no numbers.")
    dtypes = getattr(kind, "dtypes", ())  # not a sequence for Shaped, which accepts any
    if isinstance(dtypes, Sequence) and "float32" in dtypes and not value.is_floating_point():
        raise _Refused("Pass real numbers, such as x.float().")
    if limit is not _PLAIN and value.is_floating_point():
        for end in (end.item() for end in value.detach().aminmax()):
            if not limit.holds(end):
                raise _Refused(f"It holds {end:g}.", f"{limit.side(end)} everywhere")
    return value
