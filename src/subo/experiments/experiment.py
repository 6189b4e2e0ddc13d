"""Experiments: a run with the model that its files describe, read back and measured on its data."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from subo.core.bounds import ELBO, reported
from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.data.support import in_support, stand_ins
from subo.errors import InputError
from subo.evaluation.baseline import Baseline, table_baseline
from subo.evaluation.effort import NUM_SAMPLES, Effort, affordable, caution_of_samples, seconds_a_sample
from subo.evaluation.summary import Evaluation, measure
from subo.experiments.config import built
from subo.experiments.units import data_in_levels, provenance
from subo.files.whole import write_json
from subo.inference.ascent import Ascent
from subo.inference.per_example import infer
from subo.models.vae import VAE
from subo.parts.cells import Cells
from subo.parts.conditionals import Local
from subo.parts.labels import num_labels_of
from subo.recipes.data_size import TableSize
from subo.runs.config import RunConfig
from subo.runs.run import Run
from subo.runtime.arguments import checked_arguments
from subo.runtime.progress import bar
from subo.training.python_runs import check_recipe
from subo.typing import Context

__all__ = [
    "Experiment",
    "baseline_of",
    "evaluate_run",
    "model_for",
    "open_latest",
    "open_run",
    "rebuilt",
    "training_seconds",
]

_MINUTE = 60.0  # seconds that an evaluation may take, even after a shorter training
_LOCAL_SAMPLES = 16  # of z, in each step of fitting a posterior to held-out data


@dataclass(frozen=True)
class Experiment:
    """A run with the contents of its files.

    Attributes:
        run: The run directory.
        config: What the run is.
        objective: The model, its bound and number of samples; with the fitted weights once they exist.
        digest: Digest of these weights and their settings; empty before they exist. Every result carries it.
    """

    run: Run
    config: RunConfig
    objective: Objective
    digest: str = ""

    def check_current(self) -> None:
        """Refuses to write results into a run whose weights have been replaced.

        Raises:
            InputError: Another process has replaced the weights in the meantime.
        """
        if self.run.digest not in (self.digest, None):
            raise InputError(
                f"the weights in {self.run.path} were replaced while the old ones were measured, so nothing is "
                "written. Measure the new ones with the same command."
            )

    @property
    def model(self) -> Any:
        """The fitted model, a :class:`subo.LatentVariableModel`."""
        return self.objective.model

    def explore(self, **options: Any) -> Any:
        """The run's page, to be the value of a notebook's cell: :func:`subo.explore` of it, with its options."""
        import subo  # whose explorer stands above this package, and takes a second to import

        return subo.explore(self, **options)

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes 0, 1, ...; the data's own if a run of a conditional model has not stored them."""
        known, count = self.config.data.meaning.class_names, num_labels_of(self.objective.model)
        if known is not None or count is None:
            return known
        with suppress(InputError):  # the data are gone
            known = self.data().class_names
        return known or tuple(map(str, range(count)))

    def data(self) -> Data:
        """Loads the data that the run was fitted to.

        Raises:
            InputError: The data are gone or have changed.
        """
        asked = self.config.data
        data = load_data(
            asked.source,
            data_dir=None if asked.data_dir is None else Path(asked.data_dir),
            binarize=asked.binarize,
            dequantize=asked.dequantize,
            seed=asked.seed,
            meaning=asked.meaning,
            on_disk=asked.on_disk,
        )
        data = data_in_levels(data, self.config.likelihood)
        if data.fingerprint != asked.fingerprint:
            raise InputError(
                f"{asked.source} has changed since the run {self.run.path} was fitted to it (fingerprint "
                f"{data.fingerprint}, then {asked.fingerprint}): the results would not be comparable. Restore the "
                "data, or fit again; an older version of subo may also have read the same files in a different order."
            )
        return data


@checked_arguments
def open_run(path: str | Path) -> Experiment:
    """Reads a finished run: rebuilds its model and loads the weights."""
    run = Run.open(path)
    config = run.read_config()
    check_recipe(run, config)
    objective = rebuilt(run, config)
    if config.device.precision == "64-true":
        objective.double()
    digest = run.load_weights(objective.model)
    objective.eval()
    return Experiment(run, config, objective, digest)


def open_latest(path: str | Path) -> Experiment:
    """Reads a run that may still be training: with the fitted weights, or else the last that were kept.

    Raises:
        InputError: There is no run, or it has kept no weights yet.
    """
    run = Run.open(path, finished=False)
    if run.model.exists():
        return open_run(path)
    config = run.read_config()
    check_recipe(run, config)
    if not (epochs := run.kept_epochs()):
        raise InputError(f"the run in {path} has kept no weights yet: wait for its first epochs, or fit it to the end")
    objective = rebuilt(run, config)
    digest = run.load_weights(objective.model, epoch=epochs[-1])
    objective.eval()
    return Experiment(run, config, objective, digest)


def rebuilt(run: Run, config: RunConfig) -> Objective:
    """The objective that a run's config describes."""
    try:
        return built(config, None)
    except InputError as error:
        raise InputError(f"{run.config}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.config} does not describe a model that this version ({version('subo')}) can build ({error}). It was "
            f"written by {config.subo}; if it was changed afterwards, restore it from a copy."
        ) from error


def evaluate_run(
    experiment: Experiment,
    data: Data,
    *,
    model: Any = None,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
    note: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures a run on one of its splits, and writes ``evaluation.json``, or ``evaluation-SPLIT.json``.

    Unless `num_samples` is given, as much is measured as fits into the time that training took, or into a minute if
    that is longer: 1,000 samples for all examples, fewer samples, or 100 samples for some examples at random. The
    record says what was left out. A quick timing beforehand predicts the duration and affects only these two numbers.

    Args:
        experiment: The run.
        data: Data of the run.
        model: Model to measure on that split; by default the result of :func:`model_for`.
        split: ``test``, ``validation`` or ``train``.
        num_samples: K for log p(x), for all examples; by default chosen by the time it takes.
        seed: Seed for the samples.
        processes: Number of processes that share the examples.
        progress: Whether to show progress.
        note: Is given what should be known before, such as how long it takes.
    """
    held_out: Split = getattr(data, split)
    model, reduced_from = model or model_for(experiment, held_out, progress=progress), None
    if num_samples is None:
        local, length = experiment.config.is_local, len(held_out)
        seconds = max(_MINUTE, training_seconds(experiment.run) or 0.0)
        effort = affordable(seconds, seconds_a_sample(model, held_out), length, all_data=local)  # its rows have q's
        num_samples = effort.num_samples
        if effort != Effort(NUM_SAMPLES, length):
            reduced_from = {"num_samples": NUM_SAMPLES, "num_data": length, "seconds": seconds}
            held_out = held_out if effort.num_data == length else held_out.take(effort.rows(length, seed=seed))
    elif note is not None and (caution := caution_of_samples(model, held_out, num_samples)):
        note(caution)
    with bar(f"log p(x), {num_samples} samples", len(held_out), show=progress) as advance:
        shared: Any = {"processes": processes, "advance": advance}
        measured = measure(model, held_out, name=split, num_samples=num_samples, seed=seed, **shared)
    experiment.check_current()
    baseline = baseline_of(experiment, data, held_out)
    beside = None if baseline is None else baseline.beside(measured[1].log_px)
    result = replace(measured[0], reduced_from=reduced_from, baseline=beside)
    write_json(
        experiment.run.evaluation_of(split),
        {
            "weights": experiment.digest,
            **result.to_dict(),
            **provenance(experiment.config),
        },
    )
    return result


def baseline_of(experiment: Experiment, data: Data, split: Split) -> Baseline | None:
    """What a model without latents gives some rows of a table; None for other data, and for rows with sizes."""
    if TableSize.of(data) is None or experiment.config.is_sized:
        return None
    features = _features_of_condition(experiment, data)
    return table_baseline(experiment.model.likelihood.family, data.train, split, features=features)


def _features_of_condition(experiment: Experiment, data: Data) -> Callable[[Context], Tensor] | None:
    """What gives the condition of rows as numbers; None without one."""
    if (classes := num_labels_of(experiment.model)) is not None:
        return lambda context: one_hot(context["label"].long(), classes).float()
    if (given := data.meaning.given) is None:
        return None
    cells = Cells(given.described, data.train.context["given"])
    return lambda context: cells(context["given"])


def training_seconds(run: Run) -> float | None:
    """Training time over all sittings; None if the run's metrics do not contain it."""
    try:
        return float(run.read_metrics()[-1]["seconds"])
    except (IndexError, KeyError, ValueError):
        return None


def model_for(experiment: Experiment, split: Split, *, progress: bool = False) -> Any:
    """The model to use for a split: with local inference, one with a posterior fitted to these data."""
    if not experiment.config.is_local:
        return experiment.objective.model
    objective, model = experiment.objective, experiment.objective.model
    elbo = isinstance(objective.bound, ELBO)  # its samples only change the noise
    split = stand_ins(split, in_support(model, split))  # those outside have no q
    x, context = replace(split, resample=False).read(torch.arange(len(split)))  # random values by their mean
    fitted = infer(
        model,
        x,
        context,
        bound=reported(objective.bound),
        ascent=Ascent(
            gradient=objective.gradient,
            num_samples=max(objective.num_samples, _LOCAL_SAMPLES) if elbo else objective.num_samples,
        ),
        progress=progress,
    )
    rows = Local(model.posterior.family, len(split), first=split.first).to(fitted.params)
    rows.params.data.copy_(fitted.params)
    return VAE(model.prior, model.likelihood, rows)
