"""The options of ``subo fit``, made from the signatures and docstrings of what they set, so that they cannot drift.

The recipe, the data loader, ``fit`` and ``make_fabric`` each define a group of options: names, types and defaults from
the signature, help from the docstring's ``Args``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import docstring_parser
from cyclopts import CoercionError, Parameter, Token, convert

from subo.cli.arguments import separated, words
from subo.data.loading import load_data
from subo.data.tables.options import TableOptions
from subo.errors import InputError
from subo.recipes import RECIPES
from subo.recipes.condition import ConditionOptions
from subo.recipes.recipe import OF_THE_DATA
from subo.runtime.arguments import checked_settings
from subo.runtime.devices import make_fabric
from subo.runtime.limits import is_number
from subo.training.fitting import fit
from subo.training.settings import BY_ROWS

__all__ = ["check_options", "converted", "fit_signature", "grouped", "recipes_with"]

# Set by the program itself, or not expressible on a command line.
_NOT_OPTIONS = {
    "recipe": set(OF_THE_DATA),
    "data": {"source", "seed", "table", "meaning", "note", "size_factor"},
    "table": {"condition"},
    "training": {
        *("objective", "data", "seed", "run_dir", "resume", "overwrite", "fabric", "device", "precision"),
        *("validation", "steps_per_epoch"),
        *("on_start", "on_begin", "on_epoch", "progress"),
    },
    "device": set[str](),
}
_TYPES = {"optimizer": str}
_NUMBERS: dict[Any, str] = {int: "a whole number, such as 10,", float: "a number, such as 0.5,"}


def _sources(recipe: str) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Each group's title and the function whose arguments it sets."""
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'. Recipes: {', '.join(RECIPES)}.")
    return {
        "recipe": (f"Model (recipe {recipe})", RECIPES[recipe]),
        "data": ("Data", load_data),
        "table": ("Tables", TableOptions),
        "training": ("Training", fit),
        "device": ("Device", make_fabric),
    }


def fit_signature(recipe: str) -> inspect.Signature:
    """The signature of the command ``fit`` with a recipe, annotated for the parser."""

    def own(name: str, kind: Any, default: Any, help: str, **extra: Any) -> inspect.Parameter:
        annotation = Annotated[kind, Parameter(help=help, **extra)]
        position = inspect.Parameter.POSITIONAL_ONLY if name == "data" else inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(name, position, default=default, annotation=annotation)

    parameters = [
        own(
            "data",
            str | None,
            None,
            "digits, mnist, fashion-mnist, binarized-mnist, jsb-chorales, a table (.csv, .tsv, .parquet, .feather), "
            "counts (.h5ad), a .npy or .npz, also of a sparse matrix, or a folder of images or of sequences.",
        ),
        own("out", Path | None, None, "Run folder; runs/NAME by default."),
        own("recipe", str, "vae", f"Recipe: {', '.join(RECIPES)}; fit --recipe NAME --help lists its settings."),
        own("seed", int, 0, "Seed for training: initial weights, order, samples. The data do not depend on it."),
        own(
            "data_seed",
            int,
            0,
            "Seed for the data: split, bits and noise of held-out data. Use one for all runs to be compared.",
        ),
        own(
            "seeds",
            int | None,
            None,
            "Train this many models, with the seeds --seed, --seed + 1, ...: each is a run in a subfolder of --out, "
            "and the mean over them has an error over training seeds beside that over the data.",
        ),
        own("jobs", int | None, None, "Trainings at a time with --seeds; by default one for each processor core."),
        own(
            "measure",
            Literal["test", "validation"],
            "test",
            "The data on which the fitted model is measured; with validation no pictures are drawn, and the test data "
            "are left alone.",
        ),
        own("resume", bool, False, "Continue the run in --out from its checkpoint.", negative=()),
        own("overwrite", bool, False, "Replace the run in --out.", negative=()),
        own(
            "evaluation_samples",
            int | None,
            None,
            "Samples for each log p(x) when the fitted model is measured; by default 1,000, or fewer if these would "
            "take longer than training and longer than a minute.",
        ),
        own("quiet", bool, False, "Show nothing.", negative=()),
    ]
    for group, (title, function) in _sources(recipe).items():
        parameters += _parameters(function, title, _NOT_OPTIONS[group])
    return inspect.Signature(parameters)


def grouped(given: Mapping[str, Any], recipe: str) -> dict[str, dict[str, Any]]:
    """Given options by group: ``recipe``, ``data``, ``training``, ``device``; without those ``fit`` handles itself."""
    return {
        group: {name: given[name] for name in _names(function, _NOT_OPTIONS[group]) if name in given}
        for group, (_, function) in _sources(recipe).items()
    }


def check_options(command: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuses numbers that make no sense for a command, before anything is changed.

    Args:
        command: Command with options as parameters.
        given: Arguments by name.

    Raises:
        InputError: A number is out of range; the message names the option, what was expected and what was received.
    """
    checked_settings(inspect.signature(command).parameters, given, owner=command.__name__, flag=True)


def converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """Converts words of the command line to values; refuses 2.5 as a whole number, which cyclopts would round to 2.

    Args:
        kind: Type of the option.
        tokens: Words of the command line.
    """

    def one(kind: Any, word: str) -> Any:
        if kind is int and is_number(word) and ("." in word or "e" in word.lower()):
            if not float(word).is_integer():
                raise CoercionError(msg=f"expected a whole number but got {word}: fractions are not rounded")
            return int(float(word))
        try:
            return convert(kind, [word])
        except CoercionError as error:
            if kind in _NUMBERS:
                raise CoercionError(msg=f"expected {_NUMBERS[kind]} but got {word}") from error
            raise ValueError(word) from error  # cyclopts reports it with the option's name

    return convert(kind, tokens, converter=one)


def recipes_with(option: str) -> list[str]:
    """The recipes that have a setting such as ``--merge``, or ``--no-merge``.

    Example:
        >>> recipes_with("--merge")
        ['ladder']
    """
    name = option.split("=", 1)[0].removeprefix("--").removeprefix("no-").replace("-", "_")
    return [recipe for recipe, function in RECIPES.items() if name in _names(function, _NOT_OPTIONS["recipe"])]


def _names(function: Callable[..., Any], excluded: set[str]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in excluded]


def _parameters(function: Callable[..., Any], title: str, excluded: set[str]) -> list[inspect.Parameter]:
    """A function's arguments as command-line options."""
    signature = inspect.signature(function)
    helps = {p.arg_name: p.description for p in docstring_parser.parse(function.__doc__ or "").params}
    parameters = []
    for name in _names(function, excluded):
        parameter = signature.parameters[name]
        kind = _TYPES.get(name, parameter.annotation)
        extra: dict[str, Any] = {}
        if kind == int | tuple[int, ...] | None:
            extra = {"converter": _integer_or_integers, "n_tokens": 1, "negative": ()}
        if kind == str | tuple[str, ...]:
            extra = {"converter": _name_or_names, "n_tokens": 1, "negative": ()}
        if kind == tuple[str, ...]:
            extra = {"converter": words, "n_tokens": 1, "negative": (), "show_default": False}
        if kind == tuple[int, ...] | Literal["auto"]:
            extra = {"converter": _integers_or_auto, "n_tokens": 1, "negative": ()}
        if kind == tuple[int, ...]:
            shown = ",".join(map(str, parameter.default))
            extra = {
                "converter": _integers,
                "n_tokens": 1,
                "negative": (),
                "show_default": lambda _, shown=shown: shown,
            }
        if function is fit and name == "window":
            extra["show_default"] = lambda _: "100 where sequences are longer than 1,000 steps"
        if function is fit and name in BY_ROWS:
            usual = "100" if name == "epochs" else parameter.default
            extra["show_default"] = lambda _, usual=usual: f"{usual}; for tables, images and sequences by their number"
        text = " ".join((helps.get(name) or "").replace("``", "").split())
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=parameter.default,
                annotation=Annotated[kind, Parameter(help=text, group=title, **extra)],
            )
        )
    return parameters


def _integer_or_integers(kind: Any, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Converts ``5`` to a number, ``5,3`` to several."""
    numbers = _integers(kind, tokens)
    return numbers[0] if len(numbers) == 1 else numbers


def _integers_or_auto(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...] | Literal["auto"]:
    """Converts ``200,200`` to numbers, and leaves ``auto``."""
    return "auto" if tokens[0].value == "auto" else _integers(kind, tokens)


def _name_or_names(kind: Any, tokens: Sequence[Token]) -> str | tuple[str, ...]:
    """Converts ``sex,"a, b"`` to names, of which those with commas are quoted; ``none`` and ``labels`` stay words."""
    text = ",".join(token.value for token in tokens)
    if text in ConditionOptions.CHOICES["condition"]:
        return text
    if names := tuple(filter(None, separated(text))):
        return names
    raise ValueError("expected none, labels, or names of columns separated by commas")


def _integers(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Converts ``200,200`` to numbers, and an empty word to none."""
    if len(tokens) > 1:
        given = " and ".join(token.value for token in tokens)
        raise ValueError(f"{tokens[0].keyword} was given {len(tokens)} times, {given}: give it once, with commas")
    text = tokens[0].value
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"expected whole numbers separated by commas, such as 200,200, but got {text}") from error
