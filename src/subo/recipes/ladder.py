"""The recipe ``ladder``: any number of layers of latents in one top-down pass, shared by prior and posterior."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.errors import InputError
from subo.models.blocks import Block, BottomUp, Correction, PrecisionWeighted, Update
from subo.models.ladder import Ladder
from subo.parts.conditionals import Conditional
from subo.parts.families import Family
from subo.parts.location_scale import Gaussian
from subo.parts.networks import ACTIVATIONS, Residual, Upscale
from subo.parts.registry import made
from subo.recipes.bound_options import BoundOptions, GradientOptions
from subo.recipes.options import ActivationName, LikelihoodOptions
from subo.recipes.recipe import recipe

__all__ = ["ladder"]

MergeName = Literal["residual", "precision"]

Activation = Callable[[], nn.Module]

_FLOOR = 0.01  # minimum of the latents' scales


@dataclass(frozen=True)
class _Kind:
    """How networks over vectors or over feature maps are made; levels count from x upwards.

    Attributes:
        widths: Elements of the state's vector, or channels of its map, level by level.
        sizes: ``()`` for vectors, height and width for maps.
        norm: Width -> a normalization of each example by itself.
        linear: Widths in and out -> a linear map, or a convolution that keeps the size.
        up: Level -> a network from the features below it; from x for the first level.
        down: Level -> a network to the state of the level below it; to the last state for the first level.
        out: Family -> a network from the last state to the family's parameters.
    """

    widths: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    norm: Callable[[int], nn.Module]
    linear: Callable[[int, int], nn.Module]
    up: Callable[[int], nn.Module]
    down: Callable[[int], nn.Module]
    out: Callable[[Family], nn.Module]


def _vectors(event: Size, latent_dims: tuple[int, ...], *, hidden: tuple[int, ...]) -> _Kind:
    widths = _for_each("hidden", hidden, len(latent_dims))

    def between(width_in: int, width_out: int) -> nn.Module:
        return nn.Identity() if width_in == width_out else nn.Linear(width_in, width_out)

    def up(level: int) -> nn.Module:
        if level == 0:
            return nn.Sequential(nn.Flatten(), nn.Linear(event.numel(), widths[0]))
        return between(widths[level - 1], widths[level])

    return _Kind(
        widths,
        ((),) * len(widths),
        nn.LayerNorm,
        nn.Linear,
        up,
        lambda level: between(widths[level], widths[max(level - 1, 0)]),
        lambda family: nn.Linear(widths[0], family.num_params),
    )


def _maps(event: Size, latent_dims: tuple[int, ...], *, channels: tuple[int, ...]) -> _Kind:
    if len(event) != 3:
        raise InputError(
            f"a convolutional network needs images of shape (C, H, W); these data have the shape {tuple(event)}. "
            "Use the network mlp, or give the data a channel axis."
        )
    widths = _for_each("channels", channels, len(latent_dims))
    sizes = [(event[1], event[2])]
    for _ in widths:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))

    def out(family: Family) -> nn.Module:
        return nn.Conv2d(widths[0], family.num_params // event[1:].numel(), 3, padding=1)

    return _Kind(
        widths,
        tuple(sizes[1:]),
        lambda width: nn.GroupNorm(1, width),
        lambda width_in, width_out: nn.Conv2d(width_in, width_out, 3, padding=1),
        lambda level: nn.Conv2d((event[0], *widths)[level], widths[level], 3, stride=2, padding=1),
        lambda level: Upscale(widths[level], widths[max(level - 1, 0)], sizes[level]),
        out,
    )


def _for_each(name: str, widths: tuple[int, ...], count: int) -> tuple[int, ...]:
    """A width for every layer: surplus widths are dropped, and missing ones repeat the last."""
    if not widths:
        raise InputError(f"{name} gives the layers' widths from x upwards, such as 256,128, and not ()")
    return (widths + widths[-1:] * count)[:count]


@dataclass(frozen=True)
class LadderNetworkOptions:
    """The networks of the layers.

    Args:
        network: Kind of the networks; conv is for images, which each layer halves.
        hidden: Widths of the layers' networks, from x upwards, such as 512,256,128; if there are more layers
            than widths, the last width is repeated.
        channels: Channels of the layers' convolutions, likewise.
        depth: Residual branches per layer, both in the bottom-up and in the top-down pass.
        activation: Nonlinearity of all networks.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"network": {"mlp": _vectors, "conv": _maps}}

    network: Literal["mlp", "conv"] = "mlp"
    hidden: tuple[int, ...] = (512, 256, 128)
    channels: tuple[int, ...] = (32, 64, 64)
    depth: int = 1
    activation: ActivationName = "silu"

    def build(self, event: Size, latent_dims: tuple[int, ...]) -> _Kind:
        """How the networks are made, for layers with these latents."""
        return made(self.CHOICES["network"][self.network], event, latent_dims, **asdict(self))


@recipe
def ladder(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    columns: tuple[str, ...] | None = None,
    likelihood: LikelihoodOptions,
    latent_dims: tuple[int, ...] = (32, 16, 8),
    merge: MergeName = "residual",
    network: LadderNetworkOptions,
    bound: BoundOptions,
    gradient: GradientOptions,
) -> Objective:
    """A ladder autoencoder: layers of latents drawn from the top down, in the prior and in the posterior.

    Between the layers there are residual networks, normalized per example, with branches that start small, and the
    posterior starts near the prior: any number of layers can be trained from the first step on. KL warm-up
    (``kl_warmup_epochs`` of ``fit``) and free bits help to keep the upper ones in use.

    Args:
        event_shape: Shape of one example.
        examples: Some training data, which set the units and the mean image; without them these are
            placeholders, for weights that are loaded next.
        num_data: Number of training examples; not needed here.
        columns: What the columns of a table are, see :class:`subo.parts.columns.Columns`; None for other data.
        latent_dims: Sizes of z1, z2, ..., from x upwards, such as 32,16,8; for conv, channels of their maps.
        merge: How q is made from p: shifted and rescaled depending on the state and x (residual), or multiplied by a
            Gaussian computed from x (precision).

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings are incompatible.

    Example:
        >>> objective = ladder((64,), likelihood="bernoulli", latent_dims=(8, 4, 2, 2), hidden=(32, 16))
        >>> objective(torch.zeros(3, 64)).rate.shape
        torch.Size([4, 3])
    """
    event = Size(event_shape)
    if not latent_dims:
        raise InputError("latent_dims are the sizes of z1, z2, ..., such as 32,16,8, and not ()")
    ends = likelihood.build(event, examples=examples, columns=columns)
    family, followed, num_samples = ends.family, bound.build(), bound.num_samples
    estimator = gradient.build(ends)
    make, depth = network.build(ends.inputs, latent_dims), network.depth
    act, count = ACTIVATIONS[network.activation], len(latent_dims)

    def branches(level: int) -> nn.Sequential:
        return nn.Sequential(*(_branch(make, make.widths[level], act, share=count * depth) for _ in range(depth)))

    def block(level: int) -> Block:
        width, dim = make.widths[level], latent_dims[level]
        latents = Gaussian((dim, *make.sizes[level]), min_scale=_FLOOR)
        prior = nn.Sequential(make.norm(width), act(), make.linear(width, 2 * dim))
        seen = 2 * width if merge == "residual" else width
        proposal = nn.Sequential(make.norm(seen), make.linear(seen, width), act(), make.linear(width, 2 * dim))
        _shrink(proposal, 1 / sqrt(count))  # q starts near p: all layers together as far as one alone
        posterior = (Correction if merge == "residual" else PrecisionWeighted)(Conditional(latents, proposal))
        below = nn.Sequential(branches(level), make.down(level))
        return Block(Conditional(latents, prior), posterior, Update(make.linear(dim, width), below))

    levels = range(count)
    up = [nn.Sequential(make.up(level), branches(level)) for level in levels]
    up[0].insert(0, ends.entry())
    decoder = ends.start(nn.Sequential(make.norm(make.widths[0]), act(), make.out(family)))
    start = torch.zeros(make.widths[-1], *make.sizes[-1])
    model = Ladder(
        [block(level) for level in reversed(levels)], BottomUp(*up), Conditional(family, decoder), start=start
    )
    return Objective(model, followed, gradient=estimator, num_samples=num_samples)


def _branch(make: _Kind, width: int, act: Activation, *, share: int) -> nn.Module:
    """A residual branch with an initial output scaled so that `share` of them together have the variance of one."""
    branch = nn.Sequential(make.norm(width), act(), make.linear(width, width), act(), make.linear(width, width))
    _shrink(branch, 1 / sqrt(share))
    return Residual(branch)


@torch.no_grad()
def _shrink(network: nn.Sequential, factor: float) -> None:
    """Scales a network's last layer and sets its bias to 0."""
    last: Any = network[-1]
    last.weight.mul_(factor)
    last.bias.zero_()
