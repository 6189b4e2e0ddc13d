"""The command ``show``."""

from contextlib import redirect_stdout
from html import escape
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from subo.cli.arguments import RunPath
from subo.cli.messages import print_evaluation, say
from subo.files.nonfinite import decoded
from subo.runs.config import RunConfig
from subo.runs.own_files import noted_digest
from subo.runs.paths import SPLITS
from subo.runs.run import Run

__all__ = ["print_run", "show"]


def show(run: RunPath, /, *, html: bool = False, accept_changes: bool = False) -> None:
    """Shows what is in a run folder: data, model, training and results.

    Args:
        run: Run folder.
        html: Write it as a page, as in subo show RUN --html > run.html. The page of the model itself is subo report.
        accept_changes: Accept settings and weights that were changed by hand. A run stores SHA-256 digests of its
            weights, checkpoint and settings, and refuses to work with others.
    """
    from subo.runs.run import Run

    opened = Run.open(run, finished=False)
    if accept_changes:
        opened.accept_changes()
    if not html:
        print_run(opened)
        return
    with redirect_stdout(StringIO()) as printed:
        print_run(opened, width=_WIDTH)
    print(_page(str(run), printed.getvalue()))


def _page(title: str, text: str) -> str:
    """What was printed, as a page of its own."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<h1>{escape(title)}</h1>\n"
        f'<pre style="white-space: pre-wrap; line-height: 1.4">{escape(text)}</pre>\n</html>'
    )


_NAMED = 20  # classes
_WIDTH = 110  # of a page, in letters


def print_run(run: Run, *, width: int | None = None) -> None:
    """Prints what is in a run folder: data, model, training and results; by default as wide as the terminal."""
    from subo.experiments.experiment import (
        open_run,  # here, since it takes a second to import
    )

    config = run.read_config()
    data = config.data
    table = Table.grid(padding=(0, 2))
    table.add_row("data", f"{data.source}: {data.sizes} of shape {data.event_shape}, {data.kind}")
    table.add_row("", data.noise if data.dequantize else data.binarization)
    if data.division:
        table.add_row("", f"parts: {data.division}")
    if classes := data.meaning.class_names:
        more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
        table.add_row("classes", f"{', '.join(classes[:_NAMED])}{more}")
    in_python = config.recipe is None
    table.add_row("recipe", config.recipe or "none: made in Python")
    shown = config.objective if in_python else _relevant(config)
    table.add_row("model", ", ".join(f"{name} {_short(value)}" for name, value in shown.items()))
    digest = run.digest
    if run.model.exists() and not in_python:
        opened = open_run(run.path)
        model, digest = opened.objective.model, opened.digest
        table.add_row("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    table.add_row(
        "training", ", ".join(f"{name} {_short(value)}" for name, value in vars(config.training).items() if value)
    )
    records = run.read_metrics()
    if records:
        last = records[-1]
        table.add_row("epochs", f"{last['epoch']} in {last['seconds']:.1f} s, {last['step']} steps")
    how = "in Python, by subo.fit(..., resume=True)" if in_python else "with fit --resume"
    table.add_row("state", "finished" if run.model.exists() else f"not finished: continue {how}")
    files = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*.[cjgpsm]*"))
    hidden = ("snapshots", "evaluation-pieces")
    table.add_row("files", ", ".join(name for name in files if not name.startswith(hidden)))
    Console(width=width).print(table)
    if caution := run.caution:
        say(f"Careful: {caution}")
    results = [file for split in SPLITS for file in (run.evaluation_of(split), run.per_datum(split))]
    known = {digest} if run.digest else {digest, None}  # version 0.1 did not record the weights of its results
    others = [file for file in (*results, run.gradients) if file.exists() and noted_digest(file) not in known]
    for file in others:
        say(f"{file.name} belongs to other weights or settings than the run has now, and is not shown: measure again.")
    measured = [
        split for split in SPLITS if run.evaluation_of(split).exists() and run.evaluation_of(split) not in others
    ]
    if measured:  # on the test data, if there is a choice
        print_evaluation(decoded(run.read_evaluation(measured[0])), config, run=run.path)


def _relevant(config: RunConfig) -> dict[str, Any]:
    """The recipe's options that apply given the others, or that were set explicitly."""
    from subo.recipes import RECIPES
    from subo.recipes.recipe import groups_of, settled, takers_of

    assert config.recipe is not None
    make, options = RECIPES[config.recipe], config.options
    choices = {choice for group in groups_of(make) for choice in group.CHOICES}
    plain = settled(make, {name: value for name, value in options.items() if name in choices})

    def is_relevant(name: str) -> bool:
        takers = [taker for group in groups_of(make) for taker in takers_of(group, name)]
        applies = not takers or any(options[choice] == entry for choice, entry in takers)
        return applies or options[name] != plain[name]

    return {name: value for name, value in options.items() if is_relevant(name)}


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
