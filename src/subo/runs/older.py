"""Runs written by older versions: what their ``config.json`` does not say is filled in here and nowhere else."""

from collections.abc import Mapping
from typing import Any

__all__ = ["completed"]

_SINCE: dict[str, dict[str, Any]] = {
    "data": {"dequantize": False, "noise": "none was added", "levels": 1, "constant": None, "division": None},
}
"""By section of the config, the settings that came later, with the value that says what was done before."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every setting that this version knows.

    Example:
        >>> completed({"data": {"levels": 255}})["data"]["dequantize"]
        False
    """
    filled = {section: {**since, **config.get(section, {})} for section, since in _SINCE.items()}
    filled["data"].pop("feature_names", None)  # which the meaning has now
    options = config.get("options", {})
    if options.get("likelihood") == "continuous-bernoulli" and "constant" not in config.get("data", {}):
        filled["options"] = {**options, "min_scale": None}  # the floor is as old as the count of constant elements
    if filled["data"].get("kind") == "counts":  # as whole numbers were called, from which a Poisson was taken
        filled["data"]["kind"] = "whole"
    if filled["data"].get("binarize") == "none":  # it was said of parts that were divided at random, too
        filled["data"]["binarization"] = "nothing was binarized"
    filled["data"].setdefault("meaning", _meaning(config["data"] | filled["data"], options))
    return {**config, **filled}


def _meaning(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the values of a run's data mean, as far as its config tells, which names no classes.

    Levels are those of what the model sees, 1 where bits were drawn once or levels taken for classes: the data had
    then 255 of them, or digits' 16.
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
