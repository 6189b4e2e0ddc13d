"""Words of messages that follow from a number."""

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    Example:
        >>> counted(1, "row"), counted(12000, "missing cell")
        ('1 row', '12,000 missing cells')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
