"""Ctrl-C while a program starts."""

from __future__ import annotations

import os
import signal


def quit_on_interrupt() -> None:
    """From now on Ctrl-C ends the process at once, with 130.

    Python's exception, raised while a library is imported, may come out as an ImportError, with a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # jobs in the background ignore it
        signal.signal(signal.SIGINT, _quit)


def raise_on_interrupt() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _quit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit(*_: object) -> None:
    os._exit(130)
