"""The command ``fit``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from subo.cli.messages import print_evaluation, say
from subo.cli.options import defaults, grouped
from subo.data.dataset import describe_constants
from subo.errors import InputError
from subo.experiments.units import kind_of_log_px

if TYPE_CHECKING:
    from subo.core.objective import Objective
    from subo.training.history import History

__all__ = ["announce", "conclude", "fit"]

_CHANGEABLE = ("epochs", "minutes", "patience", "checkpoint_minutes")


def fit(**given: Any) -> None:
    """Fits a model to data, measures it on held-out data and draws its pictures, all in one run folder."""
    from subo.experiments import fitting as fitting_runs

    recipe, progress = given.get("recipe", "vae"), not given.get("quiet", False)
    groups = grouped(given, recipe)
    out = given.get("out")
    if given.get("resume"):
        if out is None:
            raise InputError("--resume goes on with the run in --out RUN: name it.")
        allowed = {"out", "resume", "evaluation_samples", "quiet", *_CHANGEABLE}
        if foreign := sorted(set(given) - allowed):
            raise InputError(
                f"--resume takes all settings from the run folder, and {_flags(foreign)} would make another run of it. "
                f"Only {_flags(_CHANGEABLE)} can change."
            )
        fitted = fitting_runs.resume_run(out, changes=groups["training"], progress=progress)
    else:
        source = given.get("data")
        if source is None or not source.strip():
            raise InputError("fit needs data: 'subo fit digits', or a file. 'subo fit --help' says what it takes.")
        out = out or Path("runs") / (Path(source).stem or Path(source).resolve().stem)
        settings = {group: {**defaults(recipe, group), **values} for group, values in groups.items()}
        fitted = fitting_runs.start_run(
            source,
            out,
            recipe=recipe,
            options=settings["recipe"],
            training=settings["training"],
            device=settings["device"],
            seed=given.get("seed", 0),
            data_seed=given.get("data_seed", 0),
            overwrite=given.get("overwrite", False),
            num_samples=given.get("evaluation_samples"),
            progress=progress,
            **settings["data"],
        )
    if fitted is None:  # another process of the same run
        return
    experiment, _ = fitted
    result = fitting_runs.finish_run(experiment, num_samples=given.get("evaluation_samples"), progress=progress)
    if progress:
        print_evaluation(asdict(result), experiment.config, run=out)
        say(f"run:      {out}")
        say(f"pictures: {out / 'figures'}")


def _flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


_USES = {"train": "train on", "validation": "validate on", "test": "test on"}


_BITS = {"none": "", "static": "; bits drawn once", "dynamic": "; bits drawn afresh at every visit in training"}


_NOISE = "; dequantised: y + u, with u drawn afresh at every visit in training"


_VALUES = {"grey": "in [0, 1]", "whole": "whole numbers", "binary": "binary", "real": "real"}


_ASKED = {
    "grey": "; if they can lie nowhere else, give --likelihood continuous-bernoulli",
    "whole": "; of counts give --likelihood poisson, of classes categorical",
}


_RISING = 0.1  # nats from tenth to tenth of the epochs


def announce(
    config: Mapping[str, Any],
    objective: "Objective",
    *,
    chosen: bool,
    noisy: bool = False,
    constant: Sequence[str] = (),
    clip: float | None = None,
) -> None:
    """Prints what was read and what is going to be fitted.

    Args:
        config: Of the run.
        objective: The model and how its gradient is estimated.
        chosen: Whether the likelihood was left to the data.
        noisy: Whether integers are dequantised that nobody asked to be.
        constant: Columns of a table that never change in the training data.
        clip: The largest norm of a gradient, since some values are far from the others and nobody asked for another.
    """
    data, options = config["data"], config["options"]
    sizes, kind = data["sizes"], data["kind"]
    parts = ", ".join(f"{sizes[part]:,} to {use}" for part, use in _USES.items())
    shape = tuple(data["event_shape"])
    drawn = _NOISE if data["dequantize"] else _BITS[data["binarize"]]
    what = f"data of shape {shape}"
    if data["steps"]:
        what = f"sequences of {sum(data['steps'].values()):,} steps of shape {shape}"
    say(f"{data['name']}: {sum(sizes.values()):,} {what}, {kind}{drawn}: {parts}")
    asked = _ASKED.get(kind, "")
    if kind == "whole" and len(shape) > 1:
        asked += "; pixels with levels are arrays of bytes, uint8"
    why = f" (auto: the values are {_VALUES.get(kind, kind)}{asked})" if chosen else ""
    parameters = sum(parameter.numel() for parameter in objective.model.parameters())
    say(f"likelihood {options['likelihood']}{why}, {_latents(options)}, {parameters:,} parameters")
    gradient = type(objective.gradient).__name__
    if objective.gradient.biased:
        say(f"Careful: the gradient {gradient} is biased ({objective.gradient.biased}). All reported numbers are not.")
    elif gradient != "Pathwise":
        say(f"gradient {gradient}, {objective.num_samples} samples of z a datum")
    if noisy:
        say(
            "integers are dequantised, so that log p(x) is a bound on the log-probability of their levels; "
            f"--no-dequantize takes them as points of [0, 1], where it is a density of x/{data['levels']}"
        )
    if constant and kind_of_log_px(config) != "probability":
        say(f"Careful: {describe_constants(constant)}")
    if clip is not None:
        say(
            "Careful: some values lie more than 1,000 standard deviations from the others. Are they right? Gradients "
            f"are clipped at a norm of {clip:g}, so that the others count; --clip sets another norm."
        )


def _latents(options: Mapping[str, Any]) -> str:
    """How many there are, layer by layer where there are several."""
    layers = options.get("latent_dims")
    if layers is None:
        return f"{options['latent_dim']} latents"
    return f"{' + '.join(map(str, layers))} latents in {len(layers)} layer{'s' * (len(layers) > 1)} (from x upwards)"


def conclude(history: "History", training: Mapping[str, Any], *, out: Path, trained: bool) -> None:
    """Prints why training is over, and that it ended too early where the bound was still rising.

    Args:
        history: What it did, over all sittings.
        training: Its settings.
        out: The run's folder.
        trained: Whether there was anything to do in this sitting.
    """
    last = history.epochs[-1]
    reason = {
        "epochs": "all epochs are done",
        "minutes": f"time is up (--minutes {training.get('minutes') or 0:g})",
        "patience": f"no better validation for {training.get('patience')} epochs (--patience)",
    }[history.stopped_by]
    if trained:
        best = f"; kept the weights of epoch {history.best_epoch}, the best in validation" if history.best_epoch else ""
        say(f"{last.epoch} epochs, {last.step} steps in {last.seconds:.1f} s: {reason}{best}")
        rise = _rise(history)
        if history.worse:
            say(f"Careful: {history.worse}")
        elif rise > _RISING:
            longer = f"--{history.stopped_by} {2 * (training.get(history.stopped_by) or last.epoch):g}"
            when = "last epoch" if _tenth(history) == 1 else "last tenth of the epochs"
            say(
                f"Careful: the validation bound was still rising, by {rise:.2f} nats in the {when}; "
                f"training is not at its end. Go on with: subo fit --resume --out {out} {longer}"
            )
    else:
        say(f"nothing was left to do: {reason}. A larger --epochs, --minutes or --patience goes on.")


def _rise(history: "History") -> float:
    """How much higher the validation bound was in the last tenth of the epochs than in the tenth before, in nats.

    Of fewer than 20 epochs, in the last than in the one before.

    0 where the best epoch is not among the last few, which is how training ends that had its time.
    """
    bounds = [epoch.validation.bound for epoch in history.epochs if epoch.validation is not None]
    tenth = _tenth(history)
    if len(bounds) < 2 or (history.best_epoch or 0) <= history.epochs[-1].epoch - max(2, 2 * tenth):
        return 0.0
    last, before = bounds[-tenth:], bounds[-2 * tenth : -tenth]
    return fmean(last) - fmean(before)


def _tenth(history: "History") -> int:
    """A tenth of the epochs, one at least."""
    return max(1, len(history.epochs) // 10)
