"""Runs written by older versions: what their ``config.json`` does not say is filled in here and nowhere else."""

from collections.abc import Mapping
from typing import Any

__all__ = ["completed"]

_SINCE: dict[str, dict[str, Any]] = {
    "data": {"dequantize": False, "noise": "none was added", "levels": 1},
}
"""By section of the config, the settings that came later, with the value that says what was done before."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every setting that this version knows.

    Example:
        >>> completed({"data": {"levels": 255}})["data"]["dequantize"]
        False
    """
    filled = {section: {**since, **config.get(section, {})} for section, since in _SINCE.items()}
    return {**config, **filled}
