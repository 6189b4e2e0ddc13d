"""A run's figures: what is computed from a model for each picture, and the picture's file name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from subo import figures
from subo.data.dataset import Data
from subo.data.quantization import quantized
from subo.data.splits import Split
from subo.data.spread import center_and_units
from subo.data.stored_rows import some_of
from subo.evaluation.latents.usage import LatentUsage, latent_usage
from subo.evaluation.reconstruction import decode, reconstruct
from subo.models.ladder import Ladder
from subo.models.vae import VAE
from subo.report.class_pictures import class_names, first_rows, has_discrete_prior, prior_draws, prior_of
from subo.report.sequence_pictures import draw_sequence_figures
from subo.report.table_pictures import are_numbers, draw_table_figures, repeated_context
from subo.runs.run import Run
from subo.runtime.devices import place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["draw_figures", "draw_latent_plane", "draw_reconstructions", "feature_units", "shading"]

Units = tuple[np.ndarray, np.ndarray]
Curves = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray] | None, int | None]

_SHOWN, _SAMPLES, _GRID, _LIMIT, _FRAMES = 16, 64, 12, 3.0, 60
_HELD, _ANEW = 6, 8  # samples of a ladder's upper layers, and of the lower layers for each of them
_GRIDS = 10  # classes for which the decoder's plane is drawn
_FOLLOWED = ("bound", "elbo", "rate", "distortion")
_LISTED = 20  # unnamed features up to which they may be a table's; more are probably a curve
_PRIOR_DRAWS, _PRIOR_MASS = 10_000, 0.99
_MIXED = 100  # examples whose p(z|c) make up p(z), if c is more than a class
_COMPONENTS = ("first principal component of z", "second principal component of z")


def draw_figures(run: Run, model: VAE, data: Data) -> None:
    """Draws all pictures of a fitted run into its ``figures/``.

    Bound, rate and distortion over training; originals beside reconstructions; samples from the prior; KL by latent
    dimension; the latent plane; with two latents, the decoder's mean over it; for a ladder, what each layer decides;
    and the plane during training.

    Args:
        run: Run with metrics and snapshots, to which the pictures are written.
        model: The fitted model.
        data: Its data; pictures show the test data, the animation the validation data.
    """
    held_out = data.test
    if data.sequential:
        _draw_training(run)
        draw_sequence_figures(run, model, data)
        return
    usage = latent_usage(model, held_out)
    names, units = data.feature_names, feature_units(data)
    _draw_training(run)
    if (table := data.meaning.table) is not None:
        draw_table_figures(run, model, data, table)
    shade = shading(_first(held_out), levels=_levels(held_out))
    classes = class_names(model, data.class_names)
    z, known = None, repeated_context(held_out, _SAMPLES) if held_out.context else None
    if table is None or are_numbers(_first(held_out), table):
        picture = draw_reconstructions(model, held_out, feature_names=names, units=units)
        figures.save(picture, run.picture("reconstructions.png"))
        with forked(0):
            z, p = prior_draws(model, _SAMPLES, known)
        means, shown = (p.mean.cpu(), None) if classes is None else first_rows(p.mean.cpu(), classes)
        picture = figures.samples(shade(means), feature_names=names, units=units, classes=shown)
        figures.save(picture, run.picture("samples.png"))
    figures.save(draw_latent_usage(usage), run.picture("activity.png" if usage.kl is None else "kl.png"))
    picture = draw_latent_plane(model, usage, held_out, name="test examples", classes=data.class_names)
    figures.save(picture, run.picture("latent_plane.png"))
    one_plane = known is None  # of many conditions, many planes
    if one_plane and isinstance(z, Tensor) and z.shape[1:] == (2,) and not has_discrete_prior(model):
        for label, name in enumerate((classes or ("",))[:_GRIDS]):
            means = shade(grid_means(model, label))
            picture = figures.decoder_grid(means, limit=_LIMIT, units=units, name=name and f"class {name}")
            figures.save(picture, run.picture("decoder_grid.png" if classes is None else f"decoder_grid-{label}.png"))
    if isinstance(model, Ladder) and len(data.train.event_shape) == 3:
        with forked(0):
            squares = shade(model.sample_below(_HELD, _ANEW).cpu())
        figures.save(figures.layers(squares, names=model.names), run.picture("layers.png"))
    _animate(run, model, data)


def draw_reconstructions(
    model: VAE, split: Split, *, feature_names: Sequence[str] | None = None, units: Units | None = None
) -> Figure:
    """The first 16 examples beside their reconstructions; options as in :func:`subo.figures.reconstructions`."""
    originals, shown = _first(split), split.take(torch.arange(min(len(split), _SHOWN)))
    shade = shading(originals, levels=_levels(split))
    return figures.reconstructions(
        shade(originals), shade(reconstruct(model, shown)), feature_names=feature_names, units=units
    )


def draw_latent_plane(
    model: VAE,
    usage: LatentUsage,
    split: Split,
    *,
    name: str = "examples",
    classes: Sequence[str] | None = None,
    colors: tuple[str, np.ndarray] | None = None,
    panel: Axes | None = None,
) -> Figure:
    """The posterior means of data: unchanged in one or two dimensions, else by their first two principal components.

    Args:
        model: The model.
        usage: Latent usage on these data.
        split: The data.
        name: Name of the data in the title.
        classes: Names of the labels 0, 1, ...; by default the data's own.
        colors: What the colors mean, and a number or name for each example, in place of the labels.
        panel: Axes to draw on; a new figure by default.
    """
    meaning, labels = ("label", _labels(split, classes)) if colors is None else colors
    means = usage.means.numpy()
    if means.shape[1] == 1:
        return figures.latent_plane(means, labels, meaning=meaning, axes=("z1", ""), name=name, panel=panel)
    if means.shape[1] == 2 and len(usage.layers) < 2:
        some = torch.arange(min(_MIXED, len(split)))
        known = replace(split, resample=False).read(some)[1] if split.context else None
        prior = None if has_discrete_prior(model, known) else _prior_density(model, split.labels, known)
        return figures.latent_plane(means, labels, meaning=meaning, prior=prior, name=name, panel=panel)
    pca = PCA(2).fit(means)
    return figures.latent_plane(
        pca.transform(means),
        labels,
        meaning=meaning,
        axes=_COMPONENTS,
        explained=pca.explained_variance_ratio_,
        name=name,
        panel=panel,
    )


def draw_latent_usage(usage: LatentUsage, *, panel: Axes | None = None) -> Figure:
    """KL of each dimension or, if unknown, the variance of the posterior means; `panel` as in the other figures."""
    names = usage.names if len(usage.layers) > 1 else None
    options: dict[str, Any] = {"active": usage.active.numpy(), "names": names, "panel": panel}
    if usage.kl is None:
        return figures.activity_per_dimension(_array(usage.variance), **options)
    return figures.kl_per_dimension(_array(usage.kl), **options)


def feature_units(data: Data) -> Units | None:
    """Center and unit of a table's columns over the training data, by :func:`subo.data.spread.center_and_units`.

    Returns:
        Two arrays ``(D,)``; None for images, for curves (many features without names) and for values in [0, 1], which
        share a unit.
    """
    x = data.train.x
    if data.kind == "mixed":  # in units already
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    if x.ndim != 2 or data.kind not in ("real", "whole") or (data.feature_names is None and x.shape[1] > _LISTED):
        return None
    center, unit, _ = center_and_units(some_of(x).double(), x.shape[1:])
    return _array(center), _array(unit)


def _labels(split: Split, classes: Sequence[str] | None) -> np.ndarray | None:
    """Labels, replaced by the names of their classes unless these are numbers themselves."""
    if split.labels is None:
        return None
    names = classes or split.class_names
    if names is None:
        return split.labels.numpy()
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return np.array([int(name) for name in names] if numbers else names)[split.labels.numpy()]


def _draw_training(run: Run) -> None:
    records = run.read_metrics()
    if records:
        epoch, train, validation, best = curves_of(records)
        figures.save(figures.training_curves(epoch, train, validation, best_epoch=best), run.picture("training.png"))


def curves_of(records: Sequence[Mapping[str, Any]]) -> Curves:
    """Epoch numbers, training and validation curves, and the epoch of the best validation bound.

    Args:
        records: Records of the epochs, as in ``metrics.jsonl``; at least one.
    """

    def curves(part: str) -> dict[str, np.ndarray]:
        return {name: np.array([record[part][name] for record in records]) for name in _FOLLOWED}

    validated = all(record["validation"] is not None for record in records)
    validation = curves("validation") if validated else None
    best = records[int(np.argmax(validation["bound"]))]["epoch"] if validation else None
    return np.array([record["epoch"] for record in records]), curves("train"), validation, best


@torch.no_grad()
def _prior_density(
    model: VAE, labels: Tensor | None = None, context: Context | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(z), for data with these labels, over a grid that covers the densest 99% of draws and the contours."""
    prior = prior_of(model, labels, context)
    with forked(0):
        z = prior.sample(torch.Size([_PRIOR_DRAWS]))
    log_density = prior.log_prob(z)
    z = z[log_density >= log_density.quantile(1 - _PRIOR_MASS)].cpu()
    low, high = z.amin(0), z.amax(0)
    margin = 0.2 * (high - low)
    x, y = (torch.linspace(start, end, 200) for start, end in zip(low - margin, high + margin, strict=True))
    points = torch.cartesian_prod(x, y)
    density = prior.log_prob(place(model, points, {})[0]).reshape(200, 200).T  # rows are z2
    return x.numpy(), y.numpy(), _array(density)


def grid_means(model: VAE, label: int = 0, context: Context | None = None) -> Tensor:
    """``E[x|z]`` over a square of the latent plane, for this class if the model is conditional, or this one context."""
    axis = torch.linspace(-_LIMIT, _LIMIT, _GRID)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    z = torch.stack([z1, z2], dim=-1).reshape(-1, 2)
    given = {name: tensor.expand(len(z), *tensor.shape[1:]) for name, tensor in (context or {}).items()}
    means = decode(model, z, {"label": torch.full((len(z),), label), **given})
    return means.unflatten(0, (_GRID, _GRID))


def _animate(run: Run, model: VAE, data: Data) -> None:
    files = sorted(run.snapshots.glob("means-*.npy"))
    if len(files) < 2:
        return
    kept = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, _FRAMES).round().astype(int))]
    frames = np.stack([np.load(file) for file in kept])
    if frames.shape[2] == 1:
        return
    plane = frames.shape[2] == 2
    prior = _prior_density(model, data.validation.labels) if plane and not has_discrete_prior(model) else None
    axes = ("z1", "z2") if plane else _COMPONENTS
    if frames.shape[2] > 2:  # the same axes for all frames: the last one's principal components
        pca = PCA(2).fit(frames[-1])
        frames = np.stack([pca.transform(frame) for frame in frames])
    bounds = {record["epoch"]: record["validation"] for record in run.read_metrics()}
    captions = []
    for file in kept:
        epoch = int(file.stem.split("-")[1])
        metrics = bounds.get(epoch)
        captions.append(f"epoch {epoch}" + (f", bound {metrics['bound']:.2f} nats" if metrics else ""))
    watched = data.validation.take(torch.arange(frames.shape[1]))
    figures.animate_means(
        frames,
        _labels(watched, data.class_names),
        captions,
        run.picture("latent_plane.gif"),
        prior=prior,
        axes=axes,
        name="validation examples",
    )


def _first(split: Split) -> Tensor:
    """The examples that are shown, as numbers."""
    return split.read(torch.arange(min(len(split), _SHOWN)))[0]


def shading(originals: Tensor, *, levels: int | None = None) -> Callable[[Tensor], np.ndarray]:
    """Makes a function that scales pictures with values outside [0, 1] into it; vectors are left unchanged.

    Args:
        originals: Data whose range defines black and white, unless there are levels.
        levels: The largest integer that was dequantized: pictures show the level in whose cell a value lies, so that
            data look as they did originally, and a mean ``E[y + u]`` like the level nearest to ``E[y]``.
    """
    low, high = (value.item() for value in originals.aminmax())
    if originals.ndim < 3 or (levels is None and low >= 0 and high <= 1):
        return _array
    if levels is not None:
        return lambda values: _array(quantized(values, levels=levels)) / levels
    return lambda means: (_array(means) - low) / ((high - low) or 1.0)


def _levels(split: Split) -> int | None:
    """The largest level of dequantized data."""
    return split.levels if split.dequantize else None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
