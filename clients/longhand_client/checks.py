"""Numbers that a caller hands in: those that make no sense are refused at once, in words."""

from __future__ import annotations


def whole_number(name: str, value: int, least: int) -> int:
    """The value.

    Raises:
        ValueError: it is no whole number, or less than `least`.
    """
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, need a whole number, at least {least}")
    return value


def seconds(name: str, value: float, most: float) -> float:
    """The value; infinity becomes `most`, which is as good, but which gRPC can count.

    Raises:
        ValueError: no such time.
    """
    if not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"{name}: got {value!r}, need seconds, more than 0")
    return min(value, most)
