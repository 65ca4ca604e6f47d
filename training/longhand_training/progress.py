"""How far work on many lines has come, for people who wait for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
# Shorter work needs no such line, and a terminal no more of them.
_QUIET_S = 1.0
_BETWEEN_S = 0.2


def counted(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items one by one; where stderr is a terminal, a line of it counts them after a second.

    Args:
        items: to be worked on.
        what: they are, such as "lines read".
    """
    next_shown = time.monotonic() + _QUIET_S
    is_shown = False
    try:
        for count, item in enumerate(items, 1):
            yield item
            if sys.stderr.isatty() and (time.monotonic() >= next_shown or (is_shown and count == len(items))):
                print(f"\r{count} / {len(items)} {what}", end="", file=sys.stderr, flush=True)
                next_shown, is_shown = time.monotonic() + _BETWEEN_S, True
    finally:
        if is_shown:
            print(file=sys.stderr)
