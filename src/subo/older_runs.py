"""Runs written by older versions: what their ``config.json`` does not say is filled in here and nowhere else."""

from collections.abc import Mapping
from typing import Any

__all__ = ["completed"]

_SINCE: dict[str, dict[str, Any]] = {
    "data": {"dequantize": False, "noise": "none was added", "levels": 1, "constant": None},
}
"""By section of the config, the settings that came later, with the value that says what was done before."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every setting that this version knows.

    Example:
        >>> completed({"data": {"levels": 255}})["data"]["dequantize"]
        False
    """
    filled = {section: {**since, **config.get(section, {})} for section, since in _SINCE.items()}
    options = config.get("options", {})
    if options.get("likelihood") == "continuous-bernoulli" and "constant" not in config.get("data", {}):
        filled["options"] = {**options, "min_scale": None}  # the floor is as old as the count of constant elements
    return {**config, **filled}
