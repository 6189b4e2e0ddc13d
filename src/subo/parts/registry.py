"""The parts by name, one line each. An entry receives only the options that it takes: the keywords of its signature."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn

from subo.core.offers import Limited
from subo.errors import InputError
from subo.parts.columns import Columns
from subo.parts.conditionals import Local
from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.parts.families import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Family,
    NamedFamily,
    OneHotCategorical,
    Poisson,
)
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.parts.labels import ByLabel
from subo.parts.location_scale import FullRankGaussian, Gaussian, Laplace, StudentT
from subo.parts.networks import ACTIVATIONS, conv_decoder, conv_encoder, mlp, residual_mlp
from subo.parts.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixture, StandardNormal, VampPrior

__all__ = [
    "LIKELIHOODS",
    "NETWORKS",
    "POSTERIORS",
    "PRIORS",
    "Networks",
    "is_over_classes",
    "is_over_reals",
    "made",
    "options_of",
]

LIKELIHOODS: dict[str, type[Any]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "student-t": StudentT,
    "categorical": Categorical,
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "zero-inflated-negative-binomial": ZeroInflatedNegativeBinomial,
    "columns": Columns,
}
"""Families of p(x|z), called with the event shape; ``center`` and ``unit`` are the data's location and spread."""


def is_over_reals(likelihood: str) -> bool:
    """Whether a likelihood is a density of all real numbers.

    Example:
        >>> [name for name in LIKELIHOODS if is_over_reals(name)][:2]
        ['gaussian', 'laplace']
    """
    family = LIKELIHOODS[likelihood]
    return not family.is_discrete and getattr(family, "limits", None) is None


def is_over_classes(likelihood: str) -> bool:
    """Whether a likelihood describes classes, numbered 0, 1, ..., so that it must know their number.

    Example:
        >>> [name for name in LIKELIHOODS if is_over_classes(name)]
        ['categorical']
    """
    return "num_classes" in options_of(LIKELIHOODS[likelihood])


# Posteriors: called with (latent_dim,)


def _autoregressive(event: Size, *, flow_transforms: int, flow_hidden: tuple[int, ...]) -> Family:
    return InverseAutoregressiveFlow(event, transforms=flow_transforms, hidden=flow_hidden)


def _spline(event: Size, *, flow_transforms: int, flow_hidden: tuple[int, ...]) -> Family:
    return NeuralSplineFlow(event, transforms=flow_transforms, hidden=flow_hidden)


def _one_hot(event: Size, *, latent_classes: int) -> Family:
    return OneHotCategorical(event, num_classes=latent_classes)


POSTERIORS: dict[str, Callable[..., Family]] = {
    "gaussian": Gaussian,
    "full-rank": FullRankGaussian,
    "laplace": Laplace,
    "student-t": StudentT,
    "inverse-autoregressive": _autoregressive,
    "spline": _spline,
    "bernoulli": Bernoulli,
    "categorical": _one_hot,
}
"""Families of q(z|x). Discrete latents have the prior of the same name."""


# Priors: called with the latents' shape; `posterior`, `likelihood`, `latents` and `examples` are the model's


def _normal(shape: Size) -> nn.Module:
    return StandardNormal(shape[0])


def _mixture(shape: Size, *, prior_components: int, prior_covariance: Literal["diagonal", "full"]) -> nn.Module:
    return GaussianMixture(shape[0], components=prior_components, covariance=prior_covariance)


def _vamp(
    shape: Size,
    *,
    prior_components: int,
    posterior: nn.Module,
    likelihood: Family,
    inputs: Size,
    examples: Tensor | None,
) -> nn.Module:
    if isinstance(posterior, Local):
        raise InputError(
            "the vamp prior is a mixture of q(z|u) at inputs u, but local inference has no q for an input: "
            "use inference amortized, or the prior mixture"
        )
    count = prior_components
    if examples is not None and len(examples) < count:
        raise InputError(f"{count} pseudo-inputs start at as many training examples, but there are {len(examples)}")
    start = torch.zeros(count, *inputs) if examples is None else examples[:count]
    return VampPrior(posterior, start, limits=likelihood.limits if isinstance(likelihood, Limited) else None)


def _autoregressive_flow(shape: Size, *, flow_transforms: int, flow_hidden: tuple[int, ...]) -> nn.Module:
    return FlowPrior(shape[0], kind="autoregressive", transforms=flow_transforms, hidden=flow_hidden)


def _spline_flow(shape: Size, *, flow_transforms: int, flow_hidden: tuple[int, ...]) -> nn.Module:
    return FlowPrior(shape[0], kind="spline", transforms=flow_transforms, hidden=flow_hidden)


def _bits(shape: Size) -> nn.Module:
    return BernoulliPrior(shape[0])


def _classes(shape: Size) -> nn.Module:
    return CategoricalPrior(shape[0], num_classes=shape[1])


def _by_label(shape: Size, *, latents: NamedFamily, num_labels: int | None) -> nn.Module:
    if num_labels is None:
        raise InputError("the prior by-label has parameters for each class: it needs condition labels")
    return ByLabel(latents if latents.is_discrete else Gaussian(shape), num_labels=num_labels)


PRIORS: dict[str, Callable[..., nn.Module]] = {
    "normal": _normal,
    "mixture": _mixture,
    "vamp": _vamp,
    "autoregressive-flow": _autoregressive_flow,
    "spline-flow": _spline_flow,
    "bernoulli": _bits,
    "categorical": _classes,
    "by-label": _by_label,
}


# Networks: the decoder mirrors the encoder


@dataclass(frozen=True)
class Networks:
    """A kind of encoder and decoder.

    Attributes:
        encoder: Makes the encoder, given the event shape of x and the number of outputs.
        decoder: Makes the decoder, given the shape of the latents and the family of its parameters.
    """

    encoder: Callable[..., nn.Module]
    decoder: Callable[..., nn.Module]


def _perceptrons(make: Callable[..., nn.Module]) -> Networks:
    def encoder(event: Size, outputs: int, *, hidden: tuple[int, ...], activation: str, dropout: float) -> nn.Module:
        act = ACTIVATIONS[activation]
        return make(event.numel(), outputs, hidden=hidden, activation=act, dropout=dropout)

    def decoder(latents: Size, family: Family, *, hidden: tuple[int, ...], activation: str) -> nn.Module:
        return make(latents.numel(), family.num_params, hidden=hidden[::-1], activation=ACTIVATIONS[activation])

    return Networks(encoder, decoder)


def _of_images(
    event: Size, outputs: int, *, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str, dropout: float
) -> nn.Module:
    act = ACTIVATIONS[activation]
    return conv_encoder(event, outputs, channels=channels, hidden=_last(hidden), activation=act, dropout=dropout)


def _to_images(
    latents: Size, family: Family, *, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str
) -> nn.Module:
    act, event = ACTIVATIONS[activation], family.event_shape
    shape = (family.num_params // event.numel() * event[0], *event[1:])
    images = conv_decoder(latents.numel(), shape, channels=channels, hidden=_last(hidden), activation=act)
    return images if len(latents) == 1 else nn.Sequential(nn.Flatten(), images)


def _last(hidden: tuple[int, ...]) -> int:
    if not hidden:
        raise InputError("a convolutional network needs one hidden width, such as hidden=(256,)")
    return hidden[-1]


NETWORKS: dict[str, Networks] = {
    "mlp": _perceptrons(mlp),
    "residual": _perceptrons(residual_mlp),
    "conv": Networks(_of_images, _to_images),
}


@cache
def options_of(entry: Any) -> frozenset[str]:
    """The options that a table entry takes: the keywords of its signature."""
    function = entry.encoder if isinstance(entry, Networks) else entry
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    return frozenset(p.name for p in parameters if p not in positional)


def made(entry: Callable[..., Any], *args: Any, **known: Any) -> Any:
    """Calls a table entry with those of the known options that it takes."""
    return entry(*args, **{name: value for name, value in known.items() if name in options_of(entry)})
