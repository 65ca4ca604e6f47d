"""The command line: `python clients/cli.py IMAGE ...`, installed as `longhand`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from longhand_client.command.program import run_program
from longhand_client.command.run import read
from longhand_client.command.services import COMMANDS
from longhand_client.command.standard_streams import allow_every_character, open_closed_streams

_HOW_TO_START = "start one with `make serve` or `python -m longhand_server`, or read with --local"
_WHERE_ONE_IS = "say with --address HOST:PORT where one is"  # the server's code is not everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the images named on the command line and prints their text; or runs a subcommand.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (some image failed), 2 (usage), 3 (no server), 130 (stopped by Ctrl-C).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    open_closed_streams()
    allow_every_character()
    command = COMMANDS.get(arguments[0]) if arguments else None
    hint = _HOW_TO_START if importlib.util.find_spec("longhand_server") else _WHERE_ONE_IS
    return run_program("longhand", lambda: command(arguments[1:]) if command else read(arguments), hint)


if __name__ == "__main__":
    sys.exit(main())
