"""What the command line and the benchmark share: exit codes, and what they say where something goes wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from longhand_client.command.standard_streams import tell
from longhand_client.errors import AuthenticationError, LonghandError, ServerUnavailableError

EXIT_OK, EXIT_FAILED, EXIT_NO_SERVER, EXIT_INTERRUPTED = 0, 1, 3, 130


@contextmanager
def errors_of_usage(usage: argparse.ArgumentParser) -> Iterator[None]:
    """Ends the program with the message of a ValueError or OSError: an argument, or the file it names, is no good."""
    try:
        yield
    except ValueError as error:
        usage.error(str(error))
    except OSError as error:
        usage.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def run_program(name: str, work: Callable[[], int], how_to_start: str) -> int:
    """Does the work, and says on standard error what has ended it early.

    Args:
        name: the program's, with which its messages begin.
        work: gives the exit code.
        how_to_start: what to do where no server answers.

    Returns:
        The exit code.
    """
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()  # at its exit Python would say of a failure what only its developers understand
    except ServerUnavailableError as error:
        hint = "" if error.reason else f"; {how_to_start}"
        tell(f"{name}: {error}{hint}")
        return EXIT_NO_SERVER
    except LonghandError as error:
        hint = " (--token-file FILE)" if isinstance(error, AuthenticationError) else ""
        tell(f"{name}: {error}{hint}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        tell(f"{name}: stopped")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has what they want
        _give_up_output()
        return EXIT_OK
    except OSError as error:
        _give_up_output()
        place = f"{error.filename}: " if error.filename else ""
        tell(f"{name}: {place}{error.strerror or error}")
        return EXIT_FAILED


def _give_up_output() -> None:
    """Throws away what standard output does not take; Python would try it once more at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
