"""Numbers that are not finite: written in one way in files, tables and sentences, that of ``float("-inf")``.

JSON has no literals for them, and null would lose which one it was: there they are the strings ``"-inf"``, ``"inf"``
and ``"nan"``, which ``float`` reads back. In a .csv they are the same words; an empty cell means "not measured".
"""

import math
from typing import Any

__all__ = ["decoded", "encoded", "in_words"]

_WORDS = ("-inf", "inf", "nan")


def encoded(value: Any) -> Any:
    """Converts numbers, and lists and dictionaries of them, to what JSON can hold.

    Example:
        >>> encoded({"log_px": float("-inf"), "kl": [0.5, float("nan")]})
        {'log_px': '-inf', 'kl': [0.5, 'nan']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {name: encoded(part) for name, part in value.items()}
    return [encoded(part) for part in value] if isinstance(value, list | tuple) else value


def decoded(value: Any) -> Any:
    """The inverse of :func:`encoded`, for records that contain no text from users.

    Example:
        >>> decoded({"log_px": "-inf", "split": "test"})
        {'log_px': -inf, 'split': 'test'}
    """
    if isinstance(value, str) and value in _WORDS:
        return float(value)
    if isinstance(value, dict):
        return {name: decoded(part) for name, part in value.items()}
    return [decoded(part) for part in value] if isinstance(value, list) else value


def in_words(count: int, num_data: int, others: tuple[str, str] | None) -> str:
    """The message for examples whose log p(x) is not finite.

    Args:
        count: Number of such examples.
        num_data: Number of all examples.
        others: The mean over the other examples and its error, in digits; None if fewer than two are left.
    """
    said = (
        f"log p(x) of {count:,} of {num_data:,} examples is not finite, and so neither is its mean: the model gives "
        "them zero probability, or one outside the range of floating-point numbers."
    )
    if others is None:
        return said
    return f"{said} Over the other {num_data - count:,} the mean is {' +- '.join(filter(None, others))} nats."
