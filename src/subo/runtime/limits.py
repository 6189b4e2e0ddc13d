"""The range in which each number that users give makes sense: one table, for the command line and for Python.

A parameter is looked up by its name or, where the name means something else in one function or class, by both
(``Renyi.alpha``, ``sample.num_samples``). For a tensor the range applies to all of its numbers. An upper end is where
a number can only be a slip: what a machine can hold is another question, which :mod:`subo.runtime.room` answers.
Whether a number is whole follows from the parameter's annotation; :mod:`subo.runtime.arguments` reads both.
"""

import math
import os
from dataclasses import dataclass

from subo.runtime.launchers import launched

__all__ = ["LIMITS", "Limit", "is_number", "limit_of"]


@dataclass(frozen=True)
class Limit:
    """An interval of numbers, with advice.

    Attributes:
        low: Lower end.
        high: Upper end.
        above: Whether the lower end itself is outside.
        below: Whether the upper end itself is outside.
        infinite: Whether the infinities are allowed.
        most: Maximum count where several numbers are given.
        hint: Advice when a number is too small, or an argument is of another class.
        too_many: Advice when a number is too large.
    """

    low: int | float = -math.inf
    high: int | float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False
    most: int = 1000
    hint: str = ""
    too_many: str = ""

    def holds(self, value: int | float) -> bool:
        """Whether a number is inside."""
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return False
        return (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )

    def side(self, value: int | float) -> str:
        """What a number outside should be, such as ``at least 1``; if it is not finite, all that is required."""
        if not math.isfinite(value):
            return f"{self} and finite".removeprefix(" and ")
        return self._low() if value < self.low or (self.above and value == self.low) else self._high()

    def __str__(self) -> str:
        """Such as ``at least 0 and below 1``; empty if everything finite is inside."""
        return " and ".join(filter(None, (self._low(), self._high() if self.high <= 1 else "")))

    def _low(self) -> str:
        if math.isinf(self.low):
            return ""
        return "positive" if self.above and self.low == 0 else f"{'above' if self.above else 'at least'} {self.low:,}"

    def _high(self) -> str:
        return "" if math.isinf(self.high) else f"{'below' if self.below else 'at most'} {self.high:,}"


def _from(low: int | float, high: int | float = math.inf, hint: str = "", too_many: str = "") -> Limit:
    return Limit(low, high, hint=hint, too_many=too_many)


_POSITIVE = Limit(0, above=True)
_SHARE = Limit(0, 1, below=True)  # 1 itself would leave nothing
_WIDTH = _from(1, 1_000_000)
_SIZE = _from(1, 1_000_000_000)
_COUNT = _from(1, 1_000_000)
_ENOUGH = "The error falls with the square root of their number: a thousand are usually enough."
_SAMPLES = _from(1, 10_000_000, too_many=_ENOUGH)
_CHAINS = _from(2, 100_000, "One chain gives no estimate of its error.")
_WEIGHT = _from(0, 1_000_000)
_MINUTES = Limit(0, 1_000_000, above=True, too_many="For no limit, leave it out.")
_EPOCHS = _from(1, 10_000_000, too_many="To train for as long as there is time, give minutes.")
_LAYERS = Limit(1, 1000)
_PROCESSES = max(2, os.cpu_count() or 1, among.processes if (among := launched()) else 1)  # or on several machines

LIMITS: dict[str, Limit] = {
    # What a model is made of
    "bins": _from(2, 1000),
    "center": Limit(),
    "channels": _from(1, 65_536),
    "components": _COUNT,
    "context_dim": _from(0, 1_000_000),
    "degrees_of_freedom": Limit(2, above=True, hint="No variance up to 2. Or learn it: shared, per-dimension."),
    "depth": _LAYERS,
    "dim": _SIZE,
    "dropout": _SHARE,
    "event_shape": _SIZE,
    "flow_hidden": _WIDTH,
    "flow_transforms": _LAYERS,
    "height": _COUNT,
    "hidden": _WIDTH,
    "hidden_between": _WIDTH,
    "image_shape": _SIZE,
    "in_features": _SIZE,
    "latent_classes": _from(2, 1_000_000),
    "latent_dim": _WIDTH,
    "latent_dims": _WIDTH,
    "length": _SIZE,
    "limits": Limit(),
    "mean": Limit(),
    "min_scale": Limit(0, 1, above=True, below=True, hint="Without a floor densities are unbounded."),
    "levels": _from(1, 2**16),
    "min_level_count": _COUNT,
    "num_classes": _from(2, 1_000_000),
    "num_data": _SIZE,
    "num_labels": _COUNT,
    "image_size": _COUNT,
    "num_states": _COUNT,
    "out_features": _SIZE,
    "prior_components": _COUNT,
    "reader_hidden": _WIDTH,
    "scale": Limit(0, above=True, hint="Or learn it: shared, per-dimension, network."),
    "pseudo_inputs": Limit(),
    "spread": _from(0),
    "start": Limit(),
    "transforms": _LAYERS,
    "transition_hidden": _WIDTH,
    "unit": _POSITIVE,
    # What is maximized, and how its gradient is estimated
    "Renyi.alpha": Limit(infinite=True),
    "alpha": Limit(too_many="The largest weight alone, the limit of minus infinity, is Renyi(-inf) in Python."),
    "beta": _WEIGHT,
    "free_bits": _WEIGHT,
    "groups": _SAMPLES,
    "inner": _SAMPLES,
    "momentum": _SHARE,
    "gradient": Limit(hint="An estimator is an instance, such as ScoreFunction()."),
    "num_samples": _SAMPLES,
    "objective": Limit(hint="It is a model with its bound: Objective(model)."),
    "refinement_rate": _POSITIVE,
    "refinement_steps": _from(1, 100_000),
    "temperature": _POSITIVE,
    "weight": _WEIGHT,
    "kl_weight": _WEIGHT,
    # Training
    "batch_size": _SIZE,
    "steps_per_epoch": _SIZE,
    "checkpoint_minutes": _from(0, 1_000_000),
    "clip": Limit(0, above=True, too_many="For no limit, leave it out."),
    "data_seed": _from(-(2**62), 2**62),
    "epoch": _from(0),
    "epochs": _EPOCHS,
    "first": _from(0, 1e18),
    "elbo": _from(0),
    "elbo_epochs": _from(0, 10_000_000),
    "kl_warmup": _from(0),
    "kl_warmup_epochs": _from(0, 10_000_000),
    "learning_rate": _POSITIVE,
    "max_steps": _COUNT,
    "minutes": _MINUTES,
    "model_steps": _COUNT,
    "patience": _SIZE,
    "look_every": _COUNT,
    "posterior_steps": _COUNT,
    "processes": Limit(1, _PROCESSES, too_many="More processes than processors do not help."),
    "threads": Limit(1, max(4, os.cpu_count() or 1), too_many="More threads than processors do not help."),
    "rows_learning_rate": _POSITIVE,
    "seed": _from(-(2**62), 2**62),
    "size": _POSITIVE,
    "steps": _SIZE,
    "validation_fraction": _SHARE,
    "warmup": _from(0),
    "warmup_epochs": _from(0, 10_000_000),
    "window": _COUNT,
    # What is done with a fitted model
    "calibration_data": _from(100, 10_000_000),
    "calibration_fraction": _SHARE,
    "complete_degrees": Limit(0, above=True, infinite=True),
    "contamination": Limit(0, 0.5, above=True),
    "impute.draws": _from(1, 1_000_000),
    "impute.num_draws": _from(1, 1_000_000),
    "jobs": _from(1, 10_000),
    "seeds": _from(2, 10_000, "An error over seeds needs two."),
    "refits": _from(2, 1000, "A variance between fits needs two."),
    "bdmc.num_data": _from(2, 1_000_000_000, "One example gives no standard error."),
    "chains": _from(1, 100_000),
    "evaluate.chains": _CHAINS,
    "gaps.chains": _CHAINS,
    "columns": _COUNT,
    "coverage": Limit(0, 1, above=True, below=True),
    "draws": _from(10, 1_000_000, "A variance needs at least 10 draws."),
    "evaluation_samples": _SAMPLES,
    "elbo_samples": _SAMPLES,
    "gap_steps": _COUNT,
    "false_alarm_rate": Limit(0, 1, above=True, below=True),
    "intensive_data": _from(2, 10_000_000),
    "leapfrog_steps": _COUNT,
    "max_data": _from(2, 1_000_000_000, "One example gives no standard error."),
    "max_rows": _SIZE,
    "n_samples": _SIZE,
    "num": _SIZE,
    "random_state": _from(0, 2**32 - 1),
    "rows": _COUNT,
    "sample.num_samples": _SIZE,
    "temperatures": _COUNT,
    "tolerance": _from(0),
}


def limit_of(name: str, owner: str = "") -> Limit | None:
    """The range of a parameter, possibly specific to a function or class; None if none is stated.

    Args:
        name: Name of the parameter.
        owner: Name of the function or class; ``class.method`` for a method.

    Example:
        >>> str(limit_of("dropout")), limit_of("alpha").holds(float("inf")), limit_of("alpha", "Renyi").infinite
        ('at least 0 and below 1', False, True)
    """
    return LIMITS.get(f"{owner}.{name}") or LIMITS.get(f"{owner.rpartition('.')[2]}.{name}") or LIMITS.get(name)


def is_number(text: str) -> bool:
    """Whether a text is a number in Python's notation.

    Example:
        >>> is_number("1e3"), is_number("-inf"), is_number("three")
        (True, True, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True
