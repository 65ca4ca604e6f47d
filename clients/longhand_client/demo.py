"""`python -m longhand_client.demo IMAGE`: the whole way once, on a server started for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from longhand_client.client import RecognizerClient
from longhand_client.command.program import EXIT_OK, run_program
from longhand_client.command.standard_streams import allow_every_character
from longhand_client.local_server import LocalServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts a server, reads one image, prints what it read, stops the server.

    Returns:
        The exit code: 0, 1 (the image or the server failed), 2 (usage), 3 (the server is gone), 130 (stopped by
        Ctrl-C).
    """
    paths = list(sys.argv[1:] if arguments is None else arguments)
    if len(paths) != 1:
        print("usage: python -m longhand_client.demo IMAGE", file=sys.stderr)
        return 2
    allow_every_character()
    image = Path(paths[0])
    if not image.is_file():
        print(f"demo: {image}: no such file", file=sys.stderr)
        return 1
    return run_program("demo", lambda: _read(image), "its server is gone: try again")


def _read(image: Path) -> int:
    with LocalServer() as server, RecognizerClient(server.address) as client:
        model = client.model()
        print(f"server      {server.address}, model {model.name} {model.version} on {model.device}")
        started = time.perf_counter()
        transcription = client.recognize(image)
        elapsed_ms = 1000 * (time.perf_counter() - started)
    print(f"image       {image} ({transcription.image_width} x {transcription.image_height} px)")
    print(f"text        {transcription.text}")
    print(f"confidence  {transcription.confidence:.2f}")
    print(f"time        {elapsed_ms:.0f} ms, of which network {transcription.timings.infer_ms:.0f} ms")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
