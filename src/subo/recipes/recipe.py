"""Turns a function into a recipe: its option groups become one flat signature, for calls and documentation."""

import inspect
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from subo.core.objective import Objective
from subo.errors import InputError
from subo.parts.registry import options_of
from subo.recipes.data_size import DataSize
from subo.runtime.arguments import checked_arguments, checked_settings
from subo.runtime.room import fits_memory

__all__ = [
    "OF_THE_DATA",
    "MadeBy",
    "check_effects",
    "defaults_of",
    "documented",
    "groups_of",
    "parameters_of",
    "recipe",
    "settled",
    "takers_of",
]


OF_THE_DATA = ("event_shape", "examples", "num_data", "columns", "given")
"""Arguments of a recipe that are not options: the data determine them."""

_SEEN = ("event_shape", "examples")  # not stored with the options


@dataclass(frozen=True)
class MadeBy:
    """The recipe call that built a model, stored on the model as ``made_by``.

    Attributes:
        recipe: Name of the recipe.
        event_shape: Shape of one example.
        options: All arguments that were given, except the data.
    """

    recipe: str
    event_shape: tuple[int, ...]
    options: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The call in JSON types."""
        made_by = {"recipe": self.recipe, "event_shape": self.event_shape, "options": dict(self.options)}
        return json.loads(json.dumps(made_by, sort_keys=True))  # in the order in which it is read back


def recipe(function: Callable[..., Objective]) -> Callable[..., Objective]:
    """Makes a function a recipe: the fields of each option group replace the group.

    Args:
        function: Maps an event shape, examples, their number, its own settings and option groups, which are parameters
            annotated with a class of :mod:`subo.recipes.options`, to an objective.
    """
    signature = inspect.signature(function)
    groups = {p.name: p.annotation for p in signature.parameters.values() if hasattr(p.annotation, "CHOICES")}
    flat: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            flat += parameters_of(groups[parameter.name])
        else:
            flat.append(parameter)

    @wraps(function)
    def make(*args: Any, **given: Any) -> Objective:
        called, chosen = dict(given), settled(made, given)
        grouped = {
            name: group(**{field.name: chosen[field.name] for field in fields(group)}) for name, group in groups.items()
        }
        of_groups = {field.name for group in groups.values() for field in fields(group)}
        given = {name: value for name, value in given.items() if name not in of_groups}
        objective = function(*args, **given, **grouped)
        event = (signature.bind_partial(*args).arguments or given)["event_shape"]
        objective.model.made_by = MadeBy(
            function.__name__.replace("_", "-"),
            tuple(event),
            {name: value for name, value in called.items() if name not in _SEEN},
        )
        return objective

    made: Any = make
    made.__signature__ = signature.replace(parameters=flat)
    made.__doc__ = documented(function, *groups.values())
    made.groups = tuple(groups.values())
    return checked_arguments(fits_memory(made))


def groups_of(make: Callable[..., Objective]) -> tuple[type, ...]:
    """The option groups of a recipe."""
    return make.groups  # pyright: ignore[reportFunctionMemberAccess]


def defaults_of(make: Callable[..., Objective]) -> dict[str, Any]:
    """A recipe's options, each with its default."""
    return {p.name: p.default for p in inspect.signature(make).parameters.values() if p.name not in OF_THE_DATA}


def settled(
    make: Callable[..., Objective], given: Mapping[str, Any], *, size: DataSize | None = None
) -> dict[str, Any]:
    """All options of a recipe: those that were given, its defaults, and for every ``auto`` what it stands for.

    A likelihood ``auto`` stays, since it depends on the data.

    Args:
        make: The recipe.
        given: Some of its options.
        size: The size of the data from which defaults follow; None where none follow from it.

    Raises:
        InputError: An option makes no sense.

    Example:
        >>> from subo.recipes import vae
        >>> options = settled(vae, {"posterior": "bernoulli", "bound": "iwae", "num_samples": 5})
        >>> options["prior"], options["gradient"], options["baseline"]
        ('bernoulli', 'vimco', 'none')
    """
    options = defaults_of(make) | checked_settings(inspect.signature(make).parameters, given)
    for group in groups_of(make):
        for option, rule in getattr(group, "AUTO", {}).items():
            if options[option] == "auto":
                options[option] = rule(options, size)
    return options


def check_effects(make: Callable[..., Objective], given: Container[str], settings: Mapping[str, Any]) -> None:
    """Refuses an option that was given and has no effect with the others.

    Args:
        make: The recipe.
        given: Options that the user has set.
        settings: All of the run's options, with ``auto`` resolved.

    Raises:
        InputError: Names the option and the setting that would give it an effect.
    """
    for group in groups_of(make):
        for option in [field.name for field in fields(group) if field.name in given]:  # pyright: ignore[reportArgumentType]
            takers = takers_of(group, option)
            if takers and not any(settings[choice] == name for choice, name in takers):
                needed = " or ".join(f"`{choice}={name}`" for choice, name in takers)
                chosen = ", ".join(f"`{choice}={settings[choice]}`" for choice in dict.fromkeys(c for c, _ in takers))
                raise InputError(
                    f"`{option}` has no effect with {chosen}: it is an option of {needed}. Leave it out, or set that."
                )


def takers_of(group: type[Any], option: str) -> list[tuple[str, str]]:
    """Which entries take an option of a group, each as a choice and a name; none for an option of the whole group.

    Example:
        >>> from subo.recipes.options import LikelihoodOptions
        >>> takers_of(LikelihoodOptions, "num_classes")
        [('likelihood', 'categorical')]
    """
    if option in group.CHOICES or option not in {field.name for field in fields(group)}:
        return []
    return [
        (choice, name)
        for choice, table in group.CHOICES.items()
        for name, entry in table.items()
        if option in options_of(entry)
    ]


def parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    """A group's fields as parameters of a signature."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields(group)]


def documented(described: Any, *groups: type[Any], before: str = "\n\nReturns:") -> str:
    """A docstring with the groups' arguments after its own.

    Args:
        described: Object with the docstring; its ``Args`` come last before the text `before`.
        groups: The option groups.
        before: Text that follows the arguments.
    """
    head, mark, tail = (inspect.getdoc(described) or "").partition(before)
    sections = [(inspect.getdoc(group) or "").partition("Args:\n")[2].rstrip() for group in groups]
    return "\n".join([head, *sections]) + mark + tail
