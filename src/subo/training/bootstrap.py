"""Fits to rows drawn with replacement, which vary as the fitted parameters do: for imputations that are proper."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.errors import InputError
from subo.recipes.for_data import as_data
from subo.runtime.arguments import checked_arguments, checked_settings
from subo.runtime.randomness import stream
from subo.training.fitting import fit
from subo.training.history import WorseWarning

__all__ = ["bootstrap"]


@checked_arguments
def bootstrap(
    build: Callable[[Data, int], Objective],
    data: Data | Split | Tensor | np.ndarray | tuple[object, object],
    *,
    refits: int,
    seed: int = 0,
    **training: Any,
) -> Iterator[Objective]:
    """Fits models to bootstrap samples of the training rows, one after the other (Efron, 1979).

    Draws of missing cells from one fitted model take its parameters as known, so that what is pooled from them varies
    too little. Drawn from a model of its own each, or a few from each, they are proper in Rubin's sense (1987, section
    4.4, where the bootstrap stands for a draw from the parameters' posterior).

    Args:
        build: Makes the objective for data, whose training rows have been drawn, and a seed for its weights.
        data: Data in splits, whose validation rows stay as they are; or training rows in any form that :func:`subo.fit`
            takes.
        refits: Number of fits.
        seed: Seed for the rows and for all that the fits draw.
        **training: Settings of :func:`subo.fit`.

    Yields:
        Fitted objectives, as they are done.

    Raises:
        InputError: A setting does not exist or makes no sense.

    Example:
        >>> from subo.recipes.for_data import make
        >>> build = lambda rows, seed: make("vae", rows, seed=seed)
        >>> fits = bootstrap(build, torch.randn(100, 3), refits=2, epochs=1)
        >>> [type(objective.model).__name__ for objective in fits]
        ['VAE', 'VAE']
    """
    known = inspect.signature(fit).parameters
    if unknown := [name for name in training if name not in known]:
        raise InputError(f"there is no setting `{unknown[0]}` of training; there are {', '.join([*known][2:])}")
    settings = checked_settings(known, training)
    return _fits(build, as_data(data), refits, seed, settings)


def _fits(
    build: Callable[[Data, int], Objective], data: Data, refits: int, seed: int, training: dict[str, Any]
) -> Iterator[Objective]:
    for number in range(refits):
        generator = stream("bootstrap", seed, number)
        rows = torch.randint(len(data.train), (len(data.train),), generator=generator)
        drawn = replace(data, train=replace(data.train.take(rows), rows=None))
        own_seed = int(torch.randint(2**31 - 1, (), generator=generator))
        objective = build(drawn, own_seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WorseWarning)
            fit(objective, drawn if len(drawn.validation) else drawn.train, **{**training, "seed": own_seed})
        objective.eval()
        yield objective
