"""The real server, which notes the CPU time that its pipeline took, so that the rest can be told apart from it.

``python -m benchmarks.server.metered_server --meter FILE ...``: FILE holds, as a double, the CPU seconds of the
worker threads inside image decoding, network and beam search; the rest are the server's arguments. ``bare`` in place
of FILE is gRPC alone: a handler that answers at once, the floor under every server in Python.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from longhand_server import __main__ as server

server.choose_poller()

import grpc
import uvloop

from benchmarks.client.no_op_server import NoOp
from longhand.v1 import recognition_pb2_grpc
from longhand_server import pipeline
from longhand_server.ports import write_port
from longhand_server.recognizer import Recognizer

BARE = "bare"
_METER = struct.Struct("d")
P = ParamSpec("P")
R = TypeVar("R")


class Meter:
    """Adds up the CPU time that threads spend in some functions, in a file that another process reads."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(_METER.pack(0.0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _METER.size)
        self._lock = threading.Lock()
        self._seconds = 0.0

    def metered(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, with its CPU time counted."""

        def call(*arguments: P.args, **named: P.kwargs) -> R:
            begun = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                used = time.thread_time() - begun
                with self._lock:
                    self._seconds += used
                    _METER.pack_into(self._memory, 0, self._seconds)

        return call


def read_meter(path: Path) -> float:
    """CPU seconds so far."""
    seconds: float = _METER.unpack(path.read_bytes())[0]
    return seconds


async def _serve_bare(port_file: Path) -> None:
    bare = grpc.aio.server()
    recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(NoOp(), bare)
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    write_port(port_file, port)
    await bare.wait_for_termination()


def main() -> int:
    """Runs the server; returns its exit code."""
    meter_path: str = sys.argv.pop(sys.argv.index("--meter") + 1)
    sys.argv.remove("--meter")
    if meter_path == BARE:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_bare(Path(sys.argv[sys.argv.index("--port-file") + 1])))
        return 0
    meter = Meter(Path(meter_path))
    pipeline.load_line_image = meter.metered(pipeline.load_line_image)  # type: ignore[attr-defined]
    Recognizer.recognize = meter.metered(Recognizer.recognize)  # type: ignore[method-assign]
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
