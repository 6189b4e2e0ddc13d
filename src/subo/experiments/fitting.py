"""Fitting a run: begun from data, gone on with from its checkpoint, measured and drawn at its end."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from subo.cli.fit import announce, conclude
from subo.cli.messages import say
from subo.data.conforming import with_num_labels
from subo.data.dataset import Data
from subo.data.loading import load
from subo.data.named_sets import NAMES
from subo.data.quantization import dequantized
from subo.errors import InputError, Interrupted
from subo.evaluation.effort import caution_of_samples
from subo.evaluation.latents.usage import posterior_means
from subo.evaluation.summary import Evaluation
from subo.experiments.config import built, dequantizes, resolved
from subo.experiments.experiment import Experiment, evaluate_run, model_for, rebuilt
from subo.experiments.units import data_in_levels
from subo.files.whole import lies_in
from subo.recipes import RECIPES
from subo.report.pictures import draw_figures
from subo.runs.run import Run
from subo.runtime.arguments import checked_settings
from subo.runtime.devices import make_fabric
from subo.training.divergence import default_clip
from subo.training.fitting import fit
from subo.training.history import Epoch, History, WorseWarning
from subo.training.python_runs import check_recipe

__all__ = ["finish_run", "resume_run", "start_run"]

_SNAPSHOT_DATA, _SNAPSHOTS = 1000, 60


def start_run(
    source: str,
    out: Path,
    *,
    recipe: str = "vae",
    options: Mapping[str, Any] | None = None,
    data_dir: Path | None = None,
    binarize: str = "none",
    dequantize: bool | None = None,
    image_size: int | None = None,
    seed: int = 0,
    data_seed: int = 0,
    training: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    num_samples: int | None = None,
    progress: bool = False,
) -> tuple[Experiment, History] | None:
    """Fits a recipe to data, and writes everything to a run directory.

    Args:
        source: A named data set or a path.
        out: The run directory.
        recipe: Which of RECIPES.
        options: Its settings.
        data_dir: Where named sets are looked for.
        binarize: The binarisation policy.
        dequantize: Whether uniform noise is added to 8-bit values; None: where
            :func:`subo.experiments.config.dequantizes`.
        image_size: Height and width that the images of a folder are brought to.
        seed: Of training: first weights, order, samples.
        data_seed: Of the data: split, bits and noise of held-out data.
        training: Settings of :func:`subo.fit`.
        device: Settings of :func:`subo.runtime.devices.make_fabric`.
        overwrite: Whether a run that is there already is replaced.
        num_samples: By how many samples it will be measured: it is said where that takes long.
        progress: Whether to show progress.

    Returns:
        The experiment and its history; None in all processes but the first.
    """
    options, training = _settings(recipe, options or {}, training or {})
    fabric = make_fabric(**(device or {}))
    fabric.launch()
    if fabric.is_global_zero:
        _check_apart(out, source)
        Run.place(out, overwrite=overwrite)
    policy: Any = binarize
    note = say if progress and fabric.is_global_zero else None
    data = load(
        source,
        data_dir=data_dir,
        binarize=policy,
        dequantize=dequantize,
        image_size=image_size,
        seed=data_seed,
        note=note,
    )
    if len(data.test) < 2:
        raise InputError(
            f"{source} leaves {len(data.test)} datum to test on, and a standard error needs two: give it more rows"
        )
    data = with_num_labels(data, options.get("num_labels"))
    noisy = dequantize is None and dequantizes(data, options)
    data = dequantized(data, seed=data_seed) if noisy else data_in_levels(data, options)
    settings = resolved(recipe, options, data)
    config = {
        "subo": version("subo"),
        "recipe": recipe,
        "options": settings,
        "data": {
            "source": source if source in NAMES else str(Path(source).resolve()),
            "data_dir": data_dir and str(data_dir.resolve()),
            **data.describe(),
        },
        "training": {**training, "seed": seed},
        "device": dict(device or {}),
    }
    objective = built(config, data)

    def tell() -> None:
        if progress:
            chosen = options.get("likelihood", "auto") == "auto"
            clip = default_clip(data.train) if training.get("clip") is None else None
            announce(config, objective, chosen=chosen, noisy=noisy, constant=data.constant_features(), clip=clip)
            if num_samples is not None and not experiment.is_local:  # whose q of test data is not there yet
                option = "--evaluation-samples"
                if caution := caution_of_samples(objective.model, data.test, num_samples, option=option):
                    say(caution)

    experiment = Experiment(Run(out), config, objective)
    return _fitted(experiment, data, fabric, on_start=tell, progress=progress, overwrite=overwrite)


def resume_run(
    out: Path, *, changes: Mapping[str, Any] | None = None, progress: bool = False
) -> tuple[Experiment, History] | None:
    """Goes on with a run from its checkpoint.

    Args:
        out: The run directory.
        changes: Settings of training that are to be others from now on, such as `epochs`.
        progress: Whether to show progress.

    Returns:
        As :func:`start_run`.
    """
    run = Run.open(out, finished=False)
    config = run.read_config()
    check_recipe(run, config)
    config["training"].update(_settings(config["recipe"], {}, changes or {})[1])
    fabric = make_fabric(**config["device"])
    fabric.launch()
    experiment = Experiment(run, config, rebuilt(run, config))
    data = experiment.data()
    change = partial(run.change_training, changes or {})
    return _fitted(experiment, data, fabric, on_start=change, progress=progress, resume=True)


def finish_run(
    experiment: Experiment, *, num_samples: int | None = None, figures: bool = True, progress: bool = False
) -> Evaluation:
    """Measures a fitted run on its test data, as :func:`evaluate_run` does, and draws its figures."""
    data = experiment.data()
    model = model_for(experiment, data.test, progress=progress)
    result = evaluate_run(experiment, data, model=model, num_samples=num_samples, progress=progress)
    if figures:
        try:
            draw_figures(experiment.run, model, data)
        except Interrupted:
            raise
        except Exception as error:  # whatever it is, the run is finished and its numbers are written
            say(
                f"Careful: not all pictures could be drawn ({error}). The run is finished, and its numbers are written."
            )
    return result


def _settings(
    recipe: str, options: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a recipe and of training, checked before anything is touched."""
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'; there is {', '.join(RECIPES)}")
    of_recipe, of_fit = (inspect.signature(function).parameters for function in (RECIPES[recipe], fit))
    return checked_settings(of_recipe, options), checked_settings(of_fit, training)


def _check_apart(out: Path, source: str | Path) -> None:
    """Refuses a run folder that holds its own data, or lies in the folder that they are."""
    data = Path(source)
    if source in NAMES or not data.exists():
        return
    if lies_in(data, out) or (data.is_dir() and lies_in(out, data)):
        holds, held = (out, data) if lies_in(data, out) else (data, out)
        raise InputError(
            f"the run folder {out} and its data {source} must lie apart: {held} is in {holds}, and the one would be "
            "read or replaced as part of the other. Give another --out."
        )


def _fitted(
    experiment: Experiment,
    data: Data,
    fabric: Any,
    *,
    on_start: Callable[[], None],
    progress: bool,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[Experiment, History] | None:
    """Trains as the one writer of the run's folder, keeps some posterior means, and says why it is over."""
    run, training = experiment.run, experiment.config["training"]
    watched = data.validation.take(torch.arange(min(len(data.validation), _SNAPSHOT_DATA)))
    local = experiment.is_local
    every = math.ceil((training.get("epochs") or 100) / _SNAPSHOTS) if not training.get("minutes") else 1
    trained = False

    def snapshot(epoch: Epoch) -> None:
        nonlocal trained
        trained = True
        if fabric.is_global_zero and not local and (epoch.epoch == 1 or epoch.epoch % every == 0):
            means = posterior_means(experiment.objective.model, watched).flatten(1).numpy()
            run.save_means(epoch.epoch, means)

    with warnings.catch_warnings(), ExitStack() as held:
        warnings.simplefilter("ignore", WorseWarning)  # which conclude says
        if fabric.is_global_zero and run.path.is_dir():
            held.enter_context(run.writing())

        def begin() -> None:
            run.make_folder()
            held.enter_context(run.writing())
            run.begin(experiment.config, overwrite=overwrite)

        history = fit(
            experiment.objective,
            data.train if local else data,  # other data have no rows of parameters while it trains
            run_dir=run,
            resume=resume,
            fabric=fabric,
            on_start=on_start,
            on_begin=begin,
            on_epoch=snapshot,
            progress=progress and fabric.is_global_zero,
            **training,
        )
    if not fabric.is_global_zero:
        return None
    experiment.objective.eval()
    if progress:
        conclude(history, training, out=run.path, trained=trained)
    return replace(experiment, digest=run.digest or ""), history
