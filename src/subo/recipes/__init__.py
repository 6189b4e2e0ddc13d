"""Recipes: named set-ups, each a typed function from the data's shape and plain settings to an objective.

This is the only table from strings to things. The command line makes its options of these signatures and docstrings.
"""

from collections.abc import Callable

from subo.core.objective import Objective
from subo.data.values import Kind
from subo.recipes.builders import ActivationName, BoundName, LikelihoodName, PosteriorName, PriorName
from subo.recipes.deep_markov import deep_markov
from subo.recipes.hierarchical import hierarchical
from subo.recipes.ladder import ladder
from subo.recipes.vae import vae

__all__ = [
    "DISCRETE",
    "OF_SEQUENCES",
    "RECIPES",
    "ActivationName",
    "BoundName",
    "LikelihoodName",
    "PosteriorName",
    "PriorName",
    "deep_markov",
    "hierarchical",
    "ladder",
    "likelihood_for",
    "vae",
]

DISCRETE = ("bernoulli", "categorical", "poisson")
"""The likelihoods that give probabilities; the others give densities."""


def likelihood_for(kind: Kind) -> LikelihoodName:
    """The likelihood that ``auto`` stands for: bernoulli for bits, gaussian for all other numbers.

    What numbers mean their values do not tell. A year or an age is whole and no count, whose variance a Poisson would
    set equal to its mean; a feature that was scaled to [0, 1] leaves it in the next row. Counts, classes and values
    that are bound to [0, 1] are asked for by name.
    """
    return "bernoulli" if kind == "binary" else "gaussian"


OF_SEQUENCES = ("deep-markov",)
"""The recipes of data that are sequences; the others' are not."""

RECIPES: dict[str, Callable[..., Objective]] = {
    "vae": vae,
    "hierarchical": hierarchical,
    "deep-markov": deep_markov,
    "ladder": ladder,
}
