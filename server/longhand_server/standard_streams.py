"""Standard input, output and error where a parent has closed them, or where their disk is full."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def open_closed_streams() -> None:
    """Opens /dev/null in place of each of the three that is closed.

    Otherwise what is opened next gets its number, and libuv aborts when it is to close the event loop's own files.
    To be called before anything else is opened.
    """
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers: the lowest free one is taken
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115 -- stays open


def tell(text: str, end: str = "\n") -> None:
    """Says something on standard error; where nothing can be written, or nobody listens, work goes on."""
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """Says that a server is there, on standard output; where nothing can be written, it serves all the same."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode(errors="replace"))
