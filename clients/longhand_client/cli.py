"""The command line: `python clients/cli.py IMAGE ...`, installed as `longhand`."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Sequence

from longhand_client.command.run import EXIT_INTERRUPTED, EXIT_OK, read
from longhand_client.command.services import batch, health, models, serve
from longhand_client.command.standard_streams import open_closed_streams
from longhand_client.errors import AuthenticationError, LonghandError, ServerUnavailableError

EXIT_FAILED = 1
EXIT_NO_SERVER = 3

_HOW_TO_START = "start one with `make serve` or `python -m longhand_server`, or read with --local"
_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "batch": batch,
    "serve": serve,
    "models": models,
    "health": health,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the images named on the command line and prints their text; or runs a subcommand.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (some image failed), 2 (usage), 3 (no server), 130 (stopped by Ctrl-C).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # File names need not be text in the terminal's encoding: better odd characters than no output.
        if isinstance(stream, io.TextIOWrapper):
            is_utf_8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if is_utf_8 else "backslashreplace")
    command = _COMMANDS.get(arguments[0]) if arguments else None
    try:
        return read(arguments) if command is None else command(arguments[1:])
    except ServerUnavailableError as error:
        hint = "" if error.reason else f"; {_HOW_TO_START}"
        print(f"longhand: {error}{hint}", file=sys.stderr)
        return EXIT_NO_SERVER
    except LonghandError as error:
        hint = " (--token-file FILE)" if isinstance(error, AuthenticationError) else ""
        print(f"longhand: {error}{hint}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("longhand: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; without this Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"longhand: {place}{error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
