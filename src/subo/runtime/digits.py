"""How many digits of an estimate are shown: as many as its error justifies."""

import math

__all__ = ["in_digits"]


def in_digits(value: float, standard_error: float | None) -> tuple[str, str]:
    """A value and its error to two digits of the error; a value without an error gets four digits.

    Example:
        >>> in_digits(0.123456, 0.00234)
        ('0.1235', '0.0023')
    """
    if not math.isfinite(value):
        return f"{value}", ""
    if standard_error is None or not math.isfinite(standard_error):
        return (f"{value:.0f}" if value == round(value) else f"{value:.4g}"), ""
    digits = 4 if standard_error < 1e-4 else min(4, max(0, 1 - math.floor(math.log10(standard_error))))
    return f"{value:.{digits}f}", f"{standard_error:.{digits}f}"
