"""The subcommand `batch`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from longhand_client.errors import LonghandError


def batch(arguments: Sequence[str]) -> int:
    """`longhand batch ...`: reads any number of images into files of rows, without a server.

    Returns:
        The exit code of `python -m longhand_server.bulk`.

    Raises:
        LonghandError: the server's code is not installed.
    """
    if importlib.util.find_spec("longhand_server") is None:
        raise LonghandError("reading without a server needs its code: pip install 'longhand[server]'")
    with subprocess.Popen([sys.executable, "-m", "longhand_server.bulk", *arguments]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the terminal sends Ctrl-C to it too, and it says so itself
