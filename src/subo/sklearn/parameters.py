"""The estimator's parameters: options of the recipe ``vae``, and those for reading, training and scoring a table."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from subo.data.tables.schema import Scaling
from subo.recipes.bound_options import BoundOptions
from subo.recipes.options import LatentOptions, LikelihoodOptions, NetworkOptions
from subo.recipes.recipe import parameters_of
from subo.runtime.devices import DeviceName

__all__ = ["CONDITIONS", "GROUPS", "OPTIONS", "SIGNATURE", "TRAINING"]

GROUPS = (LikelihoodOptions, LatentOptions, NetworkOptions, BoundOptions)


def _signature() -> inspect.Signature:
    """The options of the recipe, and those of reading, training and scoring."""

    def table(
        *,
        columns: str | Mapping[str, str] | None = None,
        condition: str | Sequence[str] = "none",
        size_factor: str = "none",
        column_scaling: Scaling = "standard",
        min_level_count: int = 1,
        calibration_fraction: float = 0.0,
        evaluation_samples: int = 1000,
        false_alarm_rate: float = 0.05,
        contamination: float | None = None,
    ) -> None: ...

    def training(
        self: Any,
        latent_dim: int | Literal["auto"] = "auto",
        *,
        epochs: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        validation_fraction: float = 0.1,
        patience: int | Literal["auto"] | None = "auto",
        device: DeviceName = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None: ...

    first, second, *rest = inspect.signature(training).parameters.values()
    ours = inspect.signature(table).parameters.values()
    options = [parameter for group in GROUPS for parameter in parameters_of(group) if parameter.name != second.name]
    return inspect.Signature([first, second, *options, *ours, *rest])


SIGNATURE = _signature()
OPTIONS = tuple(parameter.name for group in GROUPS for parameter in parameters_of(group))
"""Names of the recipe's options."""

CONDITIONS = ("condition", "size_factor")
"""Names of the recipe's options that name columns."""

TRAINING = ("epochs", "batch_size", "learning_rate", "patience")
"""Names of the settings of training, of which those that are ``auto`` follow from the rows."""
