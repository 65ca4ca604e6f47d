"""The subcommands `serve`, `batch`, `models` and `health`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from longhand_client.client import RecognizerClient
from longhand_client.command.arguments import connection_parser, make_client
from longhand_client.command.outputs import printable
from longhand_client.command.program import EXIT_FAILED, EXIT_OK, errors_of_usage
from longhand_client.errors import LonghandError

# The wheel of the client holds the server's code, too, but not what that needs.
_NEEDED = ("longhand_server", "cv2", "onnxruntime", "prometheus_client")


def serve(arguments: Sequence[str]) -> NoReturn:
    """`longhand serve ...`: becomes `python -m longhand_server ...`.

    Raises:
        LonghandError: the server is not installed.
    """
    _become("longhand_server", arguments, "the server is not installed here")


def batch(arguments: Sequence[str]) -> NoReturn:
    """`longhand batch ...`: becomes `python -m longhand_server.bulk ...`, which reads images without a server.

    Raises:
        LonghandError: the server's code is not installed.
    """
    _become("longhand_server.bulk", arguments, "reading without a server needs its code")


def _become(module: str, arguments: Sequence[str], missing: str) -> NoReturn:
    """Takes the module's place in this process, so that signals and exit codes are the module's own."""
    if not all(importlib.util.find_spec(name) for name in _NEEDED):
        raise LonghandError(f"{missing}: pip install '.[server]' in Longhand's folder")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def models(arguments: Sequence[str]) -> int:
    """`longhand models`: lists what a server can read with.

    Returns:
        The exit code 0.

    Raises:
        LonghandError: the server does not answer.
    """
    options, client = _connect("models", "Lists the models of a server.", arguments)
    with client:
        for model in client.models():
            if options.json:
                print(json.dumps(model.to_dict(), ensure_ascii=False))
            else:
                mark = "*" if model.is_default else " "
                state = f"{model.state} on {model.device}"
                print(printable(f"{mark} {model.name} {model.version}  {state}  {model.description}"))
    return EXIT_OK


def health(arguments: Sequence[str]) -> int:
    """`longhand health`: whether a server is ready.

    Returns:
        0 where the service says SERVING, 1 otherwise.

    Raises:
        LonghandError: nobody answers.
    """
    options, client = _connect("health", "Asks a server whether it is ready.", arguments)
    with client:
        status = client.health()
    print(json.dumps({"status": status}) if options.json else status)
    return EXIT_OK if status == "SERVING" else EXIT_FAILED


def _connect(
    name: str, description: str, arguments: Sequence[str]
) -> tuple[argparse.Namespace, RecognizerClient]:
    parser = argparse.ArgumentParser(
        prog=f"longhand {name}", description=description, parents=[connection_parser()]
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with errors_of_usage(parser):
        client = make_client(options)
    return options, client


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "batch": batch,
    "serve": serve,
    "models": models,
    "health": health,
}
