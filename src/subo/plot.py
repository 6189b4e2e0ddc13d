"""Pictures of a model in one call, each drawn on one set of axes: new pyplot axes, unless others are given.

The same functions draw the pictures of a run. Examples are given as usual: a tensor, an array, ``(x, labels)`` or a
:class:`~subo.Split`. The title, labels and limits of the axes that are returned can be changed as usual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from subo import figures
from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.errors import InputError
from subo.evaluation.inference_gaps import Gaps
from subo.evaluation.latents.usage import latent_usage
from subo.evaluation.reconstruction import reconstruct
from subo.figures.gaps import gaps_per_datum
from subo.figures.training import Quantity
from subo.report.class_pictures import has_discrete_prior, prior_draws
from subo.report.pictures import curves_of, draw_latent_plane, draw_latent_usage, grid_means, shading
from subo.runtime.arguments import checked_arguments
from subo.runtime.randomness import forked
from subo.training.history import History
from subo.typing import Context

__all__ = ["decoder_plane", "gaps", "history", "kl_by_dimension", "latent_plane", "reconstructions", "samples"]


@takes_data
@checked_arguments
def latent_plane(
    model: LatentVariableModel,
    split: Split,
    *,
    classes: Sequence[str] | None = None,
    color: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Posterior means of data, colored by label, with the contours of the prior if z has two dimensions.

    With more than two dimensions it shows the first two principal components of the means.

    Args:
        model: The model.
        split: The data.
        classes: Names of the labels 0, 1, ...; by default the data's own.
        color: What colors the examples in place of their labels, such as a column of a frame: one name, and a number or
            a name for each example.
        ax: Axes to draw on.

    Raises:
        InputError: `color` is not one name with as many values as examples.

    Example:
        >>> from subo import probabilistic_pca
        >>> x = torch.randn(50, 5)
        >>> latent_plane(probabilistic_pca(5, 2), x, color={"age": x[:, 0]}).get_xlabel()
        'z1'
    """
    colors = None if color is None else _colors(color, len(split))
    usage, how = latent_usage(model, split), {"name": "examples", "classes": classes, "colors": colors}
    ax = _axes(ax, (6.6, 5.6))
    draw_latent_plane(_any(model), usage, split, **how, panel=ax)
    return ax


@takes_data
@checked_arguments
def kl_by_dimension(model: LatentVariableModel, split: Split, *, ax: Axes | None = None) -> Axes:
    """Mean KL of each latent dimension in nats, largest first; inactive dimensions are grey.

    If the KL of single dimensions is not known, the variance of the posterior means is drawn instead.

    Args:
        model: The model.
        split: The data.
        ax: Axes to draw on.

    Example:
        >>> from subo import probabilistic_pca
        >>> len(kl_by_dimension(probabilistic_pca(5, 2), torch.randn(50, 5)).patches)
        2
    """
    ax = _axes(ax, (7, 3.6))
    draw_latent_usage(latent_usage(model, split), panel=ax)
    return ax


@takes_data
@checked_arguments
def reconstructions(
    model: LatentVariableModel,
    split: Split,
    *,
    feature_names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Data and the means of p(x|z) at the posterior's z: up to 12 images, or the first vector.

    Args:
        model: A model that decodes given latents.
        split: The data.
        feature_names: Names of a vector's features, shown if there are 20 or fewer.
        ax: Axes to draw on.

    Raises:
        InputError: The data are sequences, or there are not as many names as features.

    Example:
        >>> from subo import probabilistic_pca
        >>> lines = reconstructions(probabilistic_pca(5, 2), torch.randn(50, 5)).lines
        >>> [line.get_label() for line in lines]
        ['original', 'reconstruction']
    """
    if split.lengths is not None:
        raise InputError("these data are sequences, but `reconstructions` draws images and vectors")
    shown = split.take(torch.arange(min(len(split), 12)))
    x, _ = shown.read(torch.arange(len(shown)), generator=torch.Generator().manual_seed(0))
    _check_names(feature_names, x)
    shade = shading(x, levels=split.levels if split.dequantize else None)
    count = len(shown)
    ax = _axes(ax, (max(5.0, 1.3 + 0.8 * count), 2.4) if x.ndim > 2 else (6, 4))
    figures.reconstruction_panel(ax, shade(x), shade(reconstruct(model, shown)), feature_names=feature_names)
    return ax


@checked_arguments
def samples(
    model: LatentVariableModel,
    num_samples: int = 64,
    *,
    context: Context | None = None,
    seed: int = 0,
    feature_names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Means of p(x|z) at samples of z from the prior: a square of images, or one line per vector.

    Args:
        model: The model; a conditional model gives an equal number of samples of every class.
        num_samples: Number of samples; at most 100 are drawn.
        context: What the samples are given by name, a row each, if the model is conditioned on more than a class.
        seed: Seed for the samples.
        feature_names: Names of a vector's features, shown if there are 20 or fewer.
        ax: Axes to draw on.

    Raises:
        InputError: There are not as many names as features.

    Example:
        >>> from subo import probabilistic_pca
        >>> len(samples(probabilistic_pca(5, 2), 10).lines)
        10
    """
    with forked(seed):
        means: Tensor = prior_draws(model, num_samples, context)[1].mean.detach().cpu()
    _check_names(feature_names, means)
    ax = _axes(ax, (6, 6.4) if means.ndim > 2 else (6, 4))
    figures.samples(shading(means)(means), feature_names=feature_names, panel=ax)
    return ax


@checked_arguments
def decoder_plane(
    model: LatentVariableModel, *, label: int = 0, context: Context | None = None, ax: Axes | None = None
) -> Axes:
    """Means of p(x|z) over a square of the latent plane, from -3 to 3 in both dimensions.

    Args:
        model: A model with two continuous latents.
        label: The class, for a conditional model.
        context: What else the model is given by name, one row.
        ax: Axes to draw on.

    Raises:
        InputError: z does not have two continuous dimensions, or `context` more than one row.

    Example:
        >>> from subo import probabilistic_pca
        >>> decoder_plane(probabilistic_pca(5, 2)).get_ylabel()
        'z2'
    """
    if rows := [name for name, tensor in (context or {}).items() if len(tensor) != 1]:
        raise InputError(f"context must be one row, for the whole plane, but {rows[0]} has several: take one")
    with forked(0):
        z = prior_draws(model, 1, context)[0]
    if not isinstance(z, Tensor) or z.shape[1:] != (2,) or has_discrete_prior(model):
        raise InputError("`decoder_plane` needs a model with two continuous latents: subo.make(..., latent_dim=2)")
    means = grid_means(_any(model), label, context)
    ax = _axes(ax, (7, 7))
    figures.decoder_grid(shading(means.flatten(0, 1))(means), panel=ax)
    return ax


@checked_arguments
def history(history: History, quantity: Quantity = "bound", *, ax: Axes | None = None) -> Axes:
    """A curve over the epochs of training, on training and validation data, in nats per example.

    Args:
        history: Result of :func:`subo.fit`.
        quantity: ``bound``, what training maximizes; ``elbo``, ``rate`` or ``distortion``.
        ax: Axes to draw on.

    Raises:
        InputError: Training ended before its first epoch.

    Example:
        >>> from subo import Objective, fit, probabilistic_pca
        >>> done = fit(Objective(probabilistic_pca(5, 2)), torch.randn(50, 5), epochs=3)
        >>> history(done, "rate").get_ylabel()
        'rate [nats per example]'
    """
    if not history.epochs:
        raise InputError("this history has no epochs: training ended before the first one")
    epoch, train, validation, best = curves_of([asdict(one) for one in history.epochs])
    ax = _axes(ax, (6, 4))
    figures.training_panel(ax, quantity, epoch, train, validation, best_epoch=best)
    ax.legend(frameon=False, fontsize=9)
    return ax


@checked_arguments
def gaps(gaps: Gaps, *, ax: Axes | None = None) -> Axes:
    """The approximation and the amortization gap of each example, stacked, in the order of their sum.

    Args:
        gaps: Result of :func:`subo.evaluation.gaps`.
        ax: Axes to draw on.

    Raises:
        InputError: No example has finite gaps.
    """
    if len(gaps.finite().elbo) == 0:
        raise InputError("no example has finite gaps: there is nothing to draw")
    ax = _axes(ax, (7, 3.8))
    gaps_per_datum(gaps.approximation.numpy(), gaps.amortization.numpy(), panel=ax)
    return ax


def _colors(color: Mapping[str, Any], count: int) -> tuple[str, np.ndarray]:
    """The name and the values of what colors the examples."""
    if len(color) != 1:
        raise InputError(f"`color` is one name and its values, such as {{'age': ages}}; received {len(color)} names")
    ((name, values),) = color.items()
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype == object:  # text, with missing cells
        values = np.array(["missing" if value is None or value != value else str(value) for value in values])
    if values.shape != (count,):
        raise InputError(f"`color`: {name} has the shape {values.shape}; expected a value for each of {count} examples")
    return str(name), values


def _check_names(names: Sequence[str] | None, x: Tensor) -> None:
    """Refuses names that do not match the number of features."""
    if names is not None and len(names) != x[0].numel():
        raise InputError(f"there are {len(names)} feature names for {x[0].numel()} features: one each is needed")


def _axes(ax: Axes | None, figsize: tuple[int | float, int | float]) -> Axes:
    """The given axes, or new pyplot axes, which a notebook shows automatically."""
    return plt.figure(figsize=figsize, layout="constrained").add_subplot() if ax is None else ax


def _any(model: LatentVariableModel) -> Any:
    """A model, for functions that require more of it than the protocol."""
    return model
