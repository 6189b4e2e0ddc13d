"""What makes a function a recipe: its option groups become one flat signature, by which it is called and documented."""

import inspect
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from subo.core.objective import Objective
from subo.errors import InputError
from subo.recipes.options import options_of
from subo.runtime.arguments import checked_arguments
from subo.runtime.room import fits_memory

__all__ = ["MadeBy", "check_effects", "documented", "groups_of", "parameters_of", "recipe", "takers_of"]


@dataclass(frozen=True)
class MadeBy:
    """The recipe call that built a model, which stands on the model as ``made_by``.

    Attributes:
        recipe: The recipe's name.
        event_shape: Shape of one example.
        options: All arguments that were given, without the data.
    """

    recipe: str
    event_shape: tuple[int, ...]
    options: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """In JSON's types."""
        made_by = {"recipe": self.recipe, "event_shape": self.event_shape, "options": dict(self.options)}
        return json.loads(json.dumps(made_by, sort_keys=True))  # in the order in which it is read back


def recipe(function: Callable[..., Objective]) -> Callable[..., Objective]:
    """Makes a recipe of a function: the fields of each option group take the place of the group.

    Args:
        function: From an event shape, examples, their number, settings of its own and option groups, parameters
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
        called = dict(given)
        grouped = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group) if field.name in given})
            for name, group in groups.items()
        }
        objective = function(*args, **given, **grouped)
        own = {"event_shape", "examples"}
        event = (signature.bind_partial(*args).arguments or given)["event_shape"]
        objective.model.made_by = MadeBy(
            function.__name__.replace("_", "-"),
            tuple(event),
            {name: value for name, value in called.items() if name not in own},
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


def check_effects(make: Callable[..., Objective], given: Container[str], settings: Mapping[str, Any]) -> None:
    """Refuses an option that was given and has no effect beside the others.

    Args:
        make: The recipe.
        given: The options that somebody has set.
        settings: All of the run's options, with nothing left to the data.

    Raises:
        InputError: Names the option and the setting that would give it an effect.
    """
    for group in groups_of(make):
        for option in [field.name for field in fields(group) if field.name in given]:  # pyright: ignore[reportArgumentType]
            takers = takers_of(group, option)
            if takers and not any(name in _chosen(group, settings[choice]) for choice, name in takers):
                needed = " or ".join(f"`{choice}={name}`" for choice, name in takers)
                chosen = ", ".join(f"`{choice}={settings[choice]}`" for choice in dict.fromkeys(c for c, _ in takers))
                raise InputError(
                    f"`{option}` has no effect with {chosen}: it is an option of {needed}. Leave it out, or set that."
                )


def takers_of(group: type[Any], option: str) -> list[tuple[str, str]]:
    """Which entries take an option of a group, each a choice and a name; none of an option of the whole group.

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


def _chosen(group: Any, value: Any) -> tuple[Any, ...]:
    """The entries of a table that a choice may stand for."""
    return getattr(group, "AUTO", (value,)) if value == "auto" else (value,)


def parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    """A group's fields as parameters of a signature."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields(group)]


def documented(described: Any, *groups: type[Any], before: str = "\n\nReturns:") -> str:
    """A docstring with the groups' arguments after its own.

    Args:
        described: Whose docstring it is; its ``Args`` are the last before the text `before`.
        groups: The option groups.
        before: What follows the arguments.
    """
    head, mark, tail = (inspect.getdoc(described) or "").partition(before)
    sections = [(inspect.getdoc(group) or "").partition("Args:\n")[2].rstrip() for group in groups]
    return "\n".join([head, *sections]) + mark + tail
