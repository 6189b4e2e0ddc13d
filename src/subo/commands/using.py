"""Commands that use a fitted run: ``sample``, ``reconstruct``, ``encode`` and ``score``."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subo.commands.arguments import RunPath, check_ending
from subo.data import Split
from subo.errors import InputError
from subo.messages import say
from subo.sources import Part, load_rows, save_array
from subo.support import check_support

__all__ = ["encode", "reconstruct", "sample", "score"]

DataSource = Annotated[
    str, Parameter(help="digits, mnist, fashion-mnist, binarized-mnist, or a .npy, .npz, .csv or folder of images.")
]
DataPart = Annotated[Part, Parameter(help="Which part of a data set; files are taken whole, in their order.")]


def sample(
    run: RunPath, /, *, out: Path, num: Annotated[int, Parameter(alias="-n")] = 64, mean: bool = False, seed: int = 0
) -> None:
    """Draws data from a fitted model: z from the prior, then x from p(x|z).

    Args:
        run: Run folder.
        out: Where to: .npy, .csv, or .png. A model of dequantised data gives whole levels, its draws floored.
        num: How many.
        mean: Give E[x|z] instead of a draw from p(x|z): smoother pictures, and no samples of the data. In levels where
            these were dequantised: E[x|z] - 1/2.
        seed: Of the draws.
    """
    import torch

    from subo import experiments, figures
    from subo.pictures import shading
    from subo.randomness import forked
    from subo.units import without_noise

    check_ending(out, ".npy", ".csv", ".png")
    if num < 1:
        raise InputError(f"--num must be at least 1, not {num}")
    experiment = experiments.open_run(run)
    with forked(seed), torch.no_grad():
        _, p = experiment.objective.model.sample(num)
        x = p.mean if mean else p.sample()
    names = _feature_names(experiment.config)
    if out.suffix == ".png":
        units, data = _units(experiment), experiment.config["data"]
        shade = shading(x, levels=data["levels"] if data.get("dequantize") else None)
        figures.save(figures.samples(shade(x), feature_names=names, units=units, drawn=not mean), out)
    else:
        save_array(out, without_noise(x, experiment.config, drawn=not mean), names=names)
    say(f"{num} samples written to {out}")


def reconstruct(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    part: DataPart = "all",
    data_dir: Path | None = None,
) -> None:
    """Encodes data and decodes them again: E[x|z] at the posterior mean.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .npy or .csv for all, .png for the first 16 beside their originals. In levels where data were
            dequantised: E[x|z] - 1/2.
        part: Which part.
        data_dir: Where named data sets are looked for.
    """
    import torch

    from subo import figures
    from subo.evaluation.reconstruction import reconstruct as reconstructed
    from subo.experiments import model_for
    from subo.pictures import draw_reconstructions
    from subo.units import without_noise

    check_ending(out, ".npy", ".csv", ".png")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    names = _feature_names(experiment.config)
    if out.suffix == ".png":
        split = split.take(torch.arange(min(16, len(split))))
        model, units = model_for(experiment, split, progress=True), _units(experiment)
        figures.save(draw_reconstructions(model, split, feature_names=names, units=units), out)
    else:
        means = reconstructed(model_for(experiment, split, progress=True), split)
        save_array(out, without_noise(means, experiment.config, drawn=False), names=names)
    say(f"{len(split)} reconstructions written to {out}")


def encode(
    run: RunPath, data: DataSource, /, *, out: Path, part: DataPart = "all", data_dir: Path | None = None
) -> None:
    """Gives the representation of data: posterior means, the same at every call.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .npy, .csv, or .png for a map of the latent plane.
        part: Which part.
        data_dir: Where named data sets are looked for.
    """
    from subo import figures
    from subo.evaluation.usage import latent_usage
    from subo.experiments import model_for
    from subo.pictures import draw_latent_plane

    check_ending(out, ".npy", ".csv", ".png")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    model = model_for(experiment, split, progress=True)
    usage = latent_usage(model, split)
    if out.suffix == ".png":
        if len(split) < 2:
            raise InputError("a map needs at least two data; write one datum's representation to .npy or .csv")
        figures.save(draw_latent_plane(model, usage, split), out)
    else:
        save_array(out, usage.means.numpy(), names=[f"z{i + 1}" for i in range(usage.means.shape[1])])
    say(f"{len(split)} posterior means of {usage.means.shape[1]} latents written to {out}")


def score(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    num_samples: int = 1000,
    part: DataPart = "all",
    data_dir: Path | None = None,
    seed: int = 0,
) -> None:
    """Estimates log p(x) of each datum, the anomaly score: the lower, the stranger.

    Of dequantised data it is that of one draw of the noise, the same at every call.

    Args:
        run: Run folder.
        data: Data of the same shape.
        out: Where to: .csv with log_px, its standard error and effective sample size in columns; .npy of log_px.
        num_samples: Samples of the posterior for each datum.
        part: Which part.
        data_dir: Where named data sets are looked for.
        seed: Of the samples.
    """
    import numpy as np

    from subo.evaluation.summary import score as scored
    from subo.experiments import model_for
    from subo.progress import bar

    check_ending(out, ".npy", ".csv")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    model = model_for(experiment, split, progress=True)
    shown, task = bar(f"log p(x), {num_samples} samples", len(split), show=True)
    with shown:
        scores = scored(
            model,
            split,
            num_samples=num_samples,
            seed=seed,
            advance=lambda count: shown.advance(task, count),
        )
    if out.suffix == ".npy":
        save_array(out, scores.log_px.numpy())
    else:
        columns = (scores.log_px, scores.standard_error, scores.effective_sample_size)
        save_array(
            out,
            np.stack([c.numpy() for c in columns], axis=1),
            names=["log_px", "standard_error", "effective_sample_size"],
        )
    lowest = int(scores.log_px.argmin())
    say(
        f"{len(split)} values of log p(x) written to {out}: mean {scores.log_px.mean():.2f} nats, lowest "
        f"{scores.log_px[lowest]:.2f} in row {lowest + 1}"
    )


def _run_and_rows(run: Path, source: str, part: Part, data_dir: Path | None) -> tuple[Any, Split]:
    """A run and data for it: made bits or noisy as the run's were, of its shape, and in its likelihood's support."""
    from subo import experiments
    from subo.units import in_levels

    experiment = experiments.open_run(run)
    asked = experiment.config["data"]
    if data_dir is None and asked["data_dir"]:
        data_dir = Path(asked["data_dir"])
    split = load_rows(
        source,
        part=part,
        data_dir=data_dir,
        binarize=asked["binarize"],
        dequantize=asked.get("dequantize", False),
        seed=asked["seed"],
        names=_feature_names(experiment.config),
    )
    split = in_levels(split, experiment.config)
    check_support(experiment.objective.model, split, where=source)
    return experiment, split


def _units(experiment: Any) -> Any:
    """Mean and standard deviation of a table's columns, as long as its data are there."""
    from subo.pictures import feature_units

    if len(experiment.config["data"]["event_shape"]) != 1:
        return None
    try:
        return feature_units(experiment.data())
    except InputError:
        return None


def _feature_names(config: dict[str, Any]) -> tuple[str, ...] | None:
    names = config["data"]["feature_names"]
    return tuple(names) if names else None
