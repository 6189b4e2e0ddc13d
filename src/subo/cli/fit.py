"""The command ``fit``."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from subo.cli.messages import print_evaluation, say
from subo.cli.options import grouped
from subo.cli.resuming import changes_of
from subo.cli.schema import say_schema
from subo.cli.seeds import fit_seeds
from subo.data.dataset import describe_constants
from subo.errors import InputError, Interrupted, ProcessLostError
from subo.experiments.units import kind_of_log_px
from subo.runtime.wording import counted

if TYPE_CHECKING:
    from subo.experiments.fitting import Fitted, Start
    from subo.runs.config import TrainingConfig
    from subo.training.history import History

__all__ = ["announce", "conclude", "fit"]


def fit(**given: Any) -> None:
    """Fits a model to data, measures it on held-out data and draws its pictures, all in one run folder."""
    from subo.experiments.fitting import finish_run, validate_run

    if given.get("seeds") is not None:
        fit_seeds(given, given.get("out") or _folder_of(given.get("data") or ""))
        return
    if "jobs" in given:
        raise InputError("--jobs is the number of trainings at a time with --seeds: give both, or leave it out.")
    progress = not given.get("quiet", False)
    try:
        fitted = (_resumed if given.get("resume") else _started)(given, progress=progress)
    except Interrupted as stopped:
        out = given.get("out") or _folder_of(given["data"])
        message = f"{stopped}\nThat is: subo fit --resume --out {out}"
        raise Interrupted(message, signal=stopped.signal) from stopped
    except ProcessLostError as lost:
        out = given.get("out") or _folder_of(given["data"])
        how = f"\nThat is: subo fit --resume --out {out}" if "resume" in str(lost) else ""
        raise ProcessLostError(f"{lost}{how}", code=lost.code) from lost
    if fitted is None:  # another process of the same run
        return
    experiment, samples, note = fitted.experiment, given.get("evaluation_samples"), say if progress else None
    run = experiment.run.path
    if progress:
        conclude(fitted.history, experiment.config.training, out=run, trained=fitted.trained)
    finish = validate_run if given.get("measure") == "validation" else finish_run
    shared = {"processes": fitted.processes, "progress": progress}
    result = finish(experiment, fitted.data, num_samples=samples, note=note, **shared)
    if progress:
        print_evaluation(asdict(result), experiment.config, run=run)
        say(f"run:      {run}")
        if finish is finish_run:
            say(f"pictures: {run / 'figures'}")


def _started(given: Mapping[str, Any], *, progress: bool) -> "Fitted | None":
    """Starts a run."""
    from subo.experiments.fitting import start_run

    source, recipe = given.get("data"), given.get("recipe", "vae")
    if source is None or not source.strip():
        raise InputError("fit needs data: 'subo fit digits', or a file. 'subo fit --help' lists its options.")
    groups, samples = grouped(given, recipe), given.get("evaluation_samples")
    return start_run(
        source,
        given.get("out") or _folder_of(source),
        recipe=recipe,
        options=groups["recipe"],
        data={"seed": given.get("data_seed", 0), **groups["data"], "table": groups["table"]},
        training=groups["training"],
        device=groups["device"],
        seed=given.get("seed", 0),
        overwrite=given.get("overwrite", False),
        progress=progress,
        note=say if progress else None,
        on_start=partial(announce, num_samples=samples) if progress else None,
    )


def _folder_of(source: str) -> Path:
    name = Path(source).name or Path(source).resolve().name
    return Path("runs") / (name[: -len("".join(Path(name).suffixes[-2:]))] if name.endswith(".gz") else Path(name).stem)


def _resumed(given: Mapping[str, Any], *, progress: bool) -> "Fitted | None":
    """Resumes a run; accepts options that repeat its settings, and otherwise only those that may change."""
    from subo.experiments.fitting import resume_run
    from subo.runs.run import Run

    if (out := given.get("out")) is None:
        raise InputError("--resume continues the run in --out RUN: name it.")
    changes = changes_of(Run.open(out, finished=False).read_config(), given)
    return resume_run(out, changes=changes, processes=given.get("processes"), progress=progress)


_USES = {"train": "train on", "validation": "validate on", "test": "test on"}


_BITS = {"none": "", "static": "; bits drawn once", "dynamic": "; bits redrawn at every visit in training"}


_NOISE = "; dequantized: y + u, with u redrawn at every visit in training"


_VALUES = {
    "mixed": "the columns of a table",
    "grey": "in [0, 1]",
    "whole": "whole numbers",
    "binary": "binary",
    "real": "real",
}


_ASKED = {
    "grey": "; if they cannot lie anywhere else, give --likelihood continuous-bernoulli",
    "whole": "; for counts give --likelihood poisson, for classes categorical",
}


_RISING = 0.1  # nats from tenth to tenth of the epochs


def announce(start: "Start", *, num_samples: int | None = None) -> None:
    """Prints what was read and what will be fitted, and with how many samples it will be measured."""
    config, objective, chosen = start.config, start.objective, start.chosen
    data = config.data
    sizes, kind = data.sizes, data.kind
    parts = ", ".join(f"{sizes[part]:,} to {use}" for part, use in _USES.items())
    shape = data.event_shape
    drawn = _NOISE if data.dequantize else _BITS[data.binarize]
    what = f"examples of shape {shape}"
    if data.steps:
        what = f"sequences of {sum(data.steps.values()):,} steps of shape {shape}"
    where = ", read from disk batch by batch" * data.on_disk
    say(f"{data.name}: {sum(sizes.values()):,} {what}, {kind}{drawn}{where}: {parts}")
    if data.meaning.table is not None:
        say_schema(data.meaning.table)
    elif data.steps and (share := float(start.data.train.x.isnan().double().mean())):
        say(f"{share:.1%} of the values to train on are missing: they are integrated out")
    asked = _ASKED.get(kind, "")
    if kind == "whole" and len(shape) > 1:
        asked += "; pixels with levels are arrays of bytes, uint8"
    why = f" (auto: the values are {_VALUES.get(kind, kind)}{asked})" if chosen else ""
    parameters = sum(parameter.numel() for parameter in objective.model.parameters())
    say(f"likelihood {config.likelihood}{why}, {_latents(config.options)}, {parameters:,} parameters")
    gradient = type(objective.gradient).__name__
    if objective.gradient.biased:
        say(f"Careful: the gradient {gradient} is biased ({objective.gradient.biased}). All reported numbers are not.")
    elif gradient != "Pathwise":
        say(f"gradient {gradient}, {objective.num_samples} samples of z per example")
    if start.noisy:
        say(
            "integers are dequantized, so that log p(x) is a bound on the log-probability of their levels; "
            f"--no-dequantize uses them as points of [0, 1], where it is a density of x/{data.levels}"
        )
    constant = start.data.constant_features()
    if constant and kind_of_log_px(config) != "probability":
        say(f"Careful: {describe_constants(constant)}")
    if (clip := start.clip) is not None:
        say(
            "Careful: some values lie more than 1,000 standard deviations from the others. Are they right? Gradients "
            f"are clipped at a norm of {clip:g}, so that the others count; --clip sets a different norm."
        )
    longest = 0 if start.data.train.lengths is None else int(start.data.train.lengths.max())
    if (window := config.training.window) is not None and window < longest:
        say(
            f"sequences are trained in windows of {window:,} steps, each from the state at which the last one ended: "
            f"the gradient is truncated at their borders (--window {longest} for whole ones). Validation and all "
            "reported numbers are of whole sequences"
        )
    if caution := start.unused_latents():
        say(caution)
    if caution := start.few_epochs():
        say(f"Careful: {caution}")
    if caution := start.caution(num_samples):
        say(caution)


def _latents(options: Mapping[str, Any]) -> str:
    """The number of latents and their prior; layer by layer if there are several."""
    layers = options.get("latent_dims")
    if layers is None:
        prior = f" (prior {options['prior']})" if "prior" in options else ""
        return f"{counted(options['latent_dim'], 'latent')}{prior}"
    return f"{' + '.join(map(str, layers))} latents in {len(layers)} layer{'s' * (len(layers) > 1)} (from x upwards)"


def conclude(history: "History", training: "TrainingConfig", *, out: Path, trained: bool) -> None:
    """Prints why training ended, and a caution if it ended too early because the bound was still rising.

    Args:
        history: History of training, over all sittings.
        training: Training settings.
        out: Run folder.
        trained: Whether there was anything to do in this sitting.
    """
    last = history.epochs[-1]
    reason = {
        "epochs": "all epochs are done",
        "minutes": f"time is up (--minutes {training.minutes or 0:g})",
        "patience": f"no better validation for {training.patience} epochs (--patience)",
    }[history.stopped_by]
    if trained:
        best = f"; kept the weights of epoch {history.best_epoch}, the best in validation" if history.best_epoch else ""
        done = f"{counted(last.epoch, 'epoch')}, {counted(last.step, 'step')}"
        say(f"{done} in {last.seconds:.1f} s: {reason}{best}")
        if last.kl_weight < 1:
            say(
                f"Careful: training ended when the KL's weight had risen to {last.kl_weight:.2f} of 1, so that the "
                "model was never fitted to the bound that is reported. Give it more time, or "
                f"--kl-warmup-epochs {last.epoch // 5}"
            )
        rise = _rise(history)
        if history.worse:
            say(f"Careful: {history.worse}")
        elif rise > _RISING:
            longer = f"--{history.stopped_by} {2 * (getattr(training, history.stopped_by) or last.epoch):g}"
            when = "last epoch" if _tenth(history) == 1 else "last tenth of the epochs"
            say(
                f"Careful: the validation bound was still rising, by {rise:.2f} nats in the {when}; training is not "
                f"finished. Continue with: subo fit --resume --out {out} {longer}"
            )
    else:
        say(f"nothing was left to do: {reason}. To continue, increase --epochs, --minutes or --patience.")


def _rise(history: "History") -> float:
    """How much higher the validation bound was in the last tenth of the epochs than in the tenth before, in nats.

    With fewer than 20 epochs, in the last epoch than in the one before.

    0 if the best epoch is not among the last few, which means that training had enough time.
    """
    bounds = [epoch.validation.bound for epoch in history.epochs if epoch.validation is not None]
    tenth = _tenth(history)
    if len(bounds) < 2 or (history.best_epoch or 0) <= history.epochs[-1].epoch - max(2, 2 * tenth):
        return 0.0
    last, before = bounds[-tenth:], bounds[-2 * tenth : -tenth]
    return fmean(last) - fmean(before)


def _tenth(history: "History") -> int:
    """A tenth of the epochs, at least one."""
    return max(1, len(history.epochs) // 10)
