"""Parameters as flags of the command line: in the library's messages, and in commands that start others."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["in_flags", "words_of"]

_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]*))?`")
_OTHER_NAMES = {"run_dir": "out"}


def in_flags(message: str) -> str:
    """A message of the library, which puts parameters between backquotes, with flags in their place.

    Example:
        >>> in_flags("Lower `learning_rate`, set `clip=10` or `dequantize=False`, or go on with `run_dir=runs/a`.")
        'Lower --learning-rate, set --clip 10 or --no-dequantize, or go on with --out runs/a.'
        >>> in_flags("Name them: `missing=-`, `missing=not known`.")
        "Name them: --missing=-, --missing='not known'."
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name == "accept_changes":
            return f"subo show {value} --accept-changes"
        name = _OTHER_NAMES.get(name, name).replace("_", "-")
        if name == "missing" and value is not None:  # a word, whatever it is
            return f"--missing={shlex.quote(value)}"
        if value in (None, "True"):
            return f"--{name}"
        return f"--no-{name}" if value == "False" else f"--{name} {shlex.quote(value)}"

    return _PARAMETER.sub(flag, message)


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command; None is left out.

    Example:
        >>> words_of({"latent_dim": 2, "hidden": (20, 10), "quiet": True, "dequantize": False, "clip": None})
        ['--latent-dim=2', '--hidden=20,10', '--quiet', '--no-dequantize']
    """
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            several = value if isinstance(value, list | tuple) else None
            words.append(f"--{flag}={value if several is None else ','.join(map(_quoted, several))}")
    return words


def _quoted(value: Any) -> str:
    return f'"{value}"' if "," in str(value) else str(value)
