"""Networks: tensors to tensors. They know nothing about probability, and your own modules work just as well."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import conv_transpose2d, pad

from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = [
    "ACTIVATIONS",
    "Offset",
    "Standardize",
    "Tanh",
    "conv_decoder",
    "conv_encoder",
    "mlp",
    "residual_mlp",
    "without_limits",
]


class Tanh(nn.Tanh):
    """torch's tanh; where no gradient is needed, the same up to rounding by ``2 / (1 + exp(-2x)) - 1``.

    torch's logistic function takes a quarter of the time of its tanh on a CPU, and log p(x) with thousands of
    samples spends a tenth of its time there. The error is absolute, that of numbers of order one.

    Args:
        may_overwrite: Whether its input may be overwritten while the library measures a model, see
            :func:`subo.runtime.devices.evaluating`: nothing else uses it then, and a pass over memory that is not in
            the cache is saved.
    """

    def __init__(self, *, may_overwrite: bool = False):
        super().__init__()
        self.may_overwrite, self.overwrites = may_overwrite, False

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(input)
        logistic = (input.mul_(2) if self.overwrites else input.mul(2)).sigmoid_()
        return torch.add(logistic.new_full((), -1.0), logistic, alpha=2, out=logistic)  # one pass for two


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky-relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": Tanh,
}


def _behind_layer(activation: nn.Module, dropout: float = 0.0) -> list[nn.Module]:
    """The nonlinearity after one of our own layers, whose output nothing else uses, and its dropout."""
    nonlinear = Tanh(may_overwrite=True) if type(activation) is Tanh else activation
    return [nonlinear, nn.Dropout(dropout)] if dropout else [nonlinear]


@checked_arguments
def mlp(
    in_features: int,
    out_features: int,
    *,
    hidden: Sequence[int] = (200, 200),
    activation: Callable[[], nn.Module] = Tanh,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A multilayer perceptron on flattened input: ``(N, ...) -> (N, out_features)``.

    While the library measures a model, tanh may overwrite the output of the layer before it (:class:`Tanh`): a hook
    that keeps hidden layers during an evaluation must copy them.

    Args:
        in_features: Elements of one input.
        out_features: Elements of one output.
        hidden: Widths of the hidden layers; without any, the network is linear.
        activation: Constructor of the nonlinearity after each hidden layer.
        dropout: Share of hidden units that are dropped in training.

    Example:
        >>> mlp(784, 100)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 100])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise([in_features, *hidden]):
        layers += [nn.Linear(width_in, width_out), *_behind_layer(activation(), dropout)]
    return nn.Sequential(*layers, nn.Linear([in_features, *hidden][-1], out_features))


class Residual(nn.Module):
    """``x + branch(x)``."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@checked_arguments
def residual_mlp(
    in_features: int,
    out_features: int,
    *,
    hidden: Sequence[int] = (200, 200),
    activation: Callable[[], nn.Module] = nn.SiLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A perceptron of pre-normalized residual blocks: ``(N, ...) -> (N, out_features)``.

    Args:
        in_features: Elements of one input.
        out_features: Elements of one output.
        hidden: Widths of the blocks; all must be the same, since a block adds to its input.
        activation: Constructor of the nonlinearity inside each block.
        dropout: Share of each block's hidden units that are dropped in training.
    """
    if not hidden or len(set(hidden)) != 1:
        raise InputError(f"a residual network needs blocks of one width, such as (200, 200), not {tuple(hidden)}")
    width = hidden[0]

    def branch() -> nn.Module:
        nonlinear = _behind_layer(activation(), dropout)
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), *nonlinear, nn.Linear(width, width))

    blocks = [Residual(branch()) for _ in hidden]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_features, width), *blocks, nn.LayerNorm(width), nn.Linear(width, out_features)
    )


class Upscale(nn.Module):
    """Repeats pixels in both directions, then convolves: ``(N, C, h, w) -> (N, C', H, W)``.

    A plain transposed convolution of stride 2 gives neighbors to different weights, which leaves a checkerboard in
    pictures (Odena et al., 2016). Here all pixels share a 3 x 3 kernel w. Both steps are one transposed convolution
    with the 4 x 4 kernel that is w, flipped, summed over 2 x 2 shifts: less than half the operations.

    Args:
        in_channels: Number of input channels C.
        out_channels: Number of output channels C'.
        size: ``(H, W)``, at most ``(2 h, 2 w)``; the rest is cut off.
    """

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        w = self.convolution.weight.flip(2, 3).transpose(0, 1)
        rows = pad(w, (0, 0, 0, 1)) + pad(w, (0, 0, 1, 0))
        kernel = pad(rows, (0, 1)) + pad(rows, (1, 0))
        return conv_transpose2d(x, kernel, self.convolution.bias, stride=2, padding=1)[..., :height, :width]


def _halved(size: int, times: int) -> list[int]:
    """The sizes produced by strides of 2, from `size` down: each is half of the last, rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def _image(shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int, int]:
    if not channels:
        raise InputError("a convolutional network needs channels for at least one convolution, such as 32,64")
    if len(shape) != 3:
        raise InputError(
            f"a convolutional network needs images of shape (C, H, W); these data have the shape {tuple(shape)}. "
            "Use the network 'mlp', or give the data a channel axis."
        )
    return shape[0], shape[1], shape[2]


@checked_arguments
def conv_encoder(
    image_shape: Sequence[int],
    out_features: int,
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 256,
    activation: Callable[[], nn.Module] = nn.SiLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Convolutions of stride 2, then a perceptron: ``(N, C, H, W) -> (N, out_features)``, any C, H and W.

    Args:
        image_shape: ``(C, H, W)``.
        out_features: Elements of one output.
        channels: Output channels of each convolution; each halves the image, rounding up.
        hidden: Width of the perceptron's hidden layer.
        activation: Constructor of the nonlinearities.
        dropout: Share of the perceptron's hidden units that are dropped in training.
    """
    colors, height, width = _image(image_shape, channels)
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise([colors, *channels]):
        layers += [nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1), activation()]
    top = [colors, *channels][-1] * _halved(height, len(channels))[-1] * _halved(width, len(channels))[-1]
    perceptron = [nn.Linear(top, hidden), *_behind_layer(activation(), dropout), nn.Linear(hidden, out_features)]
    return nn.Sequential(*layers, nn.Flatten(), *perceptron)


@checked_arguments
def conv_decoder(
    in_features: int,
    image_shape: Sequence[int],
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 256,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """The mirror of :func:`conv_encoder`: ``(N, in_features) -> (N, C, H, W)``, any C, H and W, odd sizes too.

    Each step doubles the image and convolves it, see :class:`Upscale`.

    Args:
        in_features: Elements of one input.
        image_shape: ``(C, H, W)`` of the output; for a family that takes P numbers per element, C is P times the
            image's channels.
        channels: As given to the encoder: the decoder uses them in reverse order.
        hidden: Width of the perceptron's hidden layer.
        activation: Constructor of the nonlinearities.
    """
    colors, height, width = _image(image_shape, channels)
    heights, widths = _halved(height, len(channels)), _halved(width, len(channels))
    start = (channels[-1], heights[-1], widths[-1])
    layers: list[nn.Module] = [
        nn.Linear(in_features, hidden), activation(),
        nn.Linear(hidden, Size(start).numel()), nn.Unflatten(1, start),
    ]  # fmt: skip
    outputs = [colors, *channels][:-1][::-1]
    sizes = list(zip(heights, widths, strict=True))[:-1][::-1]
    for c_in, c_out, size in zip(channels[::-1], outputs, sizes, strict=True):
        layers += [activation(), Upscale(c_in, c_out, size)]
    return nn.Sequential(*layers)


class Standardize(nn.Module):
    """``(x - center) / unit``, so that a network sees numbers of order one, whatever the data's units.

    Args:
        center: A number or a tensor of one input's shape.
        unit: As `center`, positive.
        within: The lowest and the highest x that are let through, of that shape, too; lower and higher ones are as
            these. A network has seen nothing there, and what it makes of one number that lies far away, such as a
            distance in another unit, would spoil all that it makes of the others.
    """

    center: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, center: float | Tensor, unit: float | Tensor, *, within: tuple[Tensor, Tensor] | None = None):
        super().__init__()
        self.limited = within is not None
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.get_default_dtype()).clone())
        self.register_buffer("unit", torch.as_tensor(unit, dtype=torch.get_default_dtype()).clone())

        if within is not None:
            self.register_buffer("low", within[0].clone())
            self.register_buffer("high", within[1].clone())
            self.register_load_state_dict_pre_hook(without_limits)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(self.low, self.high) if self.limited else x
        return (x - self.center) / self.unit


def without_limits(module: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Gives weights of before networks had limits those of a module that was made without examples: infinite ones."""
    for name in ("low", "high"):
        weights.setdefault(f"{prefix}{name}", getattr(module, name))


class Offset(nn.Module):
    """``network(z) + offset``: lets an untrained decoder start at the data's mean.

    Args:
        network: ``(N, ...) -> (N, P)`` in any shape of P numbers.
        offset: P numbers, in any shape; not trained.
    """

    def __init__(self, network: nn.Module, offset: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("offset", offset.flatten().clone())

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).flatten(1) + self.offset
