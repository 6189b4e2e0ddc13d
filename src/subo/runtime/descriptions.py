"""Short descriptions of annotations and values: the pieces of a message about an argument."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from subo.runtime.limits import Limit

__all__ = ["described", "expected", "shape_of"]


def expected(kind: Any, limit: Limit, *, flag: bool = False) -> str:
    """Describes what a value should be."""
    origin, members = get_origin(kind), get_args(kind)
    if kind in (int, float):
        number = "a whole number" if kind is int else "a number"
        return f"a {limit} number" if str(limit) == "positive" else ", ".join(filter(None, (number, str(limit))))
    if kind is bool:
        return "True or False"
    if kind in (None, NoneType):
        return "None"
    if origin is Annotated:
        return expected(members[0], limit, flag=flag)
    if origin in (Union, UnionType):
        given = [member for member in members if member is not NoneType or not flag]
        return " or ".join(expected(member, limit, flag=flag) for member in given)
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    if origin in (tuple, Sequence) and members and members[0] in (int, float):
        several = "whole numbers" if members[0] is int else "two numbers"
        return ", ".join(filter(None, (several, str(limit), "such as 200,200" if flag else "")))
    if kind is Tensor or hasattr(kind, "array_type"):
        return f"a dense tensor{f' ({shape_of(kind)})' if shape_of(kind) else ''} of real numbers"
    if kind is Path:
        return "a path"
    if kind is str:
        return "text"
    if origin in (Mapping, dict):
        return f"a dict of {expected(members[1], limit, flag=flag)} by name"
    name = getattr(origin or kind, "__name__", str(kind))
    return "a function" if name == "Callable" else _a(name)


def shape_of(kind: Any) -> str:
    """The axes that an annotation requires; empty if it accepts any."""
    shape = getattr(kind, "dim_str", "").strip()
    return "" if shape == "..." else shape


def described(value: Any) -> str:
    """Describes what a value is, in a few words."""
    if isinstance(value, Tensor):
        what = "complex " if value.is_complex() else "" if value.layout is torch.strided else "sparse "
        return f"a {what}tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str | complex | Path):
        return repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    if isinstance(value, tuple | list | dict | set):
        return repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__} of {len(value)}"
    return _a(type(value).__name__)


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
