"""Fitting a run: started from data, resumed from its checkpoint, and measured and drawn at the end."""

import inspect
import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from subo.data.conforming import with_num_labels
from subo.data.dataset import Data
from subo.data.loading import load_data
from subo.data.named_sets import NAMES
from subo.data.quantization import dequantized
from subo.data.tables.options import TableOptions
from subo.errors import InputError
from subo.evaluation.latents.usage import posterior_means
from subo.evaluation.summary import Evaluation
from subo.experiments.config import built, dequantizes
from subo.experiments.experiment import Experiment, evaluate_run, model_for, rebuilt
from subo.experiments.start import Fitted, Start
from subo.experiments.units import data_in_levels
from subo.files.whole import lies_in
from subo.recipes import RECIPES
from subo.recipes.condition import columns_of
from subo.recipes.for_data import resolved
from subo.recipes.recipe import check_effects
from subo.report.pictures import draw_figures
from subo.runs.config import DataConfig, DeviceConfig, RunConfig, TrainingConfig
from subo.runs.run import Run
from subo.runtime.arguments import checked_settings
from subo.runtime.devices import make_fabric
from subo.runtime.launchers import launched
from subo.runtime.threads import suited_threads, with_threads
from subo.runtime.together import Together
from subo.training.fitting import fit
from subo.training.history import Epoch, WorseWarning
from subo.training.python_runs import check_recipe
from subo.training.settings import training_settings

__all__ = ["Fitted", "Start", "finish_run", "resume_run", "start_run", "validate_run"]

_SNAPSHOT_DATA, _SNAPSHOTS = 1000, 60

Note = Callable[[str], None]


def start_run(
    source: str,
    out: Path,
    *,
    recipe: str = "vae",
    options: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
    note: Note | None = None,
    on_start: Callable[[Start], None] | None = None,
) -> Fitted | None:
    """Fits a recipe to data, and writes everything to a run directory.

    Args:
        source: Name or path of the data.
        out: Run directory.
        recipe: Name of one of RECIPES.
        options: Options of the recipe that were set explicitly, each of which must have an effect.
        data: Settings of :func:`subo.load_data`; its ``seed`` is for split, bits and noise. For ``dequantize``
            see :func:`subo.experiments.config.dequantizes`; ``table`` are settings of
            :class:`subo.data.tables.options.TableOptions`, for tables of mixed columns.
        training: Settings of :func:`subo.fit`.
        device: Settings of :func:`subo.runtime.devices.make_fabric`.
        seed: Seed for training: initial weights, order, samples.
        overwrite: Whether to replace an existing run.
        progress: Whether to show progress.
        note: Called with sentences about what was done to the data while they were read.
        on_start: Called with what was read and chosen, in the first process, before training begins.

    Returns:
        The fitted run; None in all processes but the first.
    """
    options, trained = _settings(recipe, options or {}, training or {})
    data, device = data or {}, device or {}
    fabric = make_fabric(**device)
    with Together(fabric, partial(_left, Run(out), since=time.time())):
        fabric.launch()
        placed = DeviceConfig(**{**device, "processes": fabric.world_size})
        first = fabric.is_global_zero
        if first:
            _check_apart(out, source)
            Run.place(out, overwrite=overwrite)
        likelihood = options.get("likelihood", "auto")
        condition = columns_of(options.get("condition", "none"))
        of_one_kind = likelihood not in ("auto", "columns") and not source.lower().endswith(".h5ad")
        asked = {
            **data,
            "table": _of_tables(data.get("table", {}), likelihood if of_one_kind else "auto", condition=condition),
        }
        asked["size_factor"] = options.get("size_factor", "none")
        read, noisy = _read(source, asked, likelihood=likelihood, note=note if first else None)
        read = with_num_labels(read, options.get("num_labels"))
        settled = resolved(recipe, options, read)
        check_effects(RECIPES[recipe], options, settled)
        place = source if source in NAMES else str(Path(source).resolve())
        of_data = DataConfig.of(read, place, data_dir=data.get("data_dir"))
        config = RunConfig(recipe, settled, of_data, _training(trained, seed=seed), placed)
        objective = built(config, read)
        config = replace(config, training=_training(training_settings(objective, read, **trained), seed=seed))

        def announce() -> None:
            if on_start is not None and first:
                on_start(Start(config, objective, read, likelihood == "auto", noisy))

        return _fitted(
            Experiment(Run(out), config, objective),
            read,
            fabric,
            on_start=announce,
            progress=progress,
            overwrite=overwrite,
        )


def _of_tables(given: Mapping[str, Any], likelihood: str, *, condition: tuple[str, ...]) -> TableOptions | None:
    """How tables are read; None where a likelihood describes all of their cells as numbers of one kind."""
    if likelihood in ("auto", "columns"):
        return TableOptions(**given, condition=condition)
    given = {**given, **({"condition": condition} if condition else {})}
    if given:
        raise InputError(
            f"`{next(iter(given))}` has no effect with `likelihood={likelihood}`, which describes numbers of one kind: "
            "leave it out, or use `likelihood=columns`"
        )
    return None


def _read(source: str, settings: Mapping[str, Any], *, likelihood: str, note: Note | None) -> tuple[Data, bool]:
    """The data prepared for a likelihood, and whether noise was added to integers by default."""
    data = load_data(source, **settings, note=note)
    if len(data.test) < 2:
        at_random = (data.division or "").startswith("at random")
        least = "at least 20 examples, of which a tenth is kept for the test" if at_random else "at least two"
        raise InputError(
            f"{source} leaves only {len(data.test)} example to test on, but a standard error needs two: provide {least}"
        )
    if settings.get("dequantize") is None and dequantizes(data, likelihood):
        return dequantized(data, seed=settings.get("seed", 0)), True
    return data_in_levels(data, likelihood), False


def resume_run(
    out: Path, *, changes: Mapping[str, Any] | None = None, processes: int | None = None, progress: bool = False
) -> Fitted | None:
    """Resumes a run from its checkpoint.

    Args:
        out: Run directory.
        changes: Training settings to change from now on, such as `epochs`.
        processes: Number of processes; by default as many as a launcher has started, else as many as the run had.
        progress: Whether to show progress.

    Returns:
        Same as :func:`start_run`.
    """
    run = Run.open(out, finished=False)
    config = run.read_config()
    check_recipe(run, config)
    assert config.recipe is not None, "see check_recipe"
    config = replace(config, training=replace(config.training, **_settings(config.recipe, {}, changes or {})[1]))
    if processes is None and launched() is None:
        processes = config.device.processes
    fabric = make_fabric(**{**asdict(config.device), "processes": processes})
    with Together(fabric, partial(_left, run)):
        fabric.launch()
        experiment = Experiment(run, config, rebuilt(run, config))
        data = experiment.data()
        change = partial(run.change_training, changes or {})
        return _fitted(experiment, data, fabric, on_start=change, progress=progress, resume=True)


def finish_run(
    experiment: Experiment,
    data: Data | None = None,
    *,
    num_samples: int | None = None,
    figures: bool = True,
    processes: int = 1,
    progress: bool = False,
    note: Note | None = None,
) -> Evaluation:
    """Measures a fitted run on its test data, as :func:`evaluate_run` does, and draws its figures."""
    data = experiment.data() if data is None else data
    model = model_for(experiment, data.test, progress=progress)
    shared: Any = {"processes": processes, "progress": progress}
    result = evaluate_run(experiment, data, model=model, num_samples=num_samples, **shared)
    if figures:
        try:
            draw_figures(experiment.run, model, data)
        except Exception as error:  # in any case, the run is finished and its numbers are written
            if note is not None:
                note(
                    f"Careful: not all pictures could be drawn ({error}). The run is finished, and its numbers are "
                    "written."
                )
    return result


def validate_run(experiment: Experiment, data: Data, *, num_samples: int | None = None, **options: Any) -> Evaluation:
    """Measures a fitted run on its validation data, and leaves the test data alone.

    Args:
        experiment: The run.
        data: Its data.
        num_samples: K for log p(x).
        options: ``processes``, ``progress`` and ``note``, as for :func:`finish_run`.
    """
    if not len(data.validation):
        raise InputError(f"{data.name} has no validation data to measure: use `measure=test`")
    return evaluate_run(experiment, data, split="validation", num_samples=num_samples, **options)


def _settings(
    recipe: str, options: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a recipe and of training, checked before anything is changed."""
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'; available: {', '.join(RECIPES)}")
    of_recipe, of_fit = (inspect.signature(function).parameters for function in (RECIPES[recipe], fit))
    return checked_settings(of_recipe, options), checked_settings(of_fit, training)


def _training(given: Mapping[str, Any], *, seed: int) -> TrainingConfig:
    """All settings of a training: those that were given, and the defaults of :func:`subo.fit`."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(fit).parameters.items()}
    return TrainingConfig.of({**defaults, **given, "seed": seed})


def _left(run: Run, *, since: float = 0.0) -> str:
    """What a run that was cut off can go on from: its checkpoint, if one was written after a time."""
    if not run.checkpoint.exists() or run.checkpoint.stat().st_mtime < since:
        return "No checkpoint was written before: it has to start again, with more frequent checkpoints if need be."
    try:
        saved = run.load_checkpoint()
    except InputError as error:
        return f"The checkpoint can't be used: {error}"
    where = f"of step {saved['step']}, in epoch {saved['epoch'] + 1},"
    return f"The checkpoint {where} is whole: resume the run {run.path} to go on from there."


def _check_apart(out: Path, source: str | Path) -> None:
    """Refuses a run folder that contains its own data, or lies inside the data folder."""
    data = Path(source)
    if source in NAMES or not data.exists():
        return
    if lies_in(data, out) or (data.is_dir() and lies_in(out, data)):
        holds, held = (out, data) if lies_in(data, out) else (data, out)
        raise InputError(
            f"the run folder {out} and its data {source} must be separate: {held} is in {holds}, and one would be read "
            "or replaced as part of the other. Give another `run_dir`."
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
) -> Fitted | None:
    """Trains as the only writer of the run's folder, and stores some posterior means."""
    run, training = experiment.run, experiment.config.training
    watched = data.validation.take(torch.arange(min(len(data.validation), _SNAPSHOT_DATA)))
    local = experiment.config.is_local
    every = math.ceil((training.epochs or 100) / _SNAPSHOTS) if not training.minutes else 1
    trained = False

    def snapshot(epoch: Epoch) -> None:
        nonlocal trained
        trained = True
        if fabric.is_global_zero and not local and (epoch.epoch == 1 or epoch.epoch % every == 0):
            means = posterior_means(experiment.objective.model, watched).flatten(1).numpy()
            run.save_means(epoch.epoch, means)

    with warnings.catch_warnings(), ExitStack() as held:
        warnings.simplefilter("ignore", WorseWarning)  # it is in the history
        if fabric.is_global_zero and run.path.is_dir():
            held.enter_context(run.writing())

        def begin() -> None:
            run.make_folder()
            held.enter_context(run.writing())
            run.begin(experiment.config.as_json(), overwrite=overwrite)

        if experiment.config.device.threads is None and fabric.device.type == "cpu":
            rows = training.batch_size * experiment.objective.num_samples
            held.enter_context(with_threads(suited_threads(experiment.objective, rows)))
        history = fit(
            experiment.objective,
            data.train if local else data,  # other data have no rows of parameters during training
            run_dir=run,
            resume=resume,
            fabric=fabric,
            on_start=on_start,
            on_begin=begin,
            on_epoch=snapshot,
            progress=progress and fabric.is_global_zero,
            **vars(training),
        )
    if not fabric.is_global_zero:
        return None
    experiment.objective.eval()
    alone = launched() is not None or fabric.device.type != "cpu"  # a launcher's other processes are on other machines
    shared = 1 if alone else fabric.world_size
    return Fitted(replace(experiment, digest=run.digest or ""), history, data, trained, processes=shared)
