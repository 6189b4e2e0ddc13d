"""How a part of a model is called: what does not fit it is told by the part's name and the shapes that it was given."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.errors import InputError
from subo.typing import Context, leaves

__all__ = ["call", "check_rows", "distribution", "receives"]

# Torch has no class of error for shapes, only words: of products, tensors side by side, broadcasting, views, layers.
_OF_SHAPES = re.compile(
    r"shapes cannot be multiplied|size mismatch, got|arguments to linear need to be|inconsistent tensor size"
    r"|both arguments to matmul need to be at least"
    r"|Expected size for first two dimensions of batch2|bilinear\(\): input|einsum\(\): (subscript . has|the number of)"
    r"|Sizes of tensors must match|Tensors must have same number of dim|stack expects each tensor to be equal size"
    r"|zero-dimensional tensor .* cannot be concatenated"
    r"|size of( the)? tensor .* must match the|number of sizes provided .* must be greater or equal"
    r"|Attempting to broadcast a dim|doesn't match the broadcast shape"
    r"|is invalid for input of size|Provided sizes .* don't multiply|split_sizes to sum exactly|Dimension out of range"
    r"|expected input.* to have \d+ channels|\(batched\) input to conv|greater than actual input size"
    r"|expected input with shape .* but got|running_mean should contain|number of channels in input"
    r"|input.size\(-1\) must be equal to input_size|inconsistent input_size"
)
_OF_DTYPES = re.compile(r"(have|be) the same dtype|expected scalar type|[Ii]nput type .* should be the same")


def call(part: str, module: Callable[..., Any], inputs: Mapping[str, Any], context: Context | None = None) -> Any:
    """Calls ``module(*inputs, **those names of the context that it declares)``.

    Errors that are not of shapes or dtypes pass as they are, and so does what a part within this one has been told of.

    Args:
        part: What the module is in the model, for a message.
        module: A module or function.
        inputs: What it gets by position, under the names that a message gives them.
        context: Tensors by name, leading axis as the inputs'.

    Raises:
        InputError: The inputs do not fit the module, or the context has not one row for each row of theirs.

    Example:
        >>> import torch
        >>> from subo import InputError
        >>> try:
        ...     call("likelihood", torch.nn.Linear(2, 6), {"z": torch.zeros(5, 3)})
        ... except InputError as error:
        ...     print(str(error).partition(":")[0])
        likelihood does not fit what it is given, z (5, 3)
    """
    try:
        returned = contexts.call(module, *inputs.values(), context=context)
    except (RuntimeError, IndexError) as error:
        if _OF_DTYPES.search(str(error)) and (other := _of_other_dtype(module, _flat(inputs))):
            raise InputError(f"{part} is given {other}") from error
        if not _OF_SHAPES.search(str(error)):
            raise
        given = _flat(inputs), _received(module, inputs, context)
        raise InputError(_other_rows(part, *given) or _does_not_fit(part, *given, error)) from error
    if context:  # what was broadcast raised nothing; after the call, for a module may know more of what is wrong
        rows = leaves(next(iter((inputs or context).values())))[0].shape[:1]
        if any(tensor.shape[:1] != rows for tensor in context.values()):  # maybe of a tensor that it does not receive
            check_rows(part, _flat(inputs), _received(module, inputs, context))
    return returned


def distribution(part: str, returned: Any) -> Distribution:
    """What a part returned, refused where it is no Distribution."""
    if not isinstance(returned, Distribution):
        raise InputError(
            f"{part} returned {type(returned).__name__}; expected a torch.distributions.Distribution. Usually a "
            "network stands where a family should make one of its numbers: Conditional(Gaussian((2,)), network), or in "
            "a graph Child(family, network, 'parent')"
        )
    return returned


def check_rows(part: str, inputs: Mapping[str, Any], context: Context) -> None:
    """Refuses a context that has not one row for each row of the inputs; without any, of the context's first."""
    message = _other_rows(part, inputs, context)
    if message:
        raise InputError(message)


def receives(module: Callable[..., Any], num_inputs: int = 0) -> tuple[tuple[str, ...], bool]:
    """The names that a call declares after its inputs, and whether it takes any other."""
    function = module.forward if isinstance(module, nn.Module) else module
    plain = getattr(function, "__func__", function)  # made once, where a bound method is made anew at each access
    names, takes_all = contexts.declared(plain, num_inputs + (plain is not function))
    return tuple(name for name, _ in names), takes_all


def _received(module: Callable[..., Any], inputs: Mapping[str, Any], context: Context | None) -> Context:
    names, takes_all = receives(module, len(inputs))
    return {name: tensor for name, tensor in (context or {}).items() if takes_all or name in names}


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """By name, latents of several layers each by its own."""
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
                f"{part} is given the context '{name}' of shape {tuple(tensor.shape)} beside {first} of shape "
                f"{tuple(tensors[first].shape)}; expected as many rows in both. Give the context one row for each "
                "datum, or for each sample."
            )
    return None


def _does_not_fit(part: str, inputs: Mapping[str, Any], context: Context, error: Exception) -> str:
    given = ", ".join(f"{name} {_shape(value)}" for name, value in (*inputs.items(), *context.items()))
    words = str(error).splitlines()[0].rstrip(".")
    return (
        f"{part} does not fit what it is given, {given or 'nothing'}: {words}. Usually a network was made for another "
        "width: make it as wide as what comes, or change the part that this comes from."
    )


def _of_other_dtype(module: Any, inputs: Mapping[str, Any]) -> str | None:
    """Which input is of another dtype than a module's parameters."""
    like = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    for name, value in inputs.items():
        if like is not None and isinstance(value, Tensor) and value.dtype != like.dtype:
            own, other = (str(dtype).removeprefix("torch.") for dtype in (like.dtype, value.dtype))
            return f"{name} of {other}, and its parameters are of {own}: give it {name}.to(torch.{own})"
    return None


def _shape(value: Any) -> str:
    if isinstance(value, Distribution):
        return f"over {tuple(value.event_shape)}"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"of type {type(value).__name__}"
