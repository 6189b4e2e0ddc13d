"""A run's figures for sequences: what is computed from a model for each picture."""

from typing import Any

import torch

from subo import figures
from subo.data.dataset import Data
from subo.data.sequences import unpadded
from subo.data.splits import Split
from subo.evaluation.forecasting import Forecast
from subo.evaluation.latents.usage import LatentUsage, latent_usage
from subo.evaluation.reconstruction import reconstruct
from subo.figures.sequences import forecasts, sequence_panels
from subo.runs.run import Run
from subo.runtime.randomness import forked

__all__ = ["SHOWN", "draw_forecasts", "draw_sequence_figures", "draw_sequence_reconstructions", "draw_sequence_samples"]

SHOWN = 4


def draw_sequence_figures(run: Run, model: Any, data: Data) -> LatentUsage:
    """Draws reconstructions, samples, and how active each dimension of the state is, into the run's ``figures/``."""
    held_out = data.test
    assert held_out.lengths is not None
    figures.save(draw_sequence_reconstructions(model, held_out), run.picture("reconstructions.png"))
    figures.save(draw_sequence_samples(model, length=int(held_out.lengths.median())), run.picture("samples.png"))
    usage = latent_usage(model, held_out)
    picture = figures.activity_per_dimension(usage.variance.numpy(), active=usage.active.numpy())
    figures.save(picture, run.picture("activity.png"))
    return usage


def draw_sequence_reconstructions(model: Any, split: Split) -> Any:
    """The first few sequences beside their reconstructions."""
    shown = split.take(torch.arange(min(len(split), SHOWN)))
    x, context = shown.read(torch.arange(len(shown)))
    originals = unpadded(x, context["mask"])
    means = reconstruct(model, shown)
    parts = zip(originals, means.split([len(o) for o in originals]), strict=True)
    rows = [{"original": original.numpy(), "mean of p(x|z) under q": mean.numpy()} for original, mean in parts]
    return sequence_panels(rows, title="Sequences, and the means of their reconstructions")


def draw_sequence_samples(model: Any, *, length: int, num: int = SHOWN, drawn: bool = True, seed: int = 0) -> Any:
    """Sequences from the model: draws of x, unless `drawn` is false, and the means of their distributions."""
    mask = torch.ones(num, length, dtype=torch.bool)
    with forked(seed), torch.no_grad():
        _, p = model.sample(num, {"mask": mask})
        columns = {"draw of x": p.sample().float().numpy()} if drawn else {}
        columns["mean of p(x|z) there"] = p.mean.numpy()
    rows = [{name: values[row] for name, values in columns.items()} for row in range(num)]
    return sequence_panels(rows, title=f"Sequences of {length} steps from the model")


def draw_forecasts(split: Split, forecast: Forecast) -> Any:
    """The first few sequences and what is expected to follow."""
    index = torch.arange(min(len(split), SHOWN))
    x, context = split.read(index)
    parts = (getattr(forecast, name)[: len(index)].numpy() for name in ("mean", "lower", "upper"))
    return forecasts([s.numpy() for s in unpadded(x, context["mask"])], *parts, coverage=forecast.coverage)
