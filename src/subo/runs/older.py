"""Runs written by older versions: what their ``config.json`` does not say is filled in here and nowhere else."""

from collections.abc import Mapping
from typing import Any

__all__ = ["SINCE", "completed", "meaning_of"]

SINCE: dict[str, dict[str, Any]] = {
    "data": {
        "dequantize": False,
        "noise": "none was added",
        "levels": 1,
        "constant": None,
        "division": None,
        "on_disk": False,
    },
    "training": {"elbo_epochs": 0.0, "compile": "none", "window": None},
}
"""By section of the config, settings added later, with the value that describes what was done before."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every setting that this version knows; only its data's meaning may still be missing.

    Example:
        >>> completed({"data": {"levels": 255}})["data"]["dequantize"]
        False
    """
    filled = {section: {**since, **config.get(section, {})} for section, since in SINCE.items()}
    options = config.get("options", {})
    if options.get("likelihood") == "continuous-bernoulli" and "constant" not in config.get("data", {}):
        filled["options"] = {**options, "min_scale": None}  # the floor is as old as the count of constant elements
    if filled["data"].get("kind") == "counts":  # the former name for whole numbers, for which a Poisson was chosen
        filled["data"]["kind"] = "whole"
    if filled["data"].get("binarize") == "none":  # was also said when the split was random
        filled["data"]["binarization"] = "nothing was binarized"
    return {**config, **filled}


def meaning_of(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the values of a run's data mean, as far as its config shows; it does not name classes.

    Levels are those the model sees: 1 if bits were drawn once or levels were used as classes; the data then had 255
    levels, or 16 for digits.
    """
    shape, levels = data.get("event_shape", []), data["levels"]
    categorical = options.get("likelihood") == "categorical"
    bytes_read = levels > 1 or (len(shape) == 3 and (categorical or data.get("kind") == "binary"))
    drawn = data.get("binarize", "none") == "static" or (categorical and bytes_read)
    kind = "grey" if data["dequantize"] or data.get("binarize", "none") != "none" or drawn else data.get("kind")
    if levels == 1 and drawn:
        levels = 16 if data.get("source") == "digits" else 255
    return {
        "kind": kind,
        "event_shape": shape,
        "levels": levels,
        "pixels": bytes_read,
        "whole": data["dequantize"] or (categorical and bytes_read),
        "sequential": bool(data.get("steps")),
        "image_size": None,
        "feature_names": data.get("feature_names"),
        "class_names": None,
    }
