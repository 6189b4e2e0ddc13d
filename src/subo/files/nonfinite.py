"""Numbers that are not finite: one form in files, tables and sentences, that of ``float("-inf")``.

JSON has no word for them, and null would lose which one it was: there they are the strings ``"-inf"``, ``"inf"`` and
``"nan"``, which ``float`` reads back. In a .csv they are the same words; an empty cell says that nothing was measured.
"""

import math
from typing import Any

__all__ = ["decoded", "encoded", "in_words"]

_WORDS = ("-inf", "inf", "nan")


def encoded(value: Any) -> Any:
    """Numbers, lists and dictionaries of them as JSON can hold them.

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
    """The inverse of :func:`encoded`, of records whose texts are not their users'.

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
    """What is said where log p(x) of some examples is not finite.

    Args:
        count: How many.
        num_data: Of how many.
        others: The mean over the others and its error, in digits; None where fewer than two are left.
    """
    said = (
        f"log p(x) of {count:,} of {num_data:,} examples is not finite, and so neither is its mean: the model gives "
        "them no probability, or one beyond what floating-point numbers hold."
    )
    if others is None:
        return said
    return f"{said} Over the other {num_data - count:,} the mean is {' +- '.join(filter(None, others))} nats."
