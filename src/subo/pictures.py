"""A run's figures: what is computed of a model for each picture, and under which name the picture goes."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from subo import figures
from subo.context import call
from subo.data import Data, Split
from subo.devices import place
from subo.evaluation.reconstruction import decode, reconstruct
from subo.evaluation.usage import LatentUsage, latent_usage
from subo.model import VAE
from subo.randomness import forked
from subo.runs import Run

__all__ = ["draw_figures", "draw_latent_plane"]

_SHOWN, _SAMPLES, _GRID, _LIMIT, _FRAMES = 16, 64, 20, 3.0, 60


def draw_figures(run: Run, model: VAE, data: Data) -> None:
    """Draws all pictures of a fitted run into its ``figures/``.

    Bound, rate and distortion over training; originals beside reconstructions; samples from the prior; KL by latent
    dimension; the latent plane; with two latents the decoder's mean over it; and the plane during training.

    Args:
        run: Where metrics and snapshots are, and the pictures go.
        model: The fitted model.
        data: Its data; pictures show the test data.
    """
    held_out = data.test
    usage = latent_usage(model, held_out)
    folder = run.figures
    _draw_training(run)
    shown = held_out.take(torch.arange(min(len(held_out), _SHOWN)))
    originals = shown.read(torch.arange(len(shown)))[0]
    shade = _shading(originals)
    picture = figures.reconstructions(
        shade(originals), shade(reconstruct(model, shown)), feature_names=data.feature_names
    )
    figures.save(picture, folder / "reconstructions.png")
    with forked(0), torch.no_grad():
        z, p = model.sample(_SAMPLES)
    figures.save(figures.samples(shade(p.mean.cpu()), feature_names=data.feature_names), folder / "samples.png")
    active = usage.active.numpy()
    if usage.kl is not None:
        figures.save(figures.kl_per_dimension(_array(usage.kl), active=active), folder / "kl.png")
    else:
        figures.save(figures.activity_per_dimension(_array(usage.variance), active=active), folder / "activity.png")
    figures.save(draw_latent_plane(model, usage, held_out), folder / "latent_plane.png")
    if isinstance(z, Tensor) and z.shape[1:] == (2,):
        figures.save(figures.decoder_grid(shade(_grid_means(model)), limit=_LIMIT), folder / "decoder_grid.png")
    _animate(run, data)


def draw_latent_plane(model: VAE, usage: LatentUsage, split: Split) -> Figure:
    """The posterior means of data: as they are in one or two dimensions, else by their two principal components."""
    means, labels = usage.means.numpy(), None if split.labels is None else split.labels.numpy()
    if means.shape[1] == 1:
        return figures.latent_plane(means, labels, axes=("z1", ""))
    if means.shape[1] == 2:
        return figures.latent_plane(means, labels, prior=_prior_density(model, means))
    pca = PCA(2).fit(means)
    return figures.latent_plane(
        pca.transform(means),
        labels,
        axes=("first principal component of z", "second principal component of z"),
        explained=pca.explained_variance_ratio_,
    )


def _draw_training(run: Run) -> None:
    records = run.read_metrics()
    if not records:
        return
    names = ("bound", "elbo", "rate", "distortion")

    def curves(part: str) -> dict[str, np.ndarray]:
        return {name: np.array([record[part][name] for record in records]) for name in names}

    validated = all(record["validation"] is not None for record in records)
    validation = curves("validation") if validated else None
    best = int(np.argmax(validation["bound"])) if validation else None
    picture = figures.training_curves(
        np.array([record["epoch"] for record in records]),
        curves("train"),
        validation,
        best_epoch=None if best is None else records[best]["epoch"],
    )
    figures.save(picture, run.figures / "training.png")


@torch.no_grad()
def _prior_density(model: VAE, means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(z) over a grid that holds the means and the prior's own mass."""
    reach = max(4.0, 1.2 * float(np.abs(means).max()))
    axis = torch.linspace(-reach, reach, 200)
    points = torch.cartesian_prod(axis, axis)
    density = call(model.prior).log_prob(place(model, points, {})[0]).reshape(200, 200).T  # rows are z2
    return axis.numpy(), axis.numpy(), _array(density)


def _grid_means(model: VAE) -> Tensor:
    axis = torch.linspace(-_LIMIT, _LIMIT, _GRID)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    means = decode(model, torch.stack([z1, z2], dim=-1).reshape(-1, 2))
    return means.unflatten(0, (_GRID, _GRID))


def _animate(run: Run, data: Data) -> None:
    files = sorted(run.snapshots.glob("means-*.npy"))
    if len(files) < 2:
        return
    kept = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, _FRAMES).round().astype(int))]
    frames = np.stack([np.load(file) for file in kept])
    if frames.shape[2] == 1:
        return
    if frames.shape[2] > 2:  # one pair of axes for all frames: the last one's principal components
        pca = PCA(2).fit(frames[-1])
        frames = np.stack([pca.transform(frame) for frame in frames])
    bounds = {record["epoch"]: record["validation"] for record in run.read_metrics()}
    captions = []
    for file in kept:
        epoch = int(file.stem.split("-")[1])
        metrics = bounds.get(epoch)
        captions.append(f"epoch {epoch}" + (f", bound {metrics['bound']:.2f} nats" if metrics else ""))
    labels = data.validation.labels
    figures.animate_means(
        frames,
        None if labels is None else labels[: frames.shape[1]].numpy(),
        captions,
        run.figures / "latent_plane.gif",
    )


def _shading(originals: Tensor) -> Callable[[Tensor], np.ndarray]:
    """Brings pictures whose values are not in [0, 1] into it, by the originals' range; vectors stay as they are."""
    low, high = (value.item() for value in originals.aminmax())
    if originals.ndim < 3 or (low >= 0 and high <= 1):
        return _array
    return lambda means: (_array(means) - low) / (high - low)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
