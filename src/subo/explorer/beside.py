"""Another run beside the one that a page shows: its numbers, paired differences, settings and samples."""

from pathlib import Path
from typing import Any

import torch

from subo.errors import InputError
from subo.experiments.compare import compare_runs, open_comparable
from subo.experiments.experiment import Experiment
from subo.explorer.numbers import packed
from subo.files.nonfinite import encoded
from subo.runtime.devices import evaluating
from subo.runtime.randomness import forked

__all__ = ["beside_record"]

_SAMPLES = 8
_NUMBERS = ("log_px", "elbo", "rate", "distortion")


def beside_record(run: Path, other: Path, *, split: str = "test", num_samples: int = 1000) -> dict[str, Any]:
    """Two runs side by side, measured on the same examples by the same samples.

    Args:
        run: The run that the page shows.
        other: The other run, of the same data.
        split: ``test`` or ``validation``.
        num_samples: Posterior samples for each log p(x).

    Raises:
        InputError: The runs cannot be compared; says why.
    """
    experiments = open_comparable([run, other])
    comparison = compare_runs(experiments, split=split, num_samples=num_samples)
    first, second = comparison.rows
    differences = {"log_px": second.log_px_difference, "elbo": second.elbo_difference}
    opened = list(experiments.values())
    return encoded(
        {
            "names": [Path(row.name).name for row in comparison.rows],
            "split": split,
            "count": comparison.num_data,
            "num_samples": num_samples,
            "numbers": {name: [_pair(getattr(row, name)) for row in (first, second)] for name in _NUMBERS},
            "active": [f"{row.active_units} of {row.latent_dim}" for row in comparison.rows],
            "differences": {name: _pair(value) for name, value in differences.items() if value is not None},
            "settings": _differing(*opened),
        }
    ) | {"samples": [_samples(experiment) for experiment in opened]}


def _pair(estimate: Any) -> list[float]:
    return [estimate.mean, estimate.standard_error]


def _differing(first: Experiment, second: Experiment) -> list[list[str]]:
    """Settings in which the runs differ."""
    one, other = first.config.settings, second.config.settings
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return [[name, str(one.get(name, "")), str(other.get(name, ""))] for name in names]


def _samples(experiment: Experiment) -> dict[str, Any] | None:
    """Means of p(x|z) at samples of the prior; None where the prior needs a condition, or x has no fixed shape."""
    shape = experiment.config.data.event_shape
    try:
        with evaluating(experiment.model), forked(0), torch.no_grad():
            means = experiment.model.sample(_SAMPLES)[1].mean.cpu()
    except (InputError, NotImplementedError):  # a missing condition or mask; a distribution without a mean
        return None
    return packed(means, "f16") if list(means.shape[1:]) == list(shape) else None
