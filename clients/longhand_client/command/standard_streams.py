"""Standard input, output and error where the shell has closed them, or where they cannot hold every character."""

from __future__ import annotations

import codecs
import contextlib
import io
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


def tell(text: str) -> None:
    """Says something to a person, on standard error; where its disk is full or nobody listens, work goes on."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """Says that something is served, on standard output; where nothing can be written, it is served all the same."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode(errors="replace"))  # print() would keep it, and fail again at the end


def allow_every_character() -> None:
    """Has odd characters written where the terminal's encoding lacks the right ones, rather than no output.

    File names need not be text at all.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_utf_8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if is_utf_8 else "backslashreplace")
