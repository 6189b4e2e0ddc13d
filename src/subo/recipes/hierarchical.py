"""The recipe ``hierarchical``: several layers of latents, inferred bottom-up, each given the one below."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.objective import Objective
from subo.errors import InputError
from subo.models.graph import Child, Joint
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian
from subo.parts.networks import ACTIVATIONS, mlp
from subo.parts.priors import StandardNormal
from subo.recipes.bound_options import BoundOptions, GradientOptions
from subo.recipes.options import LikelihoodOptions, NetworkOptions
from subo.recipes.recipe import recipe

__all__ = ["hierarchical"]


@recipe
def hierarchical(
    event_shape: Sequence[int],
    *,
    examples: Float[Tensor, "N ..."] | None = None,
    num_data: int | None = None,
    columns: tuple[str, ...] | None = None,
    likelihood: LikelihoodOptions,
    latent_dims: tuple[int, ...] = (100, 50),
    network: NetworkOptions,
    hidden_between: tuple[int, ...] = (100, 100),
    bound: BoundOptions,
    gradient: GradientOptions,
) -> Objective:
    """Several layers of latents, p(z2) p(z1|z2) p(x|z1), with a posterior q(z1|x) q(z2|z1) from x upwards.

    The model of Burda et al., 2016, section 5, with any number of layers.

    Args:
        event_shape: Shape of one example.
        examples: Some training data, which set the units and the mean image; without them these are
            placeholders, for weights that are loaded next.
        num_data: Number of training examples; not needed here.
        columns: What the columns of a table are, see :class:`subo.parts.columns.Columns`; None for other data.
        latent_dims: Sizes of z1, z2, ..., from x upwards, such as 100,50.
        hidden_between: Widths of the hidden layers between two layers of latents in q; p mirrors them.

    Returns:
        The objective, ready to be fitted.

    Raises:
        InputError: The settings are incompatible.

    Example:
        >>> import torch
        >>> objective = hierarchical((64,), likelihood="bernoulli", latent_dims=(8, 4, 2))
        >>> objective(torch.zeros(3, 64)).rate.shape
        torch.Size([3, 3])
    """
    event = Size(event_shape)
    if not latent_dims:
        raise InputError("latent_dims are the sizes of z1, z2, ..., such as 100,50, and not ()")
    ends = likelihood.build(event, examples=examples, columns=columns)
    family = ends.family
    bottom, top = latent_dims[0], latent_dims[-1]
    decoder, encoder = network.decoder(Size([bottom]), family), network.encoder(ends.inputs, 2 * bottom)

    def between(dim_in: int, dim_out: int, widths: tuple[int, ...], parent: str) -> Child:
        return Child(
            Gaussian((dim_out,)),
            mlp(dim_in, 2 * dim_out, hidden=widths, activation=ACTIVATIONS[network.activation]),
            parent,
        )

    steps = list(enumerate(pairwise(latent_dims), start=1))  # (1, (dim of z1, dim of z2)), ...
    generative: dict[str, nn.Module] = {f"z{len(latent_dims)}": StandardNormal(top)}
    inferred: dict[str, nn.Module] = {"z1": Conditional(Gaussian((bottom,)), nn.Sequential(ends.entry(), encoder))}
    for below, (dim_below, dim_above) in steps:
        inferred[f"z{below + 1}"] = between(dim_below, dim_above, hidden_between, f"z{below}")
        generative[f"z{below}"] = between(dim_above, dim_below, hidden_between[::-1], f"z{below + 1}")
    followed, num_samples = bound.build(), bound.num_samples
    estimator = gradient.build(ends)
    model = VAE(Joint(**generative), Child(family, ends.start(decoder), "z1"), Joint(**inferred))
    return Objective(model, followed, gradient=estimator, num_samples=num_samples)
