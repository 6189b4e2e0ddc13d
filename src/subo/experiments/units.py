"""The units in which a run's model describes its data, and what its log p(x) is therefore the logarithm of."""

import math
from dataclasses import replace
from typing import Literal

from torch import Tensor

from subo.data.dataset import Data
from subo.data.quantization import quantized
from subo.data.splits import Split
from subo.parts.registry import LIKELIHOODS, is_over_classes
from subo.runs.config import RunConfig

__all__ = [
    "bits_of_a_guess",
    "data_in_levels",
    "describe_log_px",
    "in_levels",
    "kind_of_log_px",
    "provenance",
    "without_noise",
]

LogPx = Literal["probability", "density", "bound"]


def kind_of_log_px(config: RunConfig) -> LogPx:
    """The kind of a run's log p(x): numbers of different kinds are never compared.

    Args:
        config: Config of the run.

    Returns:
        ``probability``, for discrete data; ``density``; or ``bound``: the density of dequantized integers, whose mean
        over the noise is a lower bound on their log-probability.
    """
    if LIKELIHOODS[config.likelihood].is_discrete:
        return "probability"
    return "bound" if config.data.dequantize else "density"


def describe_log_px(config: RunConfig) -> str:
    """What log p(x) is the logarithm of, and in what units."""
    kind, levels = kind_of_log_px(config), config.data.levels
    given = f", given {config.given}" if config.is_conditional else ""
    if kind == "probability":
        return f"log-probability{given}"
    if kind == "bound":
        values = "8-bit values" if levels == 255 else f"values 0 to {levels}"
        return f"lower bound on the log-probability of the {values}, by uniform dequantization{given}"
    if config.data.meaning.table is not None:
        gaps = ", and of which cells are missing" * config.models_missing
        return f"log-density of numbers, log-probability of levels and counts, in the data's units{gaps}{given}"
    return ("log-density in the data's units" if levels == 1 else f"log-density of x/{levels}") + given


def bits_of_a_guess(config: RunConfig) -> float | None:
    """Bits per dimension of a model with equally probable values; None if there are infinitely many values."""
    if kind_of_log_px(config) == "bound":
        return math.log2(config.data.levels + 1)
    family = LIKELIHOODS[config.likelihood]
    if not family.is_discrete:
        return None
    if (limits := getattr(family, "limits", None)) is not None:
        return math.log2(limits[1] - limits[0] + 1)
    if not is_over_classes(config.likelihood):
        return None
    num_classes = config.options["num_classes"]
    each = [num_classes] if isinstance(num_classes, int) else num_classes
    return sum(map(math.log2, each)) / len(each)


def provenance(config: RunConfig) -> dict[str, str]:
    """What is written beside a run's numbers: their unit, what log p(x) is, and which data and how prepared."""
    data = config.data
    return {
        "unit": "nats per example",
        "log_px_is": describe_log_px(config),
        "data": data.source,
        "binarization": data.binarization,
        "noise": data.noise,
    }


def in_levels(split: Split, config: RunConfig) -> Split:
    """Pixels as whole numbers if the run's likelihood is over classes; otherwise the data unchanged."""
    return replace(split, levels=1) if is_over_classes(config.likelihood) else split


def data_in_levels(data: Data, likelihood: str) -> Data:
    """All splits as in :func:`in_levels`: pixels become whole numbers."""
    if likelihood == "auto" or not is_over_classes(likelihood) or data.kind != "grey" or data.train.levels == 1:
        return data
    parts = {name: replace(getattr(data, name), levels=1) for name in ("train", "validation", "test")}
    return replace(data, kind="whole", decided=replace(data.meaning, whole=True), **parts)


def without_noise(x: Tensor, config: RunConfig, *, drawn: bool) -> Tensor:
    """Converts a model's output to the values that its data had before dequantization; otherwise leaves it unchanged.

    Args:
        x: Draws from p(x|z), or its means.
        config: Config of the run.
        drawn: Whether x are draws: a draw becomes the level whose cell it lies in, a mean ``E[x|z] - 1/2``.
    """
    if not config.data.dequantize:
        return x
    return quantized(x, levels=config.data.levels) if drawn else x - 0.5
