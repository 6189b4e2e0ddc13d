"""Parts of recipes by name: the tables from strings to priors, families, networks, bounds and gradients."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn

from subo.core.bounds import ELBO, IWAE, MIWAE, Bound, Renyi
from subo.errors import InputError
from subo.gradients import (
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    Pathwise,
    ScoreFunction,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
)
from subo.parts.conditionals import Conditional, Local
from subo.parts.families import Bernoulli, Categorical, ContinuousBernoulli, Family, OneHotCategorical, Poisson
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.parts.location_scale import FullRankGaussian, Gaussian, Laplace, ScaleSource
from subo.parts.networks import ACTIVATIONS, Offset, Standardize, conv_decoder, conv_encoder, mlp, residual_mlp
from subo.parts.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixture, StandardNormal, VampPrior

LikelihoodName = Literal["auto", "bernoulli", "continuous-bernoulli", "gaussian", "laplace", "categorical", "poisson"]
PosteriorName = Literal[
    "gaussian", "full-rank", "laplace", "inverse-autoregressive", "spline", "bernoulli", "categorical"
]
PriorName = Literal[
    "auto", "normal", "mixture", "vamp", "autoregressive-flow", "spline-flow", "bernoulli", "categorical"
]
InferenceName = Literal["amortized", "local", "semi-amortized"]
NetworkName = Literal["mlp", "residual", "conv"]
ActivationName = Literal["elu", "gelu", "leaky-relu", "relu", "silu", "tanh"]
BoundName = Literal["elbo", "iwae", "renyi", "miwae"]
GradientName = Literal[
    "auto",
    "pathwise",
    "sticking-the-landing",
    "dreg",
    "score-function",
    "vimco",
    "wake-phi",
    "straight-through",
    "gumbel-softmax",
]
BaselineName = Literal["auto", "none", "mean", "leave-one-out", "network"]

DISCRETE_POSTERIORS = ("bernoulli", "categorical")
"""The posteriors without a path through z."""


def natural_mean(family: Bernoulli | ContinuousBernoulli | Poisson, examples: Tensor | None) -> Tensor:
    """The natural parameters of the data's mean, where an untrained decoder should start."""
    if examples is None:
        return torch.zeros(family.event_shape)
    # Shrunk as by one more example, the mean of the plainest member: what never varies would start at infinity.
    plain = family(torch.zeros(1, family.num_params)).mean[0]
    return family.params_of_mean((examples.sum(0) + plain) / (len(examples) + 1))


def from_mean(decoder: nn.Module, family: Family, examples: Tensor | None) -> nn.Module:
    """The decoder, which starts at the data's mean where that tells the family's parameters."""
    if isinstance(family, (Bernoulli, ContinuousBernoulli, Poisson)):
        return Offset(decoder, natural_mean(family, examples))
    return decoder


def make_baseline(event: Size, center: Tensor, unit: Tensor) -> nn.Module:
    """A network from x to a number, the baseline of a score-function gradient."""
    return nn.Sequential(Standardize(center, unit), mlp(event.numel(), 1, hidden=(100,)))


def make_likelihood(
    name: str,
    event: Size,
    scale: ScaleSource,
    min_scale: float | None,
    num_classes: int | Sequence[int] | None,
    center: Tensor,
    unit: Tensor,
) -> Family:
    """The family of p(x|z)."""
    if name == "auto":
        raise InputError("likelihood auto stands for another one, by the data: take it from likelihood_for(kind)")
    if name == "categorical":
        if num_classes is None:
            raise InputError("a categorical likelihood needs num_classes: one more than the largest value")
        return Categorical(event, num_classes=num_classes)
    if name in ("gaussian", "laplace"):
        if min_scale is None:
            raise InputError(f"the likelihood {name} needs min_scale: without a floor its density is unbounded")
        family = Gaussian if name == "gaussian" else Laplace
        return family(event, scale, min_scale=min_scale, center=center, unit=unit)
    if name == "continuous-bernoulli":
        return ContinuousBernoulli(event, min_scale=min_scale)
    return {"bernoulli": Bernoulli, "poisson": Poisson}[name](event)


def make_encoder(
    network: str, event: Size, outputs: int, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str
) -> nn.Module:
    """From x to as many outputs as are asked for."""
    act = ACTIVATIONS[activation]
    if network == "conv":
        return conv_encoder(event, outputs, channels=channels, hidden=_last(hidden), activation=act)
    make = mlp if network == "mlp" else residual_mlp
    return make(event.numel(), outputs, hidden=hidden, activation=act)


def make_decoder(
    network: str,
    latent_shape: Size,
    family: Family,
    hidden: tuple[int, ...],
    channels: tuple[int, ...],
    activation: str,
) -> nn.Module:
    """From z to the parameters of the likelihood's family: the encoder mirrored."""
    act = ACTIVATIONS[activation]
    if network == "conv":
        count = family.num_params // family.event_shape.numel()
        shape = (count * family.event_shape[0], *family.event_shape[1:])
        images = conv_decoder(latent_shape.numel(), shape, channels=channels, hidden=_last(hidden), activation=act)
        return images if len(latent_shape) == 1 else nn.Sequential(nn.Flatten(), images)
    make = mlp if network == "mlp" else residual_mlp
    return make(latent_shape.numel(), family.num_params, hidden=hidden[::-1], activation=act)


def _last(hidden: tuple[int, ...]) -> int:
    if not hidden:
        raise InputError("a convolutional network needs one hidden width, such as hidden 256")
    return hidden[-1]


def make_latent_family(
    name: str, latent_dim: int, classes: int, transforms: int, flow_hidden: tuple[int, ...]
) -> Family:
    """The family of q(z|x)."""
    event = (latent_dim,)
    families: dict[str, Callable[[], Family]] = {
        "gaussian": lambda: Gaussian(event),
        "full-rank": lambda: FullRankGaussian(event),
        "laplace": lambda: Laplace(event),
        "inverse-autoregressive": lambda: InverseAutoregressiveFlow(event, transforms=transforms, hidden=flow_hidden),
        "spline": lambda: NeuralSplineFlow(event, transforms=transforms, hidden=flow_hidden),
        "bernoulli": lambda: Bernoulli(event),
        "categorical": lambda: OneHotCategorical(event, num_classes=classes),
    }
    return families[name]()


def make_posterior(
    family: Family, inference: str, num_data: int | None, encoder: Callable[[int], nn.Module]
) -> nn.Module:
    """q(z|x), with its parameters from an encoder or from rows of their own."""
    if inference != "local":
        return Conditional(family, encoder(family.num_params))
    if num_data is None:
        raise InputError("local inference keeps a row of parameters for every training datum: give num_data")
    return Local(family, num_data)


def make_prior(
    name: str,
    latents: str,
    shape: Size,
    components: int,
    covariance: Literal["diagonal", "full"],
    transforms: int,
    flow_hidden: tuple[int, ...],
    posterior: nn.Module,
    likelihood: Family,
    examples: Tensor | None,
) -> nn.Module:
    """p(z), over what the posterior's family `latents` is over."""
    fitting = latents if latents in DISCRETE_POSTERIORS else "normal"
    if name == "auto":
        name = fitting
    if name != "vamp" and (name in DISCRETE_POSTERIORS or fitting in DISCRETE_POSTERIORS) and name != fitting:
        raise InputError(
            f"the prior {name} is not over the latents of the posterior {latents}: use prior {fitting}, or auto"
        )
    dim = shape[0]
    if name == "bernoulli":
        return BernoulliPrior(dim)
    if name == "categorical":
        return CategoricalPrior(dim, num_classes=shape[1])
    if name == "normal":
        return StandardNormal(dim)
    if name == "mixture":
        return GaussianMixture(dim, components=components, covariance=covariance)
    if name != "vamp":
        kind = "autoregressive" if name == "autoregressive-flow" else "spline"
        return FlowPrior(dim, kind=kind, transforms=transforms, hidden=flow_hidden)
    if isinstance(posterior, Local):
        raise InputError(
            "the vamp prior is a mixture of q(z|u) at inputs u, and local inference has no q of an input: "
            "use inference amortized, or the prior mixture"
        )
    if examples is not None and len(examples) < components:
        raise InputError(f"{components} pseudo-inputs start at as many training data, and there are {len(examples)}")
    start = torch.zeros(components, *likelihood.event_shape) if examples is None else examples[:components]
    bounded = isinstance(likelihood, (Bernoulli, ContinuousBernoulli))
    return VampPrior(posterior, start, limits=(0.0, 1.0) if bounded else None)


def make_gradient(
    name: str,
    baseline: str,
    normalize: bool,
    temperature: float,
    latents: str,
    bound: Bound,
    num_samples: int,
    network: Callable[[], nn.Module],
) -> GradientEstimator:
    """The gradient estimator, for latents of this posterior; `network` makes one from x to a number."""
    if name == "auto":
        discrete = "vimco" if isinstance(bound, IWAE) else "score-function"
        name = discrete if latents in DISCRETE_POSTERIORS else "pathwise"
    if name != "score-function" and (baseline != "auto" or normalize):
        raise InputError(f"baseline and normalize_signal are settings of the gradient score-function, not of {name}")
    if baseline == "auto":
        baseline = "leave-one-out" if num_samples > 1 and isinstance(bound, ELBO) else "mean"
    baselines: dict[str, Any] = {"none": "none", "mean": "mean", "leave-one-out": "leave-one-out"}
    return {
        "pathwise": Pathwise,
        "sticking-the-landing": StickingTheLanding,
        "dreg": DReG,
        "score-function": lambda: ScoreFunction(baselines.get(baseline) or network(), normalize=normalize),
        "vimco": VIMCO,
        "wake-phi": WakePhi,
        "straight-through": StraightThrough,
        "gumbel-softmax": lambda: GumbelSoftmax(temperature),
    }[name]()


def make_bound(
    name: str, beta: float, free_bits: float, closed_form_kl: bool, alpha: float, groups: int, num_samples: int
) -> Bound:
    """The bound, of as many samples."""
    if name != "elbo" and (beta != 1 or free_bits != 0):
        raise InputError(f"beta and free_bits weigh the KL of the bound elbo; {name} has none of its own")
    if name == "miwae" and num_samples % groups:
        raise InputError(
            f"miwae splits the samples into equal groups: num_samples {num_samples} is no multiple of {groups}"
        )
    if name in ("iwae", "renyi") and num_samples == 1:
        raise InputError(f"the bound {name} of one sample is the ELBO: raise num_samples, or use elbo")
    return {
        "elbo": lambda: ELBO(beta=beta, free_bits=free_bits, closed_form_kl=closed_form_kl),
        "iwae": IWAE,
        "renyi": lambda: Renyi(alpha),
        "miwae": lambda: MIWAE(groups=groups),
    }[name]()
