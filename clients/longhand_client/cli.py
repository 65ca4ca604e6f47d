"""The command line: `python clients/cli.py image.png`, installed as `longhand`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from longhand_client.client import RecognizerClient
from longhand_client.connection import DEFAULT_ADDRESS
from longhand_client.errors import LonghandError, ServerUnavailableError

EXIT_OK = 0
EXIT_IMAGE_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_SERVER = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the images named on the command line and prints their text.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (some image failed), 2 (usage), 3 (no server).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        client = RecognizerClient(options.address)
    except ValueError as error:
        parser.error(str(error))
    failures = 0
    with client:
        for path in options.images:
            try:
                transcription = client.recognize(path)
            except ServerUnavailableError as error:
                _report(f"{error}\nstart one with `make serve`, or `python -m longhand_server`")
                return EXIT_NO_SERVER
            except LonghandError as error:
                failures += 1
                _report(str(error) if str(error).startswith(path) else f"{path}: {error}")
                continue
            if options.json:
                record = {"file": path, "text": transcription.text, "confidence": transcription.confidence}
                print(json.dumps(record, ensure_ascii=False), flush=True)
            else:
                prefix = f"{path}: " if len(options.images) > 1 else ""
                print(f"{prefix}{transcription.text}", flush=True)
    return EXIT_IMAGE_FAILED if failures else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longhand",
        description="Reads images of handwritten lines with a Longhand server and prints their text.",
        epilog="exit codes: 0 all read, 1 some image failed (named on stderr), 2 usage, 3 no server",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image of one line (PNG, JPEG, ...)")
    parser.add_argument(
        "--address", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _report(message: str) -> None:
    print(f"longhand: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
