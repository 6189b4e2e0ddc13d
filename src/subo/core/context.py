"""How the parts of a model are called: with their inputs and the named context that their call declares.

A batch is x and its named context. As a node of a graph receives its parents, a module receives those names of the
context that its ``forward`` declares (``def forward(self, z, label)``); one that declares none receives none, and
one that declares ``**context`` receives all of it.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.errors import InputError
from subo.typing import Context, leaves

__all__ = ["as_distribution", "call", "call_part", "check_rows", "check_same_rows", "receives", "repeat"]


@lru_cache(maxsize=256)
def _declared(function: Callable, num_inputs: int) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """The names that a call declares after its inputs (and whether each is required), and whether it takes any name."""
    parameters = list(inspect.signature(function).parameters.values())[num_inputs:]
    names = [(p.name, p.default is p.empty) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(names), any(p.kind is p.VAR_KEYWORD for p in parameters)


def call(module: Callable[..., Any], *inputs: Any, context: Context | None = None) -> Any:
    """Calls ``module(*inputs, **those names of the context that it declares)``.

    Args:
        module: A module or function.
        *inputs: Positional inputs of the module.
        context: Tensors by name, with the same leading axis as the inputs.

    Raises:
        InputError: The module requires a name that the context does not hold.

    Example:
        >>> call(lambda z, label: z + label, torch.ones(2), context={"label": torch.ones(2), "index": torch.arange(2)})
        tensor([2., 2.])
    """
    function = module.forward if isinstance(module, nn.Module) else module
    # A bound method is a new object at each access; its function, which takes self first, stays the same.
    plain = getattr(function, "__func__", function)
    known, takes_all = _declared(plain, len(inputs) + (plain is not function))
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
    """Refuses a context that does not have one row per example: a longer one would be cut, a single row broadcast.

    Args:
        context: Tensors by name.
        num_data: Number of examples.

    Raises:
        InputError: Names the tensor, its length and the number of examples.

    Example:
        >>> check_rows({"label": torch.arange(5)}, 5)
    """
    for name, tensor in (context or {}).items():
        if tensor.ndim == 0 or len(tensor) != num_data:
            came = "is a single number" if tensor.ndim == 0 else f"has {len(tensor)} rows"
            raise InputError(
                f"the context '{name}' {came} for {num_data} examples: it needs one row per example, in their order. "
                "Usually it belongs to other data, or to a part of them."
            )


def repeat(context: Context | None, times: int) -> dict[str, Tensor]:
    """The context for ``times * B`` rows, sample-major: row ``k * B + b`` belongs to example b.

    Args:
        context: Tensors of shape ``(B, ...)``.
        times: Number of repetitions K.

    Returns:
        Tensors of shape ``(times * B, ...)``.
    """
    return {name: torch.cat([tensor] * times) for name, tensor in (context or {}).items()}


def call_part(part: str, module: Callable[..., Any], inputs: Mapping[str, Any], context: Context | None = None) -> Any:
    """Calls a part of a model as :func:`call` does, and adds to any error which part it was and what it was given.

    An error keeps its class and traceback: the part and the shapes are added as a note.

    Args:
        part: Role of the module in the model, for messages.
        module: A module or function.
        inputs: Positional inputs, under the names that messages use for them.
        context: Tensors by name, with as many rows as the inputs.

    Raises:
        InputError: The context does not have one row for each row of the inputs, or an input has another dtype than
            the module's parameters.

    Example:
        >>> try:
        ...     call_part("likelihood", torch.nn.Linear(2, 6), {"z": torch.zeros(5, 3)})
        ... except RuntimeError as error:
        ...     print(error.__notes__[0].partition(". ")[0])
        This came from the likelihood, which was given z of shape (5, 3)
    """
    try:
        returned = call(module, *inputs.values(), context=context)
    except Exception as error:
        given = _flat(inputs), _received(module, inputs, context)
        message = _other_rows(part, *given) or _other_dtype(part, module, given[0])
        if message and not isinstance(error, InputError):
            raise InputError(message) from error
        error.add_note(_origin(part, *given))
        raise
    if context:  # broadcasting raised nothing; checked after the call, since a module may know more about what is wrong
        rows = leaves(next(iter((inputs or context).values())))[0].shape[:1]
        if any(tensor.shape[:1] != rows for tensor in context.values()):  # maybe a tensor that it does not receive
            check_same_rows(part, _flat(inputs), _received(module, inputs, context))
    return returned


def as_distribution(part: str, returned: Any) -> Distribution:
    """Returns what a part returned, or refuses it if it is not a Distribution."""
    if not isinstance(returned, Distribution):
        raise InputError(
            f"{part} returned {type(returned).__name__}; expected a torch.distributions.Distribution. Usually it is "
            "a network without a family to turn its output into a distribution: use Conditional(Gaussian((2,)), "
            "network), or in a graph Child(family, network, 'parent')"
        )
    return returned


def check_same_rows(part: str, inputs: Mapping[str, Any], context: Context) -> None:
    """Refuses a context without one row for each row of the inputs (or of its first tensor, if there are no inputs)."""
    message = _other_rows(part, inputs, context)
    if message:
        raise InputError(message)


def receives(module: Callable[..., Any], num_inputs: int = 0) -> tuple[tuple[str, ...], bool]:
    """The names that a call declares after its inputs, and whether it takes any others."""
    function = module.forward if isinstance(module, nn.Module) else module
    plain = getattr(function, "__func__", function)
    names, takes_all = _declared(plain, num_inputs + (plain is not function))
    return tuple(name for name, _ in names), takes_all


def _received(module: Callable[..., Any], inputs: Mapping[str, Any], context: Context | None) -> Context:
    names, takes_all = receives(module, len(inputs))
    return {name: tensor for name, tensor in (context or {}).items() if takes_all or name in names}


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by name, with each layer of a latent under its own name."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        found |= value if isinstance(value, Mapping) else {name: value}
    return found


def _other_rows(part: str, inputs: Mapping[str, Any], context: Context) -> str | None:
    tensors = {name: value for name, value in (*inputs.items(), *context.items()) if isinstance(value, Tensor)}
    first = next(iter(tensors), "")
    for name, tensor in context.items():
        if tensor.shape[:1] != tensors[first].shape[:1]:
            return (
                f"{part} received the context '{name}' of shape {tuple(tensor.shape)} with {first} of shape "
                f"{tuple(tensors[first].shape)}; expected as many rows in both. Give the context one row per "
                "example, or per sample that is drawn."
            )
    return None


def _other_dtype(part: str, module: Any, inputs: Mapping[str, Any]) -> str | None:
    like = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    for name, value in inputs.items():
        if like is not None and isinstance(value, Tensor) and value.dtype != like.dtype:
            own, other = (str(dtype).removeprefix("torch.") for dtype in (like.dtype, value.dtype))
            return f"{part} received {name} of {other}, but its parameters are {own}: pass {name}.to(torch.{own})"
    return None


def _origin(part: str, inputs: Mapping[str, Any], context: Context) -> str:
    given = ", ".join(f"{name} {_shape(value)}" for name, value in (*inputs.items(), *context.items()))
    return (
        f"This came from {part if part.startswith('the ') else f'the {part}'}, which was given {given or 'nothing'}. "
        "If shapes do not match, a network was usually made for another width: make it as wide as its input, or change "
        "the part that this input comes from."
    )


def _shape(value: Any) -> str:
    if isinstance(value, Distribution):
        return f"over {tuple(value.event_shape)}"
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
