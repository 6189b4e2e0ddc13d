"""Recipes: named setups, each a typed function from the data's shape and plain settings to an objective.

The command line derives its options from their signatures and docstrings.
"""

from collections.abc import Callable

from subo.core.objective import Objective
from subo.recipes.deep_markov import deep_markov
from subo.recipes.hierarchical import hierarchical
from subo.recipes.ladder import ladder
from subo.recipes.options import likelihood_for
from subo.recipes.vae import vae

__all__ = ["OF_SEQUENCES", "RECIPES", "deep_markov", "hierarchical", "ladder", "likelihood_for", "vae"]

OF_SEQUENCES = ("deep-markov",)
"""The recipes for data that are sequences; the other recipes are for other data."""

RECIPES: dict[str, Callable[..., Objective]] = {
    "vae": vae,
    "hierarchical": hierarchical,
    "deep-markov": deep_markov,
    "ladder": ladder,
}
