"""Experiments: a run from data to figures, and a run read back. What the command line does, as functions."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from subo.announcements import announce, conclude
from subo.arguments import checked_settings
from subo.bounds import ELBO, reported
from subo.conditionals import Local
from subo.conditioning import num_labels_of
from subo.conforming import with_num_labels
from subo.data import Data, Split
from subo.devices import make_fabric
from subo.divergence import default_clip
from subo.errors import InputError, Interrupted
from subo.evaluation.effort import NUM_SAMPLES, Effort, affordable, seconds_a_sample
from subo.evaluation.summary import Evaluation, evaluate
from subo.evaluation.usage import posterior_means
from subo.files import lies_in, write_json
from subo.fitting import fit
from subo.history import Epoch, History, WorseWarning
from subo.inference import infer
from subo.meaning import Meaning
from subo.messages import say
from subo.model import VAE
from subo.named_sets import NAMES
from subo.nonfinite import encoded
from subo.objective import Objective
from subo.pictures import draw_figures
from subo.progress import bar
from subo.python_runs import check_recipe
from subo.quantisation import dequantized
from subo.recipes import RECIPES
from subo.runs import Run
from subo.settings import built, dequantizes, resolved
from subo.sources import load
from subo.support import in_support, stand_ins
from subo.units import data_in_levels, provenance

__all__ = [
    "Experiment",
    "evaluate_run",
    "finish_run",
    "model_for",
    "open_run",
    "resume_run",
    "start_run",
    "training_seconds",
]

_SNAPSHOT_DATA, _SNAPSHOTS = 1000, 60


@dataclass(frozen=True)
class Experiment:
    """A run with what its files say.

    Attributes:
        run: The directory.
        config: What was asked for.
        objective: The model, its bound and number of samples; with the fitted weights once there are some.
        digest: Of these weights with their settings; empty before there are some. Every result carries it.
    """

    run: Run
    config: dict[str, Any]
    objective: Objective
    digest: str = ""

    def check_current(self) -> None:
        """Refuses to write what was measured into a run that has other weights by now.

        Raises:
            InputError: Another process has replaced them meanwhile.
        """
        if self.run.digest not in (self.digest, None):
            raise InputError(
                f"the weights in {self.run.path} were replaced while the old ones were measured, and nothing is "
                "written. Measure the new ones by the same command."
            )

    @property
    def meaning(self) -> Meaning:
        """What the values of the run's data mean, by which all later data are read."""
        return Meaning.from_json(self.config["data"]["meaning"])

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes 0, 1, ...; of a run that has stored none, whose model is told them, its data's."""
        known, count = self.meaning.class_names, num_labels_of(self.objective.model)
        if known is not None or count is None:
            return known
        with suppress(InputError):  # the data are gone
            known = self.data().class_names
        return known or tuple(map(str, range(count)))

    def data(self) -> Data:
        """Loads the data that the run was fitted to.

        Raises:
            InputError: They are gone, or are not the same any more.
        """
        asked = self.config["data"]
        directory = asked["data_dir"] and Path(asked["data_dir"])
        data = load(
            asked["source"],
            data_dir=directory,
            binarize=asked["binarize"],
            dequantize=asked["dequantize"],
            seed=asked["seed"],
            meaning=self.meaning,
        )
        data = data_in_levels(data, self.config["options"])
        if data.fingerprint != asked["fingerprint"]:
            raise InputError(
                f"{asked['source']} is not what it was when the run {self.run.path} was fitted to it (fingerprint "
                f"{data.fingerprint}, then {asked['fingerprint']}): its numbers would not belong together. Restore the "
                "data, or fit again; an older version of subo may also have read the same files in another order."
            )
        return data


_MINUTE = 60.0  # seconds that an evaluation may take, however short training was
_LOCAL_SAMPLES = 16  # of z, for each step of a posterior that is fitted to held-out data


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
        dequantize: Whether uniform noise is added to 8-bit values; None: where :func:`subo.settings.dequantizes`.
        image_size: Height and width that the images of a folder are brought to.
        seed: Of training: first weights, order, samples.
        data_seed: Of the data: split, bits and noise of held-out data.
        training: Settings of :func:`subo.fitting.fit`.
        device: Settings of :func:`subo.devices.make_fabric`.
        overwrite: Whether a run that is there already is replaced.
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

    experiment = Experiment(Run(out), config, objective)
    return _fitted(experiment, data, fabric, on_start=tell, progress=progress, overwrite=overwrite)


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


def _settings(
    recipe: str, options: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a recipe and of training, checked before anything is touched."""
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'; there is {', '.join(RECIPES)}")
    of_recipe, of_fit = (inspect.signature(function).parameters for function in (RECIPES[recipe], fit))
    return checked_settings(of_recipe, options), checked_settings(of_fit, training)


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
    experiment = Experiment(run, config, _rebuilt(run, config))
    data = experiment.data()
    change = partial(run.change_training, changes or {})
    return _fitted(experiment, data, fabric, on_start=change, progress=progress, resume=True)


def open_run(path: str | Path) -> Experiment:
    """Reads a finished run: builds its model again and loads the weights."""
    run = Run.open(path)
    config = run.read_config()
    check_recipe(run, config)
    objective = _rebuilt(run, config)
    if config["device"].get("precision") == "64-true":
        objective.double()
    digest = run.load_weights(objective.model)
    objective.eval()
    return Experiment(run, config, objective, digest)


def _rebuilt(run: Run, config: dict[str, Any]) -> Objective:
    """The objective that a run's config describes."""
    try:
        return built(config, None)
    except InputError as error:
        raise InputError(f"{run.config}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.config} does not describe a model that this version ({version('subo')}) can build ({error}). It was "
            f"written by {config.get('subo', 'an unknown version')}; if it was changed since, restore it from a copy."
        ) from error


def evaluate_run(
    experiment: Experiment,
    data: Data,
    *,
    model: Any = None,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measures a run on one of its splits, and writes ``evaluation.json``, or ``evaluation-SPLIT.json``.

    Unless `num_samples` says how many, as much is measured as fits into the time of training, or into a minute where
    that is longer: 1,000 samples of all data, fewer samples, or 100 samples of some data at random. What was left out
    is in the record. How long it takes is told by a quick timing before, on which no number but these two depends.

    Args:
        experiment: The run.
        data: Its data.
        model: The model as it can be asked about that split; that of :func:`model_for` by default.
        split: ``test``, ``validation`` or ``train``.
        num_samples: K of log p(x), for all data; chosen by the time that it takes by default.
        seed: Of the samples.
        progress: Whether to show progress.
    """
    held_out: Split = getattr(data, split)
    model, reduced_from = model or model_for(experiment, held_out, progress=progress), None
    if num_samples is None:
        local, length = experiment.config["options"].get("inference") == "local", len(held_out)
        seconds = max(_MINUTE, training_seconds(experiment.run) or 0.0)
        effort = affordable(seconds, seconds_a_sample(model, held_out), length, all_data=local)  # whose rows have q's
        num_samples = effort.num_samples
        if effort != Effort(NUM_SAMPLES, length):
            reduced_from = {"num_samples": NUM_SAMPLES, "num_data": length, "seconds": seconds}
            held_out = held_out if effort.num_data == length else held_out.take(effort.rows(length, seed=seed))
    shown, task = bar(f"log p(x), {num_samples} samples", len(held_out), show=progress)
    with shown:
        result = evaluate(
            model,
            held_out,
            name=split,
            num_samples=num_samples,
            seed=seed,
            advance=lambda count: shown.advance(task, count),
        )
    experiment.check_current()
    result = replace(result, reduced_from=reduced_from)
    write_json(
        experiment.run.evaluation_of(split),
        {
            "weights": experiment.digest,
            **encoded(asdict(result)),
            **provenance(experiment.config),
        },
    )
    return result


def training_seconds(run: Run) -> float | None:
    """Of training over all sittings; None where the run's metrics do not tell."""
    try:
        return float(run.read_metrics()[-1]["seconds"])
    except (IndexError, KeyError, ValueError):
        return None


def model_for(experiment: Experiment, split: Split, *, progress: bool = False) -> Any:
    """The model as it can be asked about a split: with local inference, with a posterior fitted to these data."""
    if experiment.config["options"].get("inference") != "local":
        return experiment.objective.model
    objective, model = experiment.objective, experiment.objective.model
    elbo = isinstance(objective.bound, ELBO)  # whose samples change the noise alone
    split = stand_ins(split, in_support(model, split))  # which have no q
    x, context = replace(split, resample=False).read(torch.arange(len(split)))  # what is drawn again is its mean
    fitted = infer(
        model,
        x,
        context,
        bound=reported(objective.bound),
        gradient=objective.gradient,
        num_samples=max(objective.num_samples, _LOCAL_SAMPLES) if elbo else objective.num_samples,
        progress=progress,
    )
    rows = Local(model.posterior.family, len(split), first=split.first).to(fitted.params)
    rows.params.data.copy_(fitted.params)
    return VAE(model.prior, model.likelihood, rows)


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
    local = experiment.config["options"].get("inference") == "local"
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
