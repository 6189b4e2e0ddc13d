"""The command ``explore``."""

from typing import Literal

from subo.cli.arguments import RunPath
from subo.cli.messages import say
from subo.cli.report import command_of_run

__all__ = ["explore"]


def explore(
    run: RunPath,
    /,
    *,
    split: Literal["test", "validation", "train"] = "test",
    port: int = 0,
    browser: bool = True,
) -> None:
    """Opens the page that report writes, with the live model behind it, on this machine alone.

    It follows a fit that is still running, and decodes with the model itself what the page cannot. It never writes to
    the run folder. Ctrl-C ends it; the page then goes on with its own decoder.

    Args:
        run: Run folder; of a fit that is running, once it has kept weights.
        split: Which split of the run's data the examples are of.
        port: Port on 127.0.0.1; 0 takes a free one.
        browser: Whether to open the page in a browser.
    """
    import webbrowser

    from subo.experiments.experiment import open_latest
    from subo.explorer.server import Explorer, serve

    experiment = open_latest(run)
    command = command_of_run(experiment.config, experiment.run.path)
    explorer = Explorer.of(experiment, experiment.data(), split=split, command=command)

    def ready(address: str) -> None:
        say(f"{address}\nCtrl-C ends it.")
        if browser:
            webbrowser.open(address)

    serve(explorer, port=port, ready=ready)
