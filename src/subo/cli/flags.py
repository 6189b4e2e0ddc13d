"""Turns parameters in the library's messages into flags of the command line."""

import re

__all__ = ["in_flags"]

_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]*))?`")
_OTHER_NAMES = {"run_dir": "out"}


def in_flags(message: str) -> str:
    """A message of the library, which puts parameters between backquotes, with flags in their place.

    Example:
        >>> in_flags("Lower `learning_rate`, set `clip=10` or `dequantize=False`, or go on with `run_dir=runs/a`.")
        'Lower --learning-rate, set --clip 10 or --no-dequantize, or go on with --out runs/a.'
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name == "accept_changes":
            return f"subo show {value} --accept-changes"
        name = _OTHER_NAMES.get(name, name).replace("_", "-")
        if value in (None, "True"):
            return f"--{name}"
        return f"--no-{name}" if value == "False" else f"--{name} {value}"

    return _PARAMETER.sub(flag, message)
