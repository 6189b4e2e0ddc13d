"""How a module receives its context: by the names that its call declares.

A batch is x and its named context. As a node of a graph receives its parents, a module receives those names of the
context that its ``forward`` declares (``def forward(self, z, label)``); one that declares none receives none, and
one that declares ``**context`` receives all of it.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from subo.errors import InputError
from subo.typing import Context

__all__ = ["call", "check_rows", "declared", "repeat"]


@lru_cache(maxsize=256)
def declared(function: Callable, num_inputs: int) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """Names that a call declares after its inputs (and whether each is required), and whether it takes any name."""
    parameters = list(inspect.signature(function).parameters.values())[num_inputs:]
    names = [(p.name, p.default is p.empty) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(names), any(p.kind is p.VAR_KEYWORD for p in parameters)


def call(module: Callable[..., Any], *inputs: Any, context: Context | None = None) -> Any:
    """Calls ``module(*inputs, **those names of the context that it declares)``.

    Args:
        module: A module or function.
        *inputs: What it gets by position.
        context: Tensors by name, leading axis as the inputs'.

    Raises:
        InputError: The module requires a name that the context does not hold.

    Example:
        >>> call(lambda z, label: z + label, torch.ones(2), context={"label": torch.ones(2), "index": torch.arange(2)})
        tensor([2., 2.])
    """
    function = module.forward if isinstance(module, nn.Module) else module
    # A bound method is made anew at each access; its function, whose first parameter is self, stays the same.
    plain = getattr(function, "__func__", function)
    known, takes_all = declared(plain, len(inputs) + (plain is not function))
    if takes_all:
        return module(*inputs, **(context or {}))
    if not known:
        return module(*inputs)
    context = context or {}
    for name, required in known:
        if required and name not in context:
            raise InputError(
                f"{type(module).__name__} needs the context '{name}', which this batch does not have "
                f"(it has: {', '.join(context) or 'none'}). Pass context={{'{name}': ...}} with the data, "
                f"or give '{name}' a default in its forward."
            )
    return module(*inputs, **{name: context[name] for name, _ in known if name in context})


def check_rows(context: Context | None, num_data: int) -> None:
    """Refuses a context that has not one row a datum: a longer one would be cut, a single row broadcast.

    Args:
        context: Tensors by name.
        num_data: How many data there are.

    Raises:
        InputError: Names the tensor, its length and the number of data.

    Example:
        >>> check_rows({"label": torch.arange(5)}, 5)
    """
    for name, tensor in (context or {}).items():
        if tensor.ndim == 0 or len(tensor) != num_data:
            came = "is a lone number" if tensor.ndim == 0 else f"has {len(tensor)} rows"
            raise InputError(
                f"the context '{name}' {came} for {num_data} data: one row each is needed, in the data's order. "
                "Usually it is that of other data, or of a part of them."
            )


def repeat(context: Context | None, times: int) -> dict[str, Tensor]:
    """The context of ``times * B`` rows, sample-major: row ``k * B + b`` is that of datum b.

    Args:
        context: Tensors of shape ``(B, ...)``.
        times: How often each is repeated (K).

    Returns:
        Tensors of shape ``(times * B, ...)``.
    """
    return {name: torch.cat([tensor] * times) for name, tensor in (context or {}).items()}
