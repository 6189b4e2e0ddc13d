"""The command line: the commands as one application, and what its exit codes mean."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, UnknownOptionError

from subo.commands.fitting import fit
from subo.commands.gradients import gradients
from subo.commands.measuring import compare, evaluate, show
from subo.commands.sequences import forecast
from subo.commands.using import encode, reconstruct, sample, score
from subo.errors import DivergedError, InputError, Interrupted
from subo.options import fit_signature, recipes_with

__all__ = ["main", "make_app", "recipe_of"]


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
    for function in (evaluate, compare, gradients, sample, reconstruct, encode, score, forecast, show):
        app.command(function)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process: 0 well done, 2 an input that can't be used, 130, 141 or 143 stopped."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app = make_app(recipe_of(tokens))
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if command.__name__ == "command":
            command(**bound.arguments)  # only what was given: --resume must know
        else:
            command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has gone, such as head: nothing to tell them, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would complain
        sys.exit(128 + 13)
    except UnknownOptionError as error:
        _fail(_of_another_recipe(error, tokens) or str(error), debug, code=2)
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


def recipe_of(tokens: Sequence[str]) -> str:
    """The recipe that is asked for: it must be known before the options are."""
    for i, token in enumerate(tokens):
        if token == "--recipe" and i + 1 < len(tokens):
            return tokens[i + 1]
        if token.startswith("--recipe="):
            return token.split("=", 1)[1]
    return "vae"


def _of_another_recipe(error: UnknownOptionError, tokens: Sequence[str]) -> str | None:
    """What is said of an option that ``fit`` has with other recipes; None of any other."""
    option = error.token.keyword or error.token.value
    recipes = recipes_with(option) if tokens[0] == "fit" else []
    if not recipes:
        return None
    return (
        f"{option} is a setting of the recipe {' and of '.join(recipes)}, and not of {recipe_of(tokens)}: --recipe "
        f"{recipes[0]} has it, and 'subo fit --recipe {recipe_of(tokens)} --help' lists what this one has."
    )


def _fail(message: str, debug: bool, *, code: int) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"subo: {message}", file=sys.stderr)
    sys.exit(code)
