"""Recipes: named set-ups, each a typed function from the data's shape and plain settings to an objective.

This is the only table from strings to things. The command line makes its options of these signatures and docstrings.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.bounds import ELBO, IWAE, MIWAE, Bound, Renyi
from subo.conditionals import Conditional, Local
from subo.data import Kind
from subo.distributions import ContinuousBernoulli as ContinuousBernoulliDistribution
from subo.errors import InputError
from subo.families import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Family,
    FullRankGaussian,
    Gaussian,
    Laplace,
    Poisson,
    ScaleSource,
)
from subo.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.model import VAE
from subo.networks import ACTIVATIONS, Offset, Standardize, conv_decoder, conv_encoder, mlp, residual_mlp
from subo.objective import Objective
from subo.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

__all__ = ["DISCRETE", "RECIPES", "likelihood_for", "vae"]

LikelihoodName = Literal["auto", "bernoulli", "continuous-bernoulli", "gaussian", "laplace", "categorical", "poisson"]
PosteriorName = Literal["gaussian", "full-rank", "laplace", "inverse-autoregressive", "spline"]
PriorName = Literal["normal", "mixture", "vamp", "autoregressive-flow", "spline-flow"]
NetworkName = Literal["mlp", "residual", "conv"]
ActivationName = Literal["elu", "gelu", "leaky-relu", "relu", "silu", "tanh"]
BoundName = Literal["elbo", "iwae", "renyi", "miwae"]

DISCRETE = ("bernoulli", "categorical", "poisson")
"""The likelihoods that give probabilities; the others give densities."""


def likelihood_for(kind: Kind) -> LikelihoodName:
    """The likelihood that ``auto`` stands for, by what the data's values are."""
    names: dict[Kind, LikelihoodName] = {
        "binary": "bernoulli",
        "grey": "continuous-bernoulli",
        "counts": "poisson",
        "real": "gaussian",
    }
    return names[kind]


def vae(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    likelihood: LikelihoodName = "auto",
    scale: ScaleSource = "per-dimension",
    min_scale: float = 1e-3,
    num_classes: int | None = None,
    latent_dim: int = 10,
    prior: PriorName = "normal",
    prior_components: int = 10,
    prior_covariance: Literal["diagonal", "full"] = "diagonal",
    posterior: PosteriorName = "gaussian",
    inference: Literal["amortized", "local"] = "amortized",
    flow_transforms: int = 2,
    flow_hidden: tuple[int, ...] = (64, 64),
    network: NetworkName = "mlp",
    hidden: tuple[int, ...] = (200, 200),
    channels: tuple[int, ...] = (32, 64),
    activation: ActivationName = "tanh",
    bound: BoundName = "elbo",
    num_samples: int = 1,
    beta: float = 1.0,
    free_bits: float = 0.0,
    closed_form_kl: bool = True,
    alpha: float = 0.5,
    groups: int = 2,
) -> Objective:
    """A variational autoencoder with one vector of latents, by any combination of parts.

    Args:
        event_shape: Shape of one datum.
        examples: Some training data, from which units, the mean image and pseudo-inputs are taken; without them
            these are placeholders, for weights that are loaded next.
        num_data: Number of training data; needed by local inference.
        likelihood: p(x|z); auto takes bernoulli for bits, continuous-bernoulli for values in [0, 1], poisson for
            counts, gaussian for other numbers.
        scale: Scale of a gaussian or laplace likelihood, in units of the data's standard deviation: a fixed number,
            or learned: one number (shared), one a dimension (per-dimension), or given by the decoder (network).
        min_scale: Floor of that scale; a density without one is unbounded.
        num_classes: Values 0 .. num_classes - 1 of a categorical likelihood; as many as the data's by default.
        latent_dim: Size of z.
        prior: p(z).
        prior_components: Components of the mixture, or pseudo-inputs of the vamp prior.
        prior_covariance: Covariances of the mixture's components.
        posterior: Family of q(z|x).
        inference: Where the posterior's parameters come from: a network of x (amortized), or a free row for every
            datum (local).
        flow_transforms: Maps in a flow, as prior or posterior.
        flow_hidden: Widths of each map's network, such as 64,64.
        network: Kind of encoder and decoder; conv is for images.
        hidden: Widths of the hidden layers, such as 200,200; the decoder mirrors the encoder. Of conv, the last one.
        channels: Channels of the convolutions, such as 32,64; each halves the image.
        activation: Nonlinearity of encoder and decoder.
        bound: What is maximised.
        num_samples: Samples K of z a datum in training.
        beta: Weight of the KL in elbo's gradient; what is reported has weight 1.
        free_bits: Nats per datum below which elbo's gradient leaves the KL alone.
        closed_form_kl: Whether elbo's KL is in closed form where there is one.
        alpha: Order of the renyi bound.
        groups: Groups of samples of the miwae bound; it is iwae with one, elbo with as many as samples.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings make no sense together.

    Example:
        >>> objective = vae((64,), likelihood="bernoulli", latent_dim=2, prior="vamp", bound="iwae", num_samples=5)
        >>> objective(torch.zeros(3, 64)).bound.shape
        torch.Size([3])
    """
    event = Size(event_shape)
    if latent_dim < 1:
        raise InputError(f"latent_dim must be at least 1, not {latent_dim}")
    _known("activation", activation, ActivationName)
    center, unit = _moments(examples, event)
    family = _likelihood(likelihood, event, scale, min_scale, num_classes, center, unit)
    decoder = _decoder(network, latent_dim, family, hidden, channels, activation)
    if isinstance(family, (Bernoulli, ContinuousBernoulli, Poisson)):
        decoder = Offset(decoder, _natural_mean(family, examples))

    def encoder(outputs: int) -> nn.Module:
        return nn.Sequential(Standardize(center, unit), _encoder(network, event, outputs, hidden, channels, activation))

    q = _posterior(posterior, inference, latent_dim, num_data, flow_transforms, flow_hidden, encoder)
    model = VAE(
        _prior(
            prior, latent_dim, prior_components, prior_covariance, flow_transforms, flow_hidden, q, family, examples
        ),
        Conditional(family, decoder),
        q,
    )
    return Objective(
        model, _bound(bound, beta, free_bits, closed_form_kl, alpha, groups, num_samples), num_samples=num_samples
    )


RECIPES: dict[str, Callable[..., Objective]] = {"vae": vae}


def _known(name: str, value: str, names: object) -> None:
    if value not in get_args(names):
        raise InputError(f"{name} must be one of {', '.join(get_args(names))}, not '{value}'")


def _moments(examples: Tensor | None, event: Size) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation: of each feature of a vector, of all pixels of an image."""
    shape = event if len(event) == 1 else Size()
    if examples is None:
        return torch.zeros(shape), torch.ones(shape)
    dims = 0 if len(event) == 1 else None
    deviation = examples.std(dim=dims, correction=0)
    return examples.mean(dim=dims), torch.where(deviation > 0, deviation, torch.ones_like(deviation))


def _natural_mean(family: Bernoulli | ContinuousBernoulli | Poisson, examples: Tensor | None) -> Tensor:
    """The natural parameters of the data's mean, where an untrained decoder should start."""
    if examples is None:
        return torch.zeros(family.event_shape)
    # Shrunk as by one more datum: an element that never varies would start at infinity.
    plain = 1.0 if isinstance(family, Poisson) else 0.5
    mean = (examples.sum(0) + plain) / (len(examples) + 1)
    if isinstance(family, ContinuousBernoulli):
        return ContinuousBernoulliDistribution.logits_of_mean(mean)
    return mean.log() if isinstance(family, Poisson) else torch.logit(mean)


def _likelihood(
    name: str, event: Size, scale: ScaleSource, min_scale: float, num_classes: int | None, center: Tensor, unit: Tensor
) -> Family:
    _known("likelihood", name, LikelihoodName)
    if name == "auto":
        raise InputError("likelihood auto stands for another one, by the data: take it from likelihood_for(kind)")
    if name == "categorical":
        if num_classes is None:
            raise InputError("a categorical likelihood needs num_classes: one more than the largest value")
        return Categorical(event, num_classes=num_classes)
    if name in ("gaussian", "laplace"):
        family = Gaussian if name == "gaussian" else Laplace
        return family(event, scale, min_scale=min_scale, center=center, unit=unit)
    return {"bernoulli": Bernoulli, "continuous-bernoulli": ContinuousBernoulli, "poisson": Poisson}[name](event)


def _encoder(
    network: str, event: Size, outputs: int, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str
) -> nn.Module:
    _known("network", network, NetworkName)
    act = ACTIVATIONS[activation]
    if network == "conv":
        return conv_encoder(event, outputs, channels=channels, hidden=_last(hidden), activation=act)
    make = mlp if network == "mlp" else residual_mlp
    return make(event.numel(), outputs, hidden=hidden, activation=act)


def _decoder(
    network: str, latent_dim: int, family: Family, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str
) -> nn.Module:
    _known("network", network, NetworkName)
    act = ACTIVATIONS[activation]
    if network == "conv":
        count = family.num_params // family.event_shape.numel()
        shape = (count * family.event_shape[0], *family.event_shape[1:])
        return conv_decoder(latent_dim, shape, channels=channels, hidden=_last(hidden), activation=act)
    make = mlp if network == "mlp" else residual_mlp
    return make(latent_dim, family.num_params, hidden=hidden[::-1], activation=act)


def _last(hidden: tuple[int, ...]) -> int:
    if not hidden:
        raise InputError("a convolutional network needs one hidden width, such as hidden 256")
    return hidden[-1]


def _posterior(
    name: str,
    inference: str,
    latent_dim: int,
    num_data: int | None,
    transforms: int,
    flow_hidden: tuple[int, ...],
    encoder: Callable[[int], nn.Module],
) -> nn.Module:
    _known("posterior", name, PosteriorName)
    _known("inference", inference, Literal["amortized", "local"])
    event = (latent_dim,)
    flow = {"transforms": transforms, "hidden": flow_hidden}
    families: dict[str, Callable[[], Family]] = {
        "gaussian": lambda: Gaussian(event),
        "full-rank": lambda: FullRankGaussian(event),
        "laplace": lambda: Laplace(event),
        "inverse-autoregressive": lambda: InverseAutoregressiveFlow(event, **flow),
        "spline": lambda: NeuralSplineFlow(event, **flow),
    }
    family = families[name]()
    if inference == "amortized":
        return Conditional(family, encoder(family.num_params))
    if num_data is None:
        raise InputError("local inference keeps a row of parameters for every training datum: give num_data")
    return Local(family, num_data)


def _prior(
    name: str,
    dim: int,
    components: int,
    covariance: Literal["diagonal", "full"],
    transforms: int,
    flow_hidden: tuple[int, ...],
    posterior: nn.Module,
    likelihood: Family,
    examples: Tensor | None,
) -> nn.Module:
    _known("prior", name, PriorName)
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


def _bound(
    name: str, beta: float, free_bits: float, closed_form_kl: bool, alpha: float, groups: int, num_samples: int
) -> Bound:
    _known("bound", name, BoundName)
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
