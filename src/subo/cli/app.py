"""The command-line application: its commands, and the messages for usage errors."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownOptionError, UnusedCliTokensError

from subo.cli.compare import compare
from subo.cli.encode import encode
from subo.cli.evaluate import evaluate
from subo.cli.explore import explore
from subo.cli.fit import fit
from subo.cli.forecast import forecast
from subo.cli.gradients import gradients
from subo.cli.impute import impute
from subo.cli.latent_paths import decode, interpolate, traverse
from subo.cli.options import check_options, converted, fit_signature, recipes_with
from subo.cli.reconstruct import reconstruct
from subo.cli.report import report
from subo.cli.sample import sample
from subo.cli.score import score
from subo.cli.show import show
from subo.cli.sweep import sweep
from subo.errors import InputError
from subo.runtime.launchers import launched

__all__ = ["COMMANDS", "command_of", "make_app", "recipe_of"]

COMMANDS = (
    *(sweep, evaluate, compare, gradients, sample, reconstruct, encode, decode, interpolate, traverse),
    *(score, impute, forecast, report, explore, show),
)
"""All but ``fit``, whose signature depends on the recipe."""


def make_app(recipe: str = "vae") -> App:
    """The command-line application.

    Args:
        recipe: Recipe whose settings ``fit`` offers.
    """
    app = App(
        name="subo",
        help="Fit, measure and explore deep latent-variable models by variational inference. All numbers are in nats "
        "per example. Start with: subo fit digits --latent-dim 2",
        version=version("subo"),
        help_format="markdown",
        help_epilogue="Add --debug anywhere to see the traceback of an error.",
        default_parameter=Parameter(converter=converted),
    )

    def command(**given: Any) -> None:
        fit(**given)

    signature = fit_signature(recipe)
    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = fit.__doc__
    app.command(command, name="fit")
    for function in COMMANDS:
        app.command(function)
    return app


def command_of(tokens: Sequence[str]) -> Callable[[], Any]:
    """The requested command, with its arguments bound.

    Raises:
        InputError: There is no such command, or it does not accept these arguments.
    """
    app = make_app(recipe_of(tokens))
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except UnknownOptionError as error:
        raise InputError(_of_another_recipe(error, tokens) or str(error)) from error
    except MissingArgumentError as error:
        name = tokens[0]
        raise InputError(f"{name} needs {_name_of(error)}: 'subo {name} --help' lists its arguments.") from error
    except UnusedCliTokensError as error:
        rest = " ".join(error.unused_tokens or ())
        raise InputError(
            f"{rest} does not belong to any option. Separate several values of an option by commas, such as --hidden "
            "32,64."
        ) from error
    except CycloptsError as error:
        raise InputError(str(error)) from error
    check_options(command, bound.arguments)
    if (among := launched()) is not None and command.__name__ != "command":
        raise InputError(
            f"{among.by} started {among.processes} processes of 'subo {tokens[0]}', and each would do all of it: of "
            f"the commands, only fit shares its work among the processes of a launcher. Run it without {among.by}."
        )
    if command.__name__ == "command":
        return partial(command, **bound.arguments)  # only what was given: --resume depends on it
    return partial(command, *bound.args, **bound.kwargs)


def _name_of(error: MissingArgumentError) -> str:
    """The missing argument, as it is written: ``--out FILE``, or ``RUN``."""
    name = error.argument.name if error.argument is not None else "another argument"
    return f"{name} {'FILE' if name == '--out' else 'VALUE'}" if name.startswith("--") else name


def recipe_of(tokens: Sequence[str]) -> str:
    """The requested recipe: it must be known before the options are."""
    for i, token in enumerate(tokens):
        if token == "--recipe" and i + 1 < len(tokens):
            return tokens[i + 1]
        if token.startswith("--recipe="):
            return token.split("=", 1)[1]
    return "vae"


def _of_another_recipe(error: UnknownOptionError, tokens: Sequence[str]) -> str | None:
    """The message for an option that ``fit`` has with other recipes; None for any other option."""
    option = error.token.keyword or error.token.value
    recipes = recipes_with(option) if tokens[0] == "fit" else []
    if not recipes:
        return None
    return (
        f"{option} is a setting of the recipe {' and of '.join(recipes)}, not of {recipe_of(tokens)}: use --recipe "
        f"{recipes[0]}, or see 'subo fit --recipe {recipe_of(tokens)} --help' for the settings of this one."
    )
