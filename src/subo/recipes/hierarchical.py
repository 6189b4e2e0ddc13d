"""The recipe ``hierarchical``: several layers of latents, each above given the one below by a bottom-up posterior."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.data.spread import center_and_units
from subo.errors import InputError
from subo.models.graph import Child, Joint
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian, ScaleSource
from subo.parts.networks import ACTIVATIONS, Standardize, mlp
from subo.parts.priors import StandardNormal
from subo.recipes.builders import (
    ActivationName,
    BaselineName,
    BoundName,
    LikelihoodName,
    NetworkName,
    from_mean,
    make_baseline,
    make_bound,
    make_decoder,
    make_encoder,
    make_gradient,
    make_likelihood,
)
from subo.runtime.arguments import checked_arguments
from subo.runtime.room import fits_memory

__all__ = ["hierarchical"]

LayeredGradientName = Literal["pathwise", "score-function"]


@checked_arguments
@fits_memory
def hierarchical(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    likelihood: LikelihoodName = "auto",
    scale: ScaleSource = "per-dimension",
    min_scale: float | None = 1e-3,
    num_classes: int | tuple[int, ...] | None = None,
    latent_dims: tuple[int, ...] = (100, 50),
    network: NetworkName = "mlp",
    hidden: tuple[int, ...] = (200, 200),
    hidden_between: tuple[int, ...] = (100, 100),
    channels: tuple[int, ...] = (32, 64),
    activation: ActivationName = "tanh",
    bound: BoundName = "elbo",
    num_samples: int = 1,
    beta: float = 1.0,
    free_bits: float = 0.0,
    alpha: float = 0.5,
    groups: int = 2,
    gradient: LayeredGradientName = "pathwise",
    baseline: BaselineName = "auto",
) -> Objective:
    """Several layers of latents, p(z2) p(z1|z2) p(x|z1), with a posterior q(z1|x) q(z2|z1) from x upwards.

    The model of Burda et al., 2016, section 5, with any number of layers.

    Args:
        event_shape: Shape of one datum.
        examples: Some training data, from which units and the mean image are taken; without them these are
            placeholders, for weights that are loaded next.
        num_data: Number of training data; not needed here.
        likelihood: p(x|z1); auto takes bernoulli for bits, gaussian for all other numbers. poisson is for counts,
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
        latent_dims: Sizes of z1, z2, ..., from x upwards, such as 100,50.
        network: Kind of the networks between x and z1; conv is for images.
        hidden: Widths of the encoder's hidden layers, such as 200,200; the decoder has the same in reverse. A
            convolutional network (conv) has one, after its convolutions, as wide as the last of these.
        hidden_between: Widths of the hidden layers between two layers of latents; of p they mirror q's.
        channels: Channels of the convolutions, such as 32,64; each halves the image.
        activation: Nonlinearity of all networks.
        bound: What is maximised.
        num_samples: Samples K of z a datum in training.
        beta: Weight of the KL in elbo's gradient; what is reported has weight 1.
        free_bits: Nats per datum and layer below which elbo's gradient leaves the layer's KL alone.
        alpha: Order of the renyi bound.
        groups: Groups of samples of the miwae bound; it is iwae with one, elbo with as many as samples.
        gradient: How the bound's gradient is estimated; other estimators are derived for one layer.
        baseline: Baseline of score-function: a running mean, leave-one-out over the samples, or a network of x; auto
            takes leave-one-out where there are samples enough, else the mean.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings make no sense together.

    Example:
        >>> import torch
        >>> objective = hierarchical((64,), likelihood="bernoulli", latent_dims=(8, 4, 2))
        >>> objective(torch.zeros(3, 64)).rate.shape
        torch.Size([3, 3])
    """
    event = Size(event_shape)
    if not latent_dims:
        raise InputError("latent_dims are the sizes of z1, z2, ..., such as 100,50, and not ()")
    center, unit, fine = center_and_units(examples, event)
    family = make_likelihood(likelihood, event, scale, min_scale, num_classes, center, fine)
    bottom, top = latent_dims[0], latent_dims[-1]
    decoder = make_decoder(network, Size([bottom]), family, hidden, channels, activation)
    encoder = make_encoder(network, event, 2 * bottom, hidden, channels, activation)

    def between(dim_in: int, dim_out: int, widths: tuple[int, ...], parent: str) -> Child:
        return Child(
            Gaussian((dim_out,)),
            mlp(dim_in, 2 * dim_out, hidden=widths, activation=ACTIVATIONS[activation]),
            parent,
        )

    steps = list(enumerate(pairwise(latent_dims), start=1))  # (1, (dim of z1, dim of z2)), ...
    generative: dict[str, nn.Module] = {f"z{len(latent_dims)}": StandardNormal(top)}
    inferred: dict[str, nn.Module] = {
        "z1": Conditional(Gaussian((bottom,)), nn.Sequential(Standardize(center, unit), encoder))
    }
    for below, (dim_below, dim_above) in steps:
        inferred[f"z{below + 1}"] = between(dim_below, dim_above, hidden_between, f"z{below}")
        generative[f"z{below}"] = between(dim_above, dim_below, hidden_between[::-1], f"z{below + 1}")
    followed = make_bound(
        bound, beta, free_bits, closed_form_kl=True, alpha=alpha, groups=groups, num_samples=num_samples
    )
    estimator = make_gradient(
        gradient,
        baseline,
        normalize=False,
        temperature=0.5,
        latents="gaussian",
        bound=followed,
        num_samples=num_samples,
        network=lambda: make_baseline(event, center, unit),
    )
    model = VAE(Joint(**generative), Child(family, from_mean(decoder, family, examples), "z1"), Joint(**inferred))
    return Objective(model, followed, gradient=estimator, num_samples=num_samples)
