"""A run's settings and its model: what depends on the data filled in, and the objective that settings describe."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.quantization import MOST_LEVELS
from subo.data.splits import Split
from subo.data.values import num_classes_of
from subo.errors import InputError
from subo.experiments.units import check_likelihood
from subo.parts.labels import count_labels
from subo.parts.registry import is_over_reals
from subo.recipes import OF_SEQUENCES, RECIPES, likelihood_for
from subo.runtime.randomness import forked, stream

__all__ = ["built", "dequantizes", "examples_of", "resolved"]

_EXAMPLES = 10_000  # training data from which units, mean and pseudo-inputs are taken


def dequantizes(data: Data, options: Mapping[str, Any]) -> bool:
    """Whether data are dequantised where that is left open: integers with levels, for a density of real numbers.

    A density of x/255 grows without bound where it narrows onto the levels, above all on pixels that are always black,
    and its numbers count nothing; that of the dequantised levels bounds their log-probability. Bits have one as they
    are, and a continuous Bernoulli is asked for.
    """
    train = data.train
    if data.sequential or data.binarize != "none" or data.kind != "grey" or train.x.is_floating_point():
        return False
    likelihood = options.get("likelihood", "auto")
    return 1 < train.levels <= MOST_LEVELS and (likelihood == "auto" or is_over_reals(likelihood))


def resolved(recipe: str, options: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """Settings with what depends on the data filled in, so that the config alone tells the model."""
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe '{recipe}'; there is {', '.join(RECIPES)}")
    if data.sequential != (recipe in OF_SEQUENCES):
        raise InputError(
            f"{data.name} are sequences, which {recipe} does not describe: take `recipe={OF_SEQUENCES[0]}`"
            if data.sequential
            else f"{recipe} describes sequences, and {data.name} are single data: sequences are a folder of .npy files "
            "(T, D), or a .npz of several such arrays"
        )
    settings = dict(options)
    if settings.get("likelihood", "auto") == "auto":
        settings["likelihood"] = likelihood_for(data.kind)
    check_likelihood(settings["likelihood"], data)
    if settings["likelihood"] == "categorical" and settings.get("num_classes") is None:
        settings["num_classes"] = num_classes_of([part.x for part in (data.train, data.validation, data.test)])
    if settings.get("condition") == "labels":
        labels = [part.labels for part in (data.train, data.validation, data.test)]
        settings["num_labels"] = count_labels(labels, asked=settings.get("num_labels"), where=data.name)
    return settings


def built(config: dict[str, Any], data: Data | None) -> Objective:
    """The objective that a config describes; with data, started from them."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in config["options"].items()}
    if options.get("inference") == "local":
        options["num_data"] = config["data"]["sizes"]["train"]
    seed = config["training"]["seed"]
    examples = None if data is None else examples_of(data.train, seed=seed)
    with forked(seed):
        return RECIPES[config["recipe"]](tuple(config["data"]["event_shape"]), examples=examples, **options)


def examples_of(split: Split, *, seed: int) -> Float[Tensor, " N *event"]:
    """At least 10,000 data in a random order, or all; of sequences the steps of whole ones, without any padding."""
    chosen = torch.randperm(len(split), generator=stream("examples", seed))
    steps = torch.ones(len(split), dtype=torch.long) if split.lengths is None else split.lengths
    before = steps[chosen].cumsum(0) - steps[chosen]
    flat = replace(split.take(chosen[before < _EXAMPLES]), lengths=None, labels=None, names=None, context={})
    return flat.read(torch.arange(len(flat)), generator=stream("example bits", seed))[0]
