"""The recipe ``vae``: a variational autoencoder with one vector of latents, by any combination of parts."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.data.spread import center_and_units
from subo.errors import InputError
from subo.inference.semi_amortized import Refined
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.families import Family
from subo.parts.labels import ByLabel, Stack, labelled
from subo.parts.location_scale import Gaussian, ScaleSource
from subo.parts.networks import Standardize
from subo.recipes.builders import (
    DISCRETE_POSTERIORS,
    ActivationName,
    BaselineName,
    BoundName,
    GradientName,
    InferenceName,
    LikelihoodName,
    NetworkName,
    PosteriorName,
    PriorName,
    from_mean,
    make_baseline,
    make_bound,
    make_decoder,
    make_encoder,
    make_gradient,
    make_latent_family,
    make_likelihood,
    make_posterior,
    make_prior,
)
from subo.runtime.arguments import checked_arguments
from subo.runtime.room import fits_memory

__all__ = ["vae"]


@checked_arguments
@fits_memory
def vae(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    likelihood: LikelihoodName = "auto",
    scale: ScaleSource = "per-dimension",
    min_scale: float | None = 1e-3,
    num_classes: int | tuple[int, ...] | None = None,
    condition: Literal["none", "labels"] = "none",
    num_labels: int | None = None,
    latent_dim: int = 10,
    prior: PriorName = "auto",
    prior_components: int = 10,
    prior_covariance: Literal["diagonal", "full"] = "diagonal",
    posterior: PosteriorName = "gaussian",
    latent_classes: int = 10,
    inference: InferenceName = "amortized",
    refinement_steps: int = 10,
    refinement_rate: float = 0.1,
    refinement_through: bool = True,
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
    gradient: GradientName = "auto",
    baseline: BaselineName = "auto",
    normalize_signal: bool = False,
    temperature: float = 0.5,
) -> Objective:
    """A variational autoencoder with one vector of latents, by any combination of parts.

    Args:
        event_shape: Shape of one datum.
        examples: Some training data, from which units, the mean image and pseudo-inputs are taken; without them
            these are placeholders, for weights that are loaded next.
        num_data: Number of training data; needed by local inference.
        likelihood: p(x|z); auto takes bernoulli for bits, gaussian for all other numbers. poisson is for counts,
            categorical for classes, continuous-bernoulli for values that are bound to [0, 1].
        scale: Scale of a gaussian or laplace likelihood, how far x lies from the mean of p(x|z): a fixed number, or
            learned: one for all of x (shared), one for each number in x (per-dimension), or computed from z by the
            decoder (network). 1 is the standard deviation of the data, of each column of a table; values far from the
            others do not count in it.
        min_scale: The smallest that this scale may become: at 0 the density would be infinite. Of a
            continuous-bernoulli likelihood about the smallest standard deviation of its values, which lie in [0, 1];
            in Python, None sets that one no limit.
        num_classes: Values 0 .. num_classes - 1 of a categorical likelihood, one number or one for each column; as
            many as the data's by default.
        condition: What the model is told of each datum: nothing (none), or its class (labels), which p(z|c), p(x|z,c)
            and q(z|x,c) are then given.
        num_labels: Classes 0 .. num_labels - 1 of condition labels; as many as the data's by default.
        latent_dim: Size of z.
        prior: p(z); auto takes what fits the posterior: normal, or bernoulli and categorical for such latents; with
            condition labels one for each class, learned, while every other prior is the same for all classes.
        prior_components: Components of the mixture, or pseudo-inputs of the vamp prior.
        prior_covariance: Covariances of the mixture's components.
        posterior: Family of q(z|x); with bernoulli and categorical the latents are discrete.
        latent_classes: Values that each latent of the categorical posterior can take.
        inference: Where the posterior's parameters come from: a network of x (amortized), or a free row for every
            datum (local), or the network and then some gradient steps for each datum (semi-amortized).
        refinement_steps: Gradient steps of semi-amortized inference, in training and after.
        refinement_rate: Their size.
        refinement_through: Whether training's gradient goes through those steps, or stops there.
        flow_transforms: Maps in a flow, as prior or posterior.
        flow_hidden: Widths of each map's network, such as 64,64.
        network: Kind of encoder and decoder; conv is for images.
        hidden: Widths of the encoder's hidden layers, such as 200,200; the decoder has the same in reverse. A
            convolutional network (conv) has one, after its convolutions, as wide as the last of these.
        channels: Channels of the convolutions, such as 32,64; each halves the image.
        activation: Nonlinearity of encoder and decoder.
        bound: What is maximised.
        num_samples: Samples K of z a datum in training.
        beta: Weight of the KL in elbo's gradient; what is reported has weight 1.
        free_bits: Nats per datum below which elbo's gradient leaves the KL alone.
        closed_form_kl: Whether elbo's KL is in closed form where there is one.
        alpha: Order of the renyi bound.
        groups: Groups of samples of the miwae bound; it is iwae with one, elbo with as many as samples.
        gradient: How the bound's gradient is estimated; auto takes pathwise, and for discrete latents vimco with iwae,
            else score-function. straight-through and gumbel-softmax are biased, wake-phi follows another objective.
        baseline: Baseline of score-function: a running mean, leave-one-out over the samples, or a network of x; auto
            takes leave-one-out where there are samples enough, else the mean.
        normalize_signal: Whether score-function divides its signal by a running standard deviation.
        temperature: Of gumbel-softmax.

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
    center, unit, fine = center_and_units(examples, event)
    family = make_likelihood(likelihood, event, scale, min_scale, num_classes, center, fine)
    latents = make_latent_family(posterior, latent_dim, latent_classes, flow_transforms, flow_hidden)
    labels = _num_labels(condition, num_labels)

    def told(make: Callable[[Size], nn.Module], shape: Size, *, planes: bool = False) -> nn.Module:
        """A network of inputs of this shape, with the label beside them where there is one."""
        return make(shape) if labels is None else labelled(make, shape, num_labels=labels, planes=planes)

    def decoder(shape: Size) -> nn.Module:
        return from_mean(make_decoder(network, shape, family, hidden, channels, activation), family, examples)

    def encoder(outputs: int) -> nn.Module:
        chain = nn.Sequential if labels is None else Stack  # which hands the label on
        made = told(
            lambda shape: make_encoder(network, shape, outputs, hidden, channels, activation),
            event,
            planes=network == "conv",
        )
        return chain(Standardize(center, unit), made)

    likelihood_of = Conditional(family, told(decoder, latents.event_shape))
    q = make_posterior(latents, inference, num_data, encoder)
    p = _prior_by_label(prior, posterior, latents, labels) or make_prior(
        prior,
        posterior,
        latents.event_shape,
        prior_components,
        prior_covariance,
        flow_transforms,
        flow_hidden,
        q,
        family,
        examples,
    )
    followed = make_bound(bound, beta, free_bits, closed_form_kl, alpha, groups, num_samples)
    estimator = make_gradient(
        gradient,
        baseline,
        normalize_signal,
        temperature,
        posterior,
        followed,
        num_samples,
        lambda: make_baseline(event, center, unit),
    )
    if inference == "semi-amortized" and posterior in DISCRETE_POSTERIORS:
        raise InputError(
            f"semi-amortized inference moves q along the path through z, and {posterior} latents have none: "
            "use inference amortized or local"
        )
    if normalize_signal and prior == "vamp":
        raise InputError(
            "normalize_signal scales the posterior's gradient, and the vamp prior holds the posterior, whose gradient "
            "through it would stay as it is: use another prior, or leave it out"
        )
    estimator.check(latents(torch.zeros(1, latents.num_params)), followed, num_samples=num_samples)
    model = VAE(p, likelihood_of, q)
    if inference == "semi-amortized":
        refined = Refined(
            model,
            steps=refinement_steps,
            learning_rate=refinement_rate,
            through=refinement_through,
            bound=followed,
            num_samples=num_samples,
        )
        model = VAE(p, model.likelihood, refined)
    return Objective(model, followed, gradient=estimator, num_samples=num_samples)


def _num_labels(condition: str, num_labels: int | None) -> int | None:
    """How many classes the model is told apart; None if it is told nothing."""
    if condition == "labels" and num_labels is None:
        raise InputError("condition labels needs num_labels: one more than the largest label")
    return num_labels if condition == "labels" else None


def _prior_by_label(prior: str, posterior: str, latents: Family, labels: int | None) -> nn.Module | None:
    """p(z|c) with parameters for each class, where it is asked for."""
    if labels is None or prior not in ("auto", "vamp"):
        return None
    if prior == "vamp":
        raise InputError(
            "the vamp prior is a mixture of q(z|u) at inputs u, and with condition labels q is given a class beside "
            "its input, which the u have not: use the prior auto, one for each class, or mixture"
        )
    discrete = posterior in DISCRETE_POSTERIORS
    return ByLabel(latents if discrete else Gaussian(latents.event_shape), num_labels=labels)
