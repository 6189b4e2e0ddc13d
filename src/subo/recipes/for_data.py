"""Recipes applied to data: what depends on the data is filled in, and the model starts at their location."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.meaning import Meaning
from subo.data.sparse_rows import Sparse, SparseRows
from subo.data.splits import Split, as_split
from subo.data.values import kind_of, num_classes_of
from subo.distributions.observed import has_missing
from subo.errors import InputError
from subo.parts.columns import Columns
from subo.parts.labels import count_labels
from subo.parts.registry import LIKELIHOODS, is_over_classes, is_over_reals, options_of
from subo.recipes import OF_SEQUENCES, RECIPES, likelihood_for
from subo.recipes.condition import columns_of
from subo.recipes.data_size import TableSize, size_of
from subo.recipes.recipe import settled
from subo.runtime.arguments import checked_arguments
from subo.runtime.randomness import forked, stream

__all__ = ["as_data", "check_likelihood", "examples_and_context", "examples_of", "make", "model_of", "resolved"]

_EXAMPLES = 10_000  # training examples that set units, mean and pseudo-inputs


@checked_arguments
def make(
    recipe: str,
    data: Data | Split | Tensor | np.ndarray | Sparse | tuple[object, object],
    *,
    seed: int = 0,
    **options: Any,
) -> Objective:
    """A recipe's model of some data, ready to be fitted, with shape, units and everything ``auto`` set by the data.

    Args:
        recipe: ``vae``, ``hierarchical``, ``ladder`` or ``deep-markov``.
        data: Data in splits, or training examples in any form that :func:`subo.fit` takes.
        seed: Seed for the initial weights.
        **options: The recipe's options, such as ``latent_dim=2`` or ``prior="vamp"``.

    Raises:
        InputError: There is no such recipe, or the options are incompatible with each other or with the data.

    Example:
        >>> objective = make("vae", torch.rand(100, 5).round(), latent_dim=2)
        >>> type(objective.model.likelihood.family).__name__
        'Bernoulli'
    """
    data = as_data(data)
    settings = resolved(recipe, options, data)
    if settings.get("inference") == "local":
        settings["num_data"] = len(data.train)
    examples, context = examples_and_context(data.train, seed=seed)
    return model_of(
        recipe, settings, data.train.event_shape, examples=examples, context=context, meaning=data.meaning, seed=seed
    )


def as_data(data: Data | Split | Tensor | np.ndarray | Sparse | tuple[object, object]) -> Data:
    """Training examples in any form as data without held-out examples; data stay as they are."""
    if isinstance(data, Data):
        return data
    split = as_split(data)
    none = split.take(torch.arange(0))
    return Data("the data", split, none, none, kind=kind_of(split.x, levels=split.levels))


def model_of(
    recipe: str,
    settings: Mapping[str, Any],
    event_shape: Sequence[int],
    *,
    examples: Tensor | None,
    context: Mapping[str, Tensor] | None = None,
    meaning: Meaning | None = None,
    seed: int,
) -> Objective:
    """A recipe's model, in the units of a table if the data are one.

    Args:
        recipe: Name of the recipe.
        settings: All of its options.
        event_shape: Shape of one example.
        examples: Some training data; None for placeholders.
        context: Their named context.
        meaning: What the values mean: the columns of a table, and those that the model is conditioned on.
        seed: Seed for the initial weights.
    """
    table, given = (None, None) if meaning is None else (meaning.table, meaning.given)
    of_table: dict[str, Any] = {} if table is None else {"columns": table.described}
    if given is not None:
        of_table["given"] = given.described
    used = {name: tensor for name, tensor in (context or {}).items() if name in ("given", "size")}
    known = examples if examples is None or not used else (examples, used)
    with forked(seed):
        objective = RECIPES[recipe](event_shape, examples=known, **of_table, **settings)
    for module in objective.modules():
        if isinstance(module, Columns) and table is not None:
            module.set_units(**table.units())
    return objective


def resolved(recipe: str, options: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """All options of a recipe, with what depends on the data filled in, so that they fully specify the model.

    Args:
        recipe: Name of the recipe.
        options: Options that were set.
        data: Data to be modeled.

    Raises:
        InputError: The options are incompatible with the data.
    """
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'; choose one of {', '.join(RECIPES)}")
    if data.sequential != (recipe in OF_SEQUENCES):
        raise InputError(
            f"{data.name} are sequences, which {recipe} does not describe: use `recipe={OF_SEQUENCES[0]}`"
            if data.sequential
            else f"{recipe} describes sequences, and {data.name} are single data: sequences are a folder of .npy files "
            "(T, D), or a .npz of several such arrays"
        )
    size = size_of(data)
    settings = settled(RECIPES[recipe], options, size=size)
    parts = [part for part in (data.train, data.validation, data.test) if len(part)]
    if settings["likelihood"] == "auto":
        settings["likelihood"] = likelihood_for(data.kind, rows=isinstance(size, TableSize))
    check_likelihood(settings["likelihood"], data)
    if is_over_classes(settings["likelihood"]) and settings["num_classes"] is None:
        settings["num_classes"] = num_classes_of([part.x for part in parts])
    if "missing_indicator" in settings and settings["missing_indicator"] is None:
        settings["missing_indicator"] = any(has_missing(part.x) for part in parts)
    if condition := _condition_on_columns(recipe, settings.get("condition"), data):
        settings["condition"] = condition
    if size_factor := _size_factor(recipe, settings.get("size_factor"), data):
        settings["size_factor"] = size_factor
    if settings.get("condition") == "labels":
        labels = [part.labels for part in parts]
        settings["num_labels"] = count_labels(labels, asked=settings["num_labels"], where=data.name)
    return settings


def _condition_on_columns(recipe: str, asked: str | tuple[str, ...] | None, data: Data) -> tuple[str, ...]:
    """The columns that a model is conditioned on, which are those that the data were loaded with; empty without any."""
    columns, beside = columns_of(asked or "none"), data.meaning.given
    given = () if beside is None else tuple(column.name for column in beside.modeled)
    if data.meaning.table is None and beside is None and columns:
        raise InputError(
            f"`condition` names {', '.join(map(repr, columns))}, but {data.name} is not a table of mixed columns: it "
            "is none, labels, or names of the columns of such a table, or of the obs of an .h5ad file"
        )
    if given and asked in (None, "labels"):
        other = "labels" if asked == "labels" else f"the recipe {recipe}"
        raise InputError(
            f"{data.name} was loaded with the condition {', '.join(given)}, which {other} cannot be joined "
            "with: load it without"
        )
    if columns and {*columns} != {*given}:
        raise InputError(
            f"`condition` names {', '.join(map(repr, columns))}, but {data.name} was loaded with the condition "
            f"{', '.join(given) or 'none'}: name its columns in load_data(..., table=TableOptions(condition=...))"
        )
    return columns or given


def _size_factor(recipe: str, asked: str | None, data: Data) -> str | None:
    """What the size of a row is, if a model has one: what the data were loaded with, or the context that they have."""
    loaded = None if data.meaning.sizes is None else data.meaning.sizes.source
    if loaded is not None and asked is None:
        raise InputError(f"{data.name} was loaded with the size factor {loaded}, which {recipe} has none of")
    if asked in (None, "none", loaded):
        return loaded
    if loaded is not None or "size" not in data.train.context:
        raise InputError(
            f"`size_factor` is {asked}, but {data.name} was loaded with {loaded or 'none'}: name it in "
            "load_data(..., size_factor=...), or pass (x, {'size': x.sum(1) / x.sum(1).mean()})"
        )
    return asked


def check_likelihood(likelihood: str, data: Data) -> None:
    """Refuses a likelihood that is not over real numbers for dequantized data.

    Raises:
        InputError: Such a likelihood gives them no density, or the data are a table of mixed columns.
    """
    if (data.kind == "mixed") != ("columns" in options_of(LIKELIHOODS[likelihood])):
        raise InputError(
            f"{data.name} is a table of mixed columns, which the likelihood {likelihood} does not describe: use auto, "
            "or load it as numbers of one kind, with table=None"
            if data.kind == "mixed"
            else f"the likelihood {likelihood} describes a table of mixed columns, and {data.name} is none: use auto"
        )
    if not data.dequantize or is_over_reals(likelihood):
        return
    family, top, without = LIKELIHOODS[likelihood], data.train.levels, f", or leave `dequantize` out for {likelihood}"
    limited = getattr(family, "limits", None) is not None
    if not family.is_discrete:
        why = f" in [0, {top + 1}), outside the support [0, 1] of {likelihood}"
    elif not limited:
        why = f", but {likelihood} gives probabilities to integers, which need no noise"
    else:
        why, without = f", but {likelihood} gives probabilities to bits", ""
    raise InputError(
        f"{data.name}: `dequantize` turns the values 0 to {top} into real numbers{why}: use a likelihood of real "
        f"numbers, such as gaussian{without}"
    )


def examples_of(split: Split, *, seed: int) -> Float[Tensor, " N *event"]:
    """At least 10,000 examples in random order, or all; for sequences, the steps of whole ones, without padding."""
    return examples_and_context(split, seed=seed)[0]


def examples_and_context(split: Split, *, seed: int) -> tuple[Float[Tensor, " N *event"], dict[str, Tensor]]:
    """The examples of :func:`examples_of`, fewer of wide sparse rows, and their context unless they are sequences."""
    most = _EXAMPLES
    if isinstance(split.x, SparseRows):
        most = min(most, max(1000, split.x.at_a_time))
    known = split.looked_at()
    chosen = known[torch.randperm(len(known), generator=stream("examples", seed))]
    steps = torch.ones(len(split), dtype=torch.long) if split.lengths is None else split.lengths
    before = steps[chosen].cumsum(0) - steps[chosen]
    some = split.take(chosen[before < most])
    flat = replace(some, lengths=None, labels=None, names=None, rows=None, context={})
    x, _ = flat.read(torch.arange(len(flat)), generator=stream("example bits", seed))
    return x, {} if split.lengths is not None else dict(some.context)
