"""The command ``report``."""

import inspect
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subo.cli.arguments import RunPath, check_apart, check_ending
from subo.cli.messages import say
from subo.errors import InputError

if TYPE_CHECKING:
    from subo.runs.config import RunConfig

__all__ = ["command_of_run", "report"]


def report(
    run: RunPath,
    /,
    *,
    out: Path = Path("report.html"),
    split: Literal["test", "validation", "train"] = "test",
    beside: Path | None = None,
    num_samples: int | None = None,
) -> None:
    """Writes what a run learned into one page, which opens anywhere: nothing is loaded from elsewhere.

    The decoder runs in the page, so that latent space can be explored: the plane of examples, one example and its
    posterior, training, each dimension, paths, samples, and all numbers that evaluate has written.

    Args:
        run: Run folder.
        out: Output file, .html.
        split: Which split of the run's data its examples are of.
        beside: Another run folder, of the same data: its numbers, paired differences and samples stand beside.
        num_samples: Posterior samples for each log p(x) of two runs side by side, 1000 by default.
    """
    from subo.experiments.experiment import open_run
    from subo.explorer.page import page
    from subo.explorer.record import record_of
    from subo.files.whole import replacing

    check_ending(out, ".html")
    check_apart(out, run)
    if beside is None and num_samples is not None:
        raise InputError("`num_samples` is of a comparison: name another run by `beside`, or leave it out")
    if beside is not None and split == "train":
        raise InputError("runs are compared on data that neither was fitted to: `split` must be test or validation")
    experiment = open_run(run)
    command = command_of_run(experiment.config, experiment.run.path)
    record = record_of(experiment, experiment.data(), split=split, command=command)
    if beside is not None:
        from subo.explorer.beside import beside_record

        record["beside"] = beside_record(run, beside, split=split, num_samples=num_samples or 1000)
    text = page(record)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"written to {out} ({len(text) / 1e6:.1f} MB): open it in a browser")


def command_of_run(config: "RunConfig", path: Path) -> str:
    """The command that fits such a run again, with every setting that is not the default; empty for one of Python's."""
    from subo.recipes import RECIPES
    from subo.training.fitting import fit

    if config.recipe is None:
        return ""
    words = ["subo", "fit", config.data.source, "--out", str(path)]
    if config.recipe != "vae":
        words += ["--recipe", config.recipe]
    plain = {**_defaults(RECIPES[config.recipe]), **_defaults(fit)}
    for name, value in config.settings.items():
        if name in plain and value is not None and value != plain[name]:
            words += _option(name, value)
    if config.data.binarize != "none":
        words += ["--binarize", config.data.binarize]
    return shlex.join(words)


def _defaults(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
