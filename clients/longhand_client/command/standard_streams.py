"""Standard input, output and error where the shell has closed them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def open_closed_streams() -> None:
    """Opens /dev/null in place of each of the three that is closed, as >&- does, before anything else is opened.

    What is opened next would get its number, and uvloop aborts when it is to close such a file of its own.
    """
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers: the lowest free one is taken
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115 -- stays open
