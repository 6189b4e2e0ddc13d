"""The command line: thin commands, whose options come from signatures and docstrings of the library."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from subo.data import Split
from subo.errors import DivergedError, InputError, Interrupted
from subo.messages import print_evaluation, print_run
from subo.options import defaults, fit_signature, grouped
from subo.sources import Part, load_rows, save_array
from subo.support import check_support

__all__ = ["main", "make_app"]

RunPath = Annotated[Path, Parameter(help="Run folder, as given to fit --out.")]
DataSource = Annotated[
    str, Parameter(help="digits, mnist, fashion-mnist, binarized-mnist, or a .npy, .npz, .csv or folder of images.")
]
DataPart = Annotated[Part, Parameter(help="Which part of a data set; files are taken whole, in their order.")]


def fit(**given: Any) -> None:
    """Fits a model to data, measures it on held-out data and draws its pictures, all in one run folder."""
    from subo import experiments

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
        fitted = experiments.resume_run(out, changes=groups["training"], progress=progress)
    else:
        source = given.get("data")
        if source is None:
            raise InputError("fit needs data: 'subo fit digits', or a file. 'subo fit --help' says what it takes.")
        out = out or Path("runs") / Path(source).stem
        settings = {group: {**defaults(recipe, group), **values} for group, values in groups.items()}
        fitted = experiments.start_run(
            source,
            out,
            recipe=recipe,
            options=settings["recipe"],
            training=settings["training"],
            device=settings["device"],
            seed=given.get("seed", 0),
            overwrite=given.get("overwrite", False),
            progress=progress,
            **settings["data"],
        )
    if fitted is None:  # another process of the same run
        return
    experiment, history = fitted
    result = experiments.finish_run(experiment, num_samples=given.get("evaluation_samples", 1000), progress=progress)
    if progress:
        last = history.epochs[-1]
        best = f", best validation bound in epoch {history.best_epoch}" if history.best_epoch else ""
        _say(f"{last.epoch} epochs, {last.step} steps in {last.seconds:.1f} s{best}")
        print_evaluation(asdict(result), experiment.config)
        _say(f"run:      {out}")
        _say(f"pictures: {out / 'figures'}")


def evaluate(
    run: RunPath,
    /,
    *,
    split: Literal["test", "validation", "train"] = "test",
    num_samples: int = 1000,
    seed: int = 0,
) -> None:
    """Measures a run on held-out data: log p(x) and ELBO with their standard errors, rate, distortion.

    Args:
        run: Run folder.
        split: Which of the run's data.
        num_samples: Samples of the posterior for each log p(x).
        seed: Of the samples.
    """
    from subo import experiments

    experiment = experiments.open_run(run)
    result = experiments.evaluate_run(
        experiment, experiment.data(), split=split, num_samples=num_samples, seed=seed, progress=True
    )
    print_evaluation(asdict(result), experiment.config)
    _say(f"written to {experiment.run.evaluation}")


def sample(
    run: RunPath, /, *, out: Path, num: Annotated[int, Parameter(alias="-n")] = 64, mean: bool = False, seed: int = 0
) -> None:
    """Draws data from a fitted model: z from the prior, then x from p(x|z).

    Args:
        run: Run folder.
        out: Where to: .npy, .csv, or .png.
        num: How many.
        mean: Give E[x|z] instead of a draw from p(x|z): smoother pictures, and no samples of the data.
        seed: Of the draws.
    """
    import torch

    from subo import experiments, figures
    from subo.randomness import forked

    _check_ending(out, ".npy", ".csv", ".png")
    if num < 1:
        raise InputError(f"--num must be at least 1, not {num}")
    experiment = experiments.open_run(run)
    with forked(seed), torch.no_grad():
        _, p = experiment.objective.model.sample(num)
        x = (p.mean if mean else p.sample()).numpy()
    names = _feature_names(experiment.config)
    if out.suffix == ".png":
        figures.save(figures.samples(x, feature_names=names, drawn=not mean), out)
    else:
        save_array(out, x, names=names)
    _say(f"{num} samples written to {out}")


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
        out: Where to: .npy or .csv for all, .png for the first 16 beside their originals.
        part: Which part.
        data_dir: Where named data sets are looked for.
    """
    import torch

    from subo import figures
    from subo.evaluation.reconstruction import reconstruct as reconstructed
    from subo.experiments import model_for

    _check_ending(out, ".npy", ".csv", ".png")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    names = _feature_names(experiment.config)
    if out.suffix == ".png":
        split = split.take(torch.arange(min(16, len(split))))
        originals, _ = split.read(torch.arange(len(split)))
        means = reconstructed(model_for(experiment, split), split).numpy()
        figures.save(figures.reconstructions(originals.numpy(), means, feature_names=names), out)
    else:
        save_array(out, reconstructed(model_for(experiment, split), split).numpy(), names=names)
    _say(f"{len(split)} reconstructions written to {out}")


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

    _check_ending(out, ".npy", ".csv", ".png")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    model = model_for(experiment, split)
    usage = latent_usage(model, split)
    if out.suffix == ".png":
        if len(split) < 2:
            raise InputError("a map needs at least two data; write one datum's representation to .npy or .csv")
        figures.save(draw_latent_plane(model, usage, split), out)
    else:
        save_array(out, usage.means.numpy(), names=[f"z{i + 1}" for i in range(usage.means.shape[1])])
    _say(f"{len(split)} posterior means of {usage.means.shape[1]} latents written to {out}")


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

    _check_ending(out, ".npy", ".csv")
    experiment, split = _run_and_rows(run, data, part, data_dir)
    shown, task = bar(f"log p(x), {num_samples} samples", len(split), show=True)
    with shown:
        scores = scored(
            model_for(experiment, split),
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
    _say(
        f"{len(split)} values of log p(x) written to {out}: mean {scores.log_px.mean():.2f} nats, lowest "
        f"{scores.log_px[lowest]:.2f} in row {lowest + 1}"
    )


def show(run: RunPath, /) -> None:
    """Says what is in a run folder: data, model, training and results.

    Args:
        run: Run folder.
    """
    from subo.runs import Run

    print_run(Run.open(run, finished=False))


def make_app(recipe: str = "vae") -> App:
    """The command-line application.

    Args:
        recipe: Whose settings ``fit`` offers.
    """
    app = App(
        name="subo",
        help="Fit, measure and explore deep latent-variable models by variational inference. All numbers are in nats "
        "per datum. Start with: subo fit digits --latent-dim 2",
        version=version("subo"),
        help_format="plaintext",
        help_epilogue="--debug, anywhere, shows the traceback of an error.",
    )

    def command(**given: Any) -> None:
        fit(**given)

    signature = fit_signature(recipe)
    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = fit.__doc__
    app.command(command, name="fit")
    for function in (evaluate, sample, reconstruct, encode, score, show):
        app.command(function)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process: 0 well done, 2 an input that can't be used, 130 or 143 stopped."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app = make_app(_recipe(tokens))
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if command.__name__ == "command":
            command(**bound.arguments)  # only what was given: --resume must know
        else:
            command(*bound.args, **bound.kwargs)
    except (InputError, DivergedError, CycloptsError) as error:
        _fail(str(error), debug, code=2)
    except Interrupted as stopped:
        _fail(str(stopped), debug, code=128 + stopped.signal)
    except KeyboardInterrupt:
        _fail("stopped.", debug, code=130)
    except Exception as error:  # a defect of ours: said in one line, too
        hint = "" if debug else " --debug shows where."
        _fail(f"{type(error).__name__}: {error}. This should not happen: please report it.{hint}", debug, code=1)
    sys.exit(0)


_CHANGEABLE = ("epochs", "minutes", "patience", "checkpoint_minutes")


def _flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _recipe(tokens: Sequence[str]) -> str:
    """The recipe that is asked for: it must be known before the options are."""
    for i, token in enumerate(tokens):
        if token == "--recipe" and i + 1 < len(tokens):
            return tokens[i + 1]
        if token.startswith("--recipe="):
            return token.split("=", 1)[1]
    return "vae"


def _fail(message: str, debug: bool, *, code: int) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"subo: {message}", file=sys.stderr)
    sys.exit(code)


def _say(message: str) -> None:
    print(message, flush=True)


def _run_and_rows(run: Path, source: str, part: Part, data_dir: Path | None) -> tuple[Any, Split]:
    """A run and data for it: binarised as the run's were, of its shape, and in its likelihood's support."""
    from subo import experiments

    experiment = experiments.open_run(run)
    asked = experiment.config["data"]
    if data_dir is None and asked["data_dir"]:
        data_dir = Path(asked["data_dir"])
    split = load_rows(
        source,
        part=part,
        data_dir=data_dir,
        binarize=asked["binarize"],
        seed=asked["seed"],
        names=_feature_names(experiment.config),
    )
    split = experiments.in_levels(split, experiment.config)
    check_support(experiment.objective.model, split, where=source)
    return experiment, split


def _feature_names(config: dict[str, Any]) -> tuple[str, ...] | None:
    names = config["data"]["feature_names"]
    return tuple(names) if names else None


def _check_ending(out: Path, *endings: str) -> None:
    if out.suffix.lower() not in endings:
        raise InputError(f"cannot write {out}: its ending must be one of {', '.join(endings)}.")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}.")
