"""What the JSON files of a run must contain: errors name what is missing or of the wrong kind."""

from collections.abc import Callable, Mapping
from typing import Any

from subo.errors import InputError

__all__ = ["CONFIG", "EPOCH", "EVALUATION", "SECTIONS", "check_record"]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return value is None or _is_whole(value) or isinstance(value, float) or value in ("-inf", "inf", "nan")


_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "a number": _is_number,
    "a whole number": _is_whole,
    "a list of whole numbers": lambda value: isinstance(value, list) and all(map(_is_whole, value)),
    "a group of settings": lambda value: isinstance(value, dict),
    "a group of numbers or null": lambda value: value is None or isinstance(value, dict),
}

Expected = Mapping[str, "str | Expected"]

_METRICS: Expected = dict.fromkeys(("bound", "elbo", "rate", "distortion"), "a number")
EPOCH: Expected = {
    "epoch": "a whole number",
    "step": "a whole number",
    "seconds": "a number",
    "train": _METRICS,
    "validation": "a group of numbers or null",
}
CONFIG: Expected = {
    "recipe": "text or null",
    "options": "a group of settings",
    "data": {
        "source": "text",
        "event_shape": "a list of whole numbers",
        "sizes": dict.fromkeys(("train", "validation", "test"), "a whole number"),
        "kind": "text",
        "levels": "a whole number",
        "binarize": "text",
        "seed": "a whole number",
        "fingerprint": "text",
    },
    "training": {
        **dict.fromkeys(("epochs", "minutes", "patience", "clip", "window"), "a number"),
        **dict.fromkeys(("batch_size", "posterior_steps", "seed"), "a whole number"),
        **dict.fromkeys(("optimizer", "decay", "updates", "compile"), "text"),
        **dict.fromkeys(("learning_rate", "rows_learning_rate", "checkpoint_minutes"), "a number"),
        **dict.fromkeys(("warmup_epochs", "kl_warmup_epochs", "elbo_epochs"), "a number"),
    },
    "device": "a group of settings",
}
SECTIONS = ("options", "data", "training", "device")
"""The sections of a config, each a group of settings."""

EVALUATION: Expected = {
    "split": "text",
    **dict.fromkeys(("num_data", "num_samples", "active_units", "latent_dim"), "a whole number"),
    **dict.fromkeys(("log_px", "log_px_se", "elbo", "elbo_se", "rate", "distortion", "median_ess"), "a number"),
}


def check_record(value: Any, expected: Expected, *, where: str, remedy: str) -> None:
    """Refuses what was read if something is missing or of the wrong kind; extra entries are allowed.

    Args:
        value: The record read.
        expected: Names, each with its kind of value or the names of its group.
        where: Beginning of the message.
        remedy: End of the message.

    Raises:
        InputError: An entry is missing or of the wrong kind.

    Example:
        >>> check_record({"epoch": "one"}, {"epoch": "a whole number"}, where="a.json", remedy="Write it again.")
        Traceback (most recent call last):
        subo.errors.InputError: a.json: epoch must be a whole number, not 'one'. Write it again.
    """
    _check(value, expected, where, remedy, "")


def _check(value: Any, expected: Expected, where: str, remedy: str, above: str) -> None:
    if not isinstance(value, dict):
        what = f"{above.rstrip('.')} must be" if above else "it must be"
        raise InputError(f"{where}: {what} names with values, not {_short(value)}. {remedy}")
    for name, kind in expected.items():
        if name not in value:
            raise InputError(f"{where}: {above}{name} is missing. {remedy}")
        if not isinstance(kind, str):
            _check(value[name], kind, where, remedy, f"{above}{name}.")
        elif not _KINDS[kind](value[name]):
            raise InputError(f"{where}: {above}{name} must be {kind}, not {_short(value[name])}. {remedy}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
