"""Networks as lists of operations, which a page carries out without torch.

Each operation is a record whose ``op`` names it; numbers lie in a :class:`~subo.explorer.numbers.Store`. The page keeps
one flat array of values, so that operations which only change a shape disappear.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import pad

from subo.explorer.numbers import Store
from subo.parts.cells import Cells, GivenCells
from subo.parts.labels import Labelled, Stack
from subo.parts.networks import Offset, Residual, Standardize, Tanh, Upscale
from subo.parts.size_factors import LogPerSize, SumToTotal, WithOffset

__all__ = ["WRITERS", "NotExportedError", "operations"]

Operation = dict[str, Any]


class NotExportedError(Exception):
    """A network has a part that no operation stands for; says which."""


@dataclass(frozen=True)
class Written:
    """What a module became.

    Attributes:
        operations: In order.
        shape: Shape of one result.
    """

    operations: list[Operation]
    shape: Size


def operations(network: nn.Module, shape: Size, store: Store) -> Written:
    """A network in evaluation mode as a list of operations.

    Args:
        network: The network, made of modules in WRITERS.
        shape: Shape of one input.
        store: Receives its numbers.

    Raises:
        NotExportedError: It has a part that is not in WRITERS.

    Example:
        >>> from subo.parts.networks import mlp
        >>> [record["op"] for record in operations(mlp(2, 3, hidden=(4,)), Size([2]), Store()).operations]
        ['linear', 'activation', 'linear']
    """
    for kind in type(network).__mro__:
        if kind in WRITERS and type(network).forward is kind.forward:  # else it computes something of its own
            return WRITERS[kind](network, shape, store)
    raise NotExportedError(f"{type(network).__name__} has no counterpart in the page")


def _sequence(network: Any, shape: Size, store: Store) -> Written:
    done: list[Operation] = []
    for part in network:
        written = operations(part, shape, store)
        done, shape = done + written.operations, written.shape
    return Written(done, shape)


def _unchanged(network: nn.Module, shape: Size, store: Store) -> Written:
    return Written([], shape)


def _flatten(network: nn.Module, shape: Size, store: Store) -> Written:
    return Written([], Size([shape.numel()]))


def _unflatten(network: Any, shape: Size, store: Store) -> Written:
    if network.dim != 1 or len(shape) != 1:
        raise NotExportedError("Unflatten is known of vectors alone")
    return Written([], Size(network.unflattened_size))


def _linear(network: Any, shape: Size, store: Store) -> Written:
    if len(shape) != 1:
        raise NotExportedError("a Linear layer on inputs with several dimensions")
    record = {"op": "linear", "in": network.in_features, "out": network.out_features}
    return Written([record | _affine(network, store)], Size([network.out_features]))


def _affine(network: Any, store: Store) -> Operation:
    bias = None if network.bias is None else store.add(network.bias)
    return {"weight": store.add(network.weight), "bias": bias}


def _activation(name: str) -> Callable[[Any, Size, Store], Written]:
    def write(network: Any, shape: Size, store: Store) -> Written:
        record: Operation = {"op": "activation", "name": name}
        if name == "gelu" and network.approximate != "none":
            record["name"] = "gelu-tanh"
        if name in ("elu", "leaky-relu"):
            record["slope"] = network.alpha if name == "elu" else network.negative_slope
        if name == "softplus":
            record["slope"] = network.beta
        return Written([record], shape)

    return write


def _convolution(network: Any, shape: Size, store: Store) -> Written:
    if network.groups != 1 or network.padding_mode != "zeros" or isinstance(network.padding, str):
        raise NotExportedError("a convolution with groups or a padding other than zeros")
    if network.dilation != (1, 1):
        raise NotExportedError("a convolution with dilation")
    sides = zip(shape[1:], network.kernel_size, network.stride, network.padding, strict=True)
    size = [(side + 2 * padded - kernel) // stride + 1 for side, kernel, stride, padded in sides]
    out = Size([network.out_channels, *size])
    return Written([_of_images("convolution", network, network.weight, shape, out, store)], out)


def _transposed(network: Any, shape: Size, store: Store) -> Written:
    if network.groups != 1 or network.dilation != (1, 1):
        raise NotExportedError("a transposed convolution with groups or dilation")
    sides = zip(shape[1:], network.kernel_size, network.stride, network.padding, network.output_padding, strict=True)
    size = [(side - 1) * stride - 2 * padded + kernel + more for side, kernel, stride, padded, more in sides]
    out = Size([network.out_channels, *size])
    return Written([_of_images("transposed", network, network.weight, shape, out, store)], out)


def _of_images(name: str, network: Any, weight: Tensor, shape: Size, out: Size, store: Store) -> Operation:
    return {
        "op": name,
        "in": list(shape),
        "out": list(out),
        "kernel": list(weight.shape[2:]),
        "stride": list(network.stride),
        "padding": list(network.padding),
        "weight": store.add(weight),
        "bias": None if network.bias is None else store.add(network.bias),
    }


def _upscale(network: Upscale, shape: Size, store: Store) -> Written:
    """The transposed convolution that :class:`~subo.parts.networks.Upscale` is, cut to its size."""
    w = network.convolution.weight.flip(2, 3).transpose(0, 1)
    rows = pad(w, (0, 0, 0, 1)) + pad(w, (0, 0, 1, 0))
    kernel = pad(rows, (0, 1)) + pad(rows, (1, 0))
    out = Size([kernel.shape[1], *network.size])
    record = _of_images("transposed", network.convolution, kernel, shape, out, store)
    return Written([record | {"stride": [2, 2], "padding": [1, 1]}], out)


def _layer_norm(network: nn.LayerNorm, shape: Size, store: Store) -> Written:
    if Size(network.normalized_shape) != shape:
        raise NotExportedError("LayerNorm over a part of its input")
    record: Operation = {"op": "normalize", "size": shape.numel(), "eps": network.eps}
    ones, zeros = torch.ones(shape), torch.zeros(shape)
    record["weight"] = store.add(ones if network.weight is None else network.weight)
    record["bias"] = store.add(zeros if network.bias is None else network.bias)
    return Written([record], shape)


def _batch_norm(network: Any, shape: Size, store: Store) -> Written:
    """In evaluation mode, a factor and a shift of each channel."""
    if network.running_mean is None:
        raise NotExportedError("BatchNorm without running statistics")
    factor = (network.running_var + network.eps).rsqrt()
    factor = factor if network.weight is None else factor * network.weight
    shift = -network.running_mean * factor + (0 if network.bias is None else network.bias)
    channels = (-1, *[1] * (len(shape) - 1))
    return Written(
        [_elementwise(factor.view(channels).expand(shape), shift.view(channels).expand(shape), store)], shape
    )


def _elementwise(factor: Tensor, shift: Tensor, store: Store) -> Operation:
    return {
        "op": "affine",
        "size": factor.numel(),
        "weight": store.add(factor, exact=True),
        "bias": store.add(shift, exact=True),
    }


def _standardize(network: Standardize, shape: Size, store: Store) -> Written:
    factor, shift = 1 / network.unit, -network.center / network.unit
    scaled = _elementwise(factor.expand(shape), shift.expand(shape), store)
    if not network.limited:
        return Written([scaled], shape)
    limits = {name: _finite(getattr(network, name)) for name in ("low", "high")}
    return Written([{"op": "clamp", **limits}, scaled], shape)


def _finite(limits: Tensor) -> list[float | None]:
    """Numbers as JSON has them; None where infinite."""
    return [None if math.isinf(number) else number for number in limits.tolist()]


def _offset(network: Any, shape: Size, store: Store) -> Written:
    inner = operations(network.network, shape, store)
    shift = _elementwise(torch.ones_like(network.offset), network.offset, store)
    return Written([*inner.operations, shift], Size([network.offset.numel()]))


def _residual(network: Residual, shape: Size, store: Store) -> Written:
    branch = operations(network.branch, shape, store)
    return Written([{"op": "residual", "branch": branch.operations}], shape)


def _labelled(network: Labelled, shape: Size, store: Store) -> Written:
    """A one-hot code, or a plane for each class, behind the input: channels come first, so that both are appended."""
    pixels = shape[1:].numel() if network.planes else 1
    join = {"op": "join", "name": "label", "classes": network.num_labels, "repeat": pixels}
    wider = (shape[0] + network.num_labels, *shape[1:]) if network.planes else (shape.numel() + network.num_labels,)
    inner = operations(network.network, Size(wider), store)
    return Written([join, *inner.operations], inner.shape)


def _given_cells(network: GivenCells, shape: Size, store: Store) -> Written:
    cells = _cells(network.cells, Size([]), store).operations
    join = {"op": "join", "name": "given", "operations": cells}
    inner = operations(network.network, Size([shape.numel() + network.cells.out_features]), store)
    return Written([join, *inner.operations], inner.shape)


def _cells(network: Cells, shape: Size, store: Store) -> Written:
    lists = {name: getattr(network, name).tolist() for name in ("numbers", "counts", "spikes", "column", "level")}
    units = {name: getattr(network, name).tolist() for name in ("center", "unit")}
    limits = {name: _finite(getattr(network, name)) for name in ("unseen", "low", "high")}
    return Written([{"op": "cells", **lists, **units, **limits}], Size([network.out_features]))


def _with_offset(network: WithOffset, shape: Size, store: Store) -> Written:
    inner = operations(network.network, shape, store)
    places = network.log_means.nonzero()[:, 0].tolist()
    return Written([*inner.operations, {"op": "offset", "places": places}], Size([network.log_means.numel()]))


def _sum_to_total(network: SumToTotal, shape: Size, store: Store) -> Written:
    inner = operations(network.network, shape, store)
    places, logits = network.log_means.nonzero()[:, 0].tolist(), network.zero_logits
    record: dict[str, Any] = {"op": "total", "places": places, "total": network.total.item()}
    record["logits"] = None if logits is None else logits.nonzero()[:, 0].tolist()
    return Written([*inner.operations, record], Size([network.log_means.numel()]))


def _log_per_size(network: LogPerSize, shape: Size, store: Store) -> Written:
    return Written([{"op": "per-size"}], shape)


WRITERS: dict[type[nn.Module], Callable[[Any, Size, Store], Written]] = {
    nn.Sequential: _sequence,
    Stack: _sequence,
    nn.Identity: _unchanged,
    nn.Dropout: _unchanged,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _transposed,
    Upscale: _upscale,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    Standardize: _standardize,
    Offset: _offset,
    Residual: _residual,
    Labelled: _labelled,
    GivenCells: _given_cells,
    Cells: _cells,
    WithOffset: _with_offset,
    SumToTotal: _sum_to_total,
    LogPerSize: _log_per_size,
    Tanh: _activation("tanh"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Softplus: _activation("softplus"),
    nn.SiLU: _activation("silu"),
    nn.ReLU: _activation("relu"),
    nn.ELU: _activation("elu"),
    nn.GELU: _activation("gelu"),
    nn.LeakyReLU: _activation("leaky-relu"),
}
"""What each kind of module becomes: a function and a line here make another one known."""
