"""Pictures of a class-conditional model: what is drawn for each class."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from subo.core.context import call
from subo.parts.labels import num_labels_of
from subo.runtime.devices import place
from subo.typing import Context, Latent

__all__ = ["class_names", "first_rows", "has_discrete_prior", "labels_in_rows", "prior_draws", "prior_of"]

_SHOWN = 100  # samples in one picture


def class_names(model: Any, names: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """Names of the classes that a model is conditioned on; None if it is unconditional.

    Args:
        model: The model.
        names: Names of the labels 0, 1, ..., if the data have any; missing names are replaced by numbers.
    """
    count = num_labels_of(model)
    if count is None:
        return None
    names = names or ()
    return tuple(names[c] if c < len(names) else str(c) for c in range(count))


def labels_in_rows(num_labels: int, each: int) -> Integer[Tensor, " N"]:
    """The same number of labels of every class, one class after the other.

    Example:
        >>> labels_in_rows(3, 2)
        tensor([0, 0, 1, 1, 2, 2])
    """
    return torch.arange(num_labels).repeat_interleave(each)


@torch.no_grad()
def prior_draws(model: Any, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
    """z from the prior, and p(x|z); for a conditional model at least as many, with an equal number of every class.

    Args:
        model: The model.
        num_samples: Number of samples.
        context: One row per sample, if the model is conditioned on more than the class.
    """
    if context:
        return model.sample(num_samples, place(model, torch.zeros(1), context)[1])
    count = num_labels_of(model)
    if count is None:
        return model.sample(num_samples)
    labels = labels_in_rows(count, math.ceil(num_samples / count))
    return model.sample(len(labels), _placed(model, labels))


def first_rows(
    x: Float[Tensor, " N *event"], classes: Sequence[str]
) -> tuple[Float[Tensor, " M *event"], tuple[str, ...]]:
    """The samples of each class that fit into one picture, and the names of the classes shown.

    Args:
        x: The same number of samples of every class, one class after the other.
        classes: Names of the classes.
    """
    rows = x.unflatten(0, (len(classes), -1))[:_SHOWN]
    each = max(1, _SHOWN // len(rows))
    return rows[:, :each].flatten(0, 1), tuple(classes[:_SHOWN])


def prior_of(model: Any, labels: Integer[Tensor, " N"] | None = None, context: Context | None = None) -> Distribution:
    """p(z); for a conditional model the mixture of p(z|c), by the classes' frequencies in some data or equally.

    Args:
        model: The model.
        labels: Labels of these data.
        context: Context of some data, over which p(z|c) is mixed if the model is conditioned on more than the class.
    """
    if context:
        p = call(model.prior, context=place(model, torch.zeros(1), context)[1])
        return p if p.batch_shape == Size() else _mixed(model, torch.ones(p.batch_shape), p)
    count = num_labels_of(model)
    if count is None:
        return call(model.prior)
    p = call(model.prior, context=_placed(model, torch.arange(count)))
    if p.batch_shape == Size():  # the same for every class
        return p
    shares = torch.ones(count) if labels is None else torch.bincount(labels.cpu(), minlength=count)
    return _mixed(model, shares, p)


def has_discrete_prior(model: Any, context: Context | None = None) -> bool:
    """Whether z is discrete: then there is no plane to draw anything on."""
    given = place(model, torch.zeros(1), context)[1] if context else _placed(model, torch.zeros(1, dtype=torch.long))
    p: Any = call(model.prior, context=given)
    return bool(p.support.is_discrete)


def _mixed(model: Any, shares: Tensor, p: Distribution) -> Distribution:
    weights = Categorical(probs=place(model, shares, {})[0], validate_args=False)
    return MixtureSameFamily(weights, p, validate_args=False)


def _placed(model: Any, labels: Tensor) -> dict[str, Tensor]:
    """The labels as context, on the model's device."""
    return place(model, torch.zeros(1), {"label": labels})[1]
