"""The subcommands `serve`, `models` and `health`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence

from longhand_client.command.arguments import connection_parser, make_client
from longhand_client.errors import LonghandError


def serve(arguments: Sequence[str]) -> int:
    """`longhand serve ...`: runs the server until Ctrl-C.

    Returns:
        The server's exit code.

    Raises:
        LonghandError: the server is not installed.
    """
    if importlib.util.find_spec("longhand_server") is None:
        raise LonghandError("the server is not installed here: pip install 'longhand[server]'")
    process = subprocess.Popen([sys.executable, "-m", "longhand_server", *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal sends Ctrl-C to the server too, which finishes what it has accepted.
            continue


def models(arguments: Sequence[str]) -> int:
    """`longhand models`: lists what a server can read with.

    Returns:
        The exit code 0.

    Raises:
        LonghandError: the server does not answer.
    """
    options = _parse("models", "Lists the models of a server.", arguments)
    with make_client(options) as client:
        for model in client.models():
            if options.json:
                print(json.dumps(model.to_dict(), ensure_ascii=False))
            else:
                mark = "*" if model.is_default else " "
                state = f"{model.state} on {model.device}"
                print(f"{mark} {model.name} {model.version}  {state}  {model.description}")
    return 0


def health(arguments: Sequence[str]) -> int:
    """`longhand health`: whether a server is ready.

    Returns:
        0 where the service says SERVING, 1 otherwise.

    Raises:
        LonghandError: nobody answers.
    """
    options = _parse("health", "Asks a server whether it is ready.", arguments)
    with make_client(options) as client:
        status = client.health()
    print(json.dumps({"status": status}) if options.json else status)
    return 0 if status == "SERVING" else 1


def _parse(name: str, description: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"longhand {name}", description=description, parents=[connection_parser()]
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)
