"""A model as the page runs it: encoder, decoder and prior without torch, each if the page knows its parts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, nn
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from subo.explorer.heads import head
from subo.explorer.numbers import Store, packed
from subo.explorer.operations import NotExportedError, operations
from subo.models.markov import Markov
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.labels import num_labels_of
from subo.report.class_pictures import prior_of
from subo.runtime.randomness import forked

__all__ = ["exported", "gaussians"]

_DRAWS = 240


@torch.no_grad()
def exported(model: Any, event_shape: Size) -> dict[str, Any]:
    """The parts of a model that the page can run, and for the others the reason why it cannot.

    Args:
        model: Any model, in evaluation mode.
        event_shape: Shape of one example.

    Returns:
        ``encoder``, ``decoder`` and ``prior``; a part that cannot run there is ``{"missing": reason}``, of a prior with
        draws of z.
    """
    return {
        "encoder": _tried(lambda: _conditional(_part(model, "posterior"), event_shape)),
        "decoder": _tried(lambda: _conditional(_part(model, "likelihood"), _latent_shape(model))),
        "prior": _tried(lambda: _prior(model)),
    }


def _tried(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return make()
    except NotExportedError as reason:
        return {"missing": str(reason)}


def _part(model: Any, name: str) -> Conditional:
    if type(model) is not VAE:
        raise NotExportedError(f"a {type(model).__name__} has more than one layer of latents")
    part = getattr(model, name)
    if type(part) is not Conditional:
        raise NotExportedError(f"the {name} is a {type(part).__name__}, which is more than a network and a family")
    return part


def _latent_shape(model: Any) -> Size:
    """The shape of z: that of the posterior's family."""
    family = getattr(model.posterior, "family", None)
    if family is None:
        raise NotExportedError("the posterior does not say which shape z has")
    return family.event_shape


def _conditional(part: Conditional, shape: Size) -> dict[str, Any]:
    store = Store()
    network: nn.Module = part.network
    family: Any = part.family
    written = operations(network, shape, store)
    record = {"operations": written.operations, "head": head(family, store), "inputs": shape.numel()}
    return record | {"numbers": store.as_json()}


def _prior(model: Any) -> dict[str, Any]:
    """The prior as a mixture of normals, else some draws of it beside the reason; by class if it depends on one."""
    if type(model) is not VAE:
        raise NotExportedError(f"a {type(model).__name__} has more than one layer of latents")
    if isinstance(model.prior, Markov):
        raise NotExportedError("the prior is a chain, as long as the sequence")
    count = num_labels_of(model)
    labels = [None] if count is None else torch.arange(count).split(1)
    one_each = [prior_of(model, label) for label in labels]
    try:
        return {"of": [gaussians(p) for p in one_each]}
    except NotExportedError as reason:
        return {"missing": str(reason), **_draws(one_each)}


def _draws(priors: list[Distribution]) -> dict[str, Any]:
    """Draws of each prior; none of one that cannot be drawn from."""
    try:
        with forked(0):
            return {"draws": [packed(p.sample(Size([_DRAWS])).reshape(_DRAWS, -1)) for p in priors]}
    except NotImplementedError:
        return {}


def gaussians(p: Distribution) -> dict[str, Any]:
    """A distribution over vectors as the logarithms of weights, the means and the factors of covariances.

    Args:
        p: A normal or a mixture of normals, batch shape ``()``, or of one element.

    Raises:
        NotExportedError: It is something else.

    Example:
        >>> sorted(gaussians(Independent(Normal(torch.zeros(2), torch.ones(2)), 1)))
        ['factors', 'log_weights', 'means']
    """
    weights = torch.zeros(1)
    if isinstance(p, MixtureSameFamily):
        weights, p = p.mixture_distribution.logits.log_softmax(-1), p.component_distribution
    if isinstance(p, MultivariateNormal):
        means, factors = p.loc, p.scale_tril
    elif isinstance(p, Independent) and isinstance(p.base_dist, Normal):
        means, factors = p.base_dist.loc, p.base_dist.scale.expand(p.base_dist.loc.shape).diag_embed()
    else:
        raise NotExportedError(f"the prior is a {type(p).__name__}, not a mixture of normals")
    size = means.shape[-1]
    means, factors = means.reshape(-1, size), factors.reshape(-1, size, size)
    mixed = weights.flatten() if weights.numel() == len(means) else torch.zeros(len(means))
    return {"log_weights": packed(mixed), "means": packed(means), "factors": packed(factors)}
