"""The commands ``interpolate``, ``traverse`` and ``decode``: from places in latent space to data."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.cli.rows import is_of_sequences, run_and_rows, save_rows, units_of
from subo.data.saving import save_array
from subo.errors import InputError
from subo.evaluation.paths import PathKind

__all__ = ["decode", "interpolate", "traverse"]


def interpolate(
    run: RunPath,
    data: DataSource,
    first: int,
    last: int,
    /,
    *,
    out: Path,
    kind: PathKind = "linear",
    points: int = 9,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
) -> None:
    """Decodes what lies between two examples: E[x|z] along a path between their posterior means.

    Args:
        run: Run folder.
        data: Data of the same shape.
        first: Row of the first example, from 1.
        last: Row of the last example.
        out: Output file: .png, .gif (images), .npy or .csv; for a table of mixed columns .csv or another table.
        kind: Straight (linear), along a great circle (spherical), or the shortest path in data space (geodesic).
        points: Number of points, the two examples included.
        how: How the data are read.
    """
    from subo.evaluation.latents.usage import posterior_means
    from subo.evaluation.paths import interpolate as path_between
    from subo.experiments.experiment import model_for

    check_apart(out, run, data)
    experiment, split = run_and_rows(run, data, how)
    _check_flat(experiment)
    for row in (first, last):
        if not 1 <= row <= len(split):
            raise InputError(f"there is no row {row} in {data}: its rows are 1 to {len(split):,}")
    two = split.take(torch.tensor([first - 1, last - 1]))
    model = model_for(experiment, two)
    start, end = posterior_means(model, two)
    context = {name: tensor[:1] for name, tensor in two.read(torch.arange(2))[1].items() if name != "index"}
    z = path_between(model, start, end, num_points=points, kind=kind, context=context)
    _write(out, z, experiment, context=context, what=f"a {kind} path from row {first} to row {last}")


def traverse(
    run: RunPath,
    /,
    *,
    out: Path,
    points: int = 7,
    reach: float = 3.0,
    most: int = 16,
) -> None:
    """Decodes each latent dimension from one end to the other, the others at 0; the most informative first.

    Args:
        run: Run folder.
        out: Output file: .png with a row for each dimension, .npy or .csv.
        points: Number of points of a dimension.
        reach: Where a dimension ends: it runs from -reach to reach.
        most: Number of dimensions, at most.
    """
    from subo.evaluation.latents.usage import latent_usage
    from subo.evaluation.paths import traverse as traversal
    from subo.experiments.experiment import model_for, open_run

    check_apart(out, run)
    experiment = open_run(run)
    _check_flat(experiment)
    test = experiment.data().test
    model = model_for(experiment, test)
    usage = latent_usage(model, test)
    carried = usage.variance if usage.kl is None else usage.kl
    order = carried.argsort(descending=True)[:most].tolist()
    z = torch.cat([traversal(torch.zeros(len(carried)), d, num_points=points, reach=reach) for d in order])
    context = {name: tensor[:1] for name, tensor in test.read(torch.arange(1))[1].items() if name != "index"}
    names = [usage.names[d] for d in order]
    _write(out, z, experiment, context=context, rows=names, what=f"traversals of {', '.join(names)}")


def decode(run: RunPath, latents: Path, /, *, out: Path) -> None:
    """Decodes latents: E[x|z] for each row of a file.

    Args:
        run: Run folder.
        latents: .npy or .csv with a row for each z, such as encode writes; of a .csv, the columns z1, z2, ... are read.
        out: Output file: .png, .gif (images), .npy or .csv; for a table of mixed columns .csv or another table.
    """
    from subo.experiments.experiment import open_run

    check_apart(out, run, latents)
    experiment = open_run(run)
    _check_flat(experiment)
    if experiment.config.is_conditional:
        raise InputError(
            "this model also needs its condition, which latents do not have: use sample --given or --label"
        )
    z = _read_latents(latents, experiment.config.options["latent_dim"])
    _write(out, z, experiment, context={}, what=f"{len(z)} decoded points")


def _check_flat(experiment: Any) -> None:
    """Refuses models whose latents are not one vector of numbers for each example."""
    if is_of_sequences(experiment) or "latent_dim" not in experiment.config.options:
        raise InputError("this command is for models with one latent vector for each example, such as the recipe vae")


def _read_latents(path: Path, size: int) -> Tensor:
    import numpy as np
    import pandas as pd

    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            frame = pd.read_csv(path)
            values = frame[[name for name in frame.columns if str(name).removeprefix("z").isdigit()]].to_numpy()
        z = torch.as_tensor(np.asarray(values, dtype=np.float64))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as latents ({error}): give a .npy or a .csv as encode writes"
        ) from error
    if z.ndim != 2 or z.shape[1] != size or len(z) == 0:
        raise InputError(f"{path} has the shape {tuple(z.shape)}, but the model's latents are rows of {size} numbers")
    if not bool(z.isfinite().all()):
        raise InputError(f"{path} has cells that are empty or not finite: a z is {size} numbers")
    return z.to(torch.get_default_dtype())


def _write(
    out: Path, z: Tensor, experiment: Any, *, context: dict[str, Tensor], what: str, rows: list[str] | None = None
) -> None:
    """Writes the means at some latents; the context's single row is that of all."""
    from subo import figures
    from subo.evaluation.reconstruction import decode as decoded
    from subo.experiments.units import without_noise
    from subo.report.pictures import shading

    config = experiment.config
    table, images = config.data.meaning.table, len(config.data.event_shape) == 3
    arrays = (".csv", ".tsv", ".parquet", ".feather") if table is not None else (".npy", ".csv", ".png")
    ending = check_ending(out, *arrays, *((".gif",) if images else ()))
    known = {name: tensor.expand(len(z), *tensor.shape[1:]) for name, tensor in context.items()}
    means = decoded(experiment.objective.model, z, known)
    if table is not None:
        save_rows(out, means, table, known.get("given"))
    elif ending in (".png", ".gif"):
        shade = shading(experiment.data().test.read(torch.arange(16))[0], levels=_levels(config))
        if ending == ".gif":
            figures.save_movie(shade(means), out)
        else:
            units, names = units_of(experiment), config.data.meaning.feature_names
            figures.save(figures.strip(shade(means), rows=rows, feature_names=names, units=units), out)
    else:
        save_array(out, without_noise(means, config, drawn=False), names=config.data.meaning.feature_names)
    say(f"{what} written to {out}")


def _levels(config: Any) -> int | None:
    return config.data.levels if config.data.dequantize else None
