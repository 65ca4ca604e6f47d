"""A server that notes the CPU time that its pipeline takes, so that the rest can be told apart from it.

``python -m benchmarks.server.metered_server --meter FILE ...``: the real server; FILE holds, as a double, the CPU
seconds of its worker threads inside image decoding, network and beam search. The rest are the server's arguments.
With ``--plain`` before them it is the plainest server that could be: gRPC's handlers hand each image to an executor's
threads and send the text back. No queue, no checks, no limits, no counts: what a server in Python costs at least.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from longhand_server import __main__ as server

server.choose_poller()

import cv2
import grpc
import uvloop

from benchmarks.client.no_op_server import NoOp
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server import pipeline
from longhand_server.bundle import load_bundle
from longhand_server.image import load_line_image
from longhand_server.options import RecognitionOptions
from longhand_server.ports import write_port
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import load_line_model

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


class PlainServicer(NoOp):
    """Reads every image in one of a few threads.

    Args:
        read: Reads a file's text.
        threads: How many images are read at a time.
    """

    def __init__(self, read: Callable[[bytes], str], threads: int) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(threads)
        self._loop = asyncio.get_running_loop()

    async def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:
        text = await self._loop.run_in_executor(self._pool, self._read, request.image)
        return pb.RecognizeResponse(result=pb.RecognitionResult(text=text))

    async def StreamingRecognize(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        ahead: asyncio.Queue[tuple[str, asyncio.Future[str]] | None] = asyncio.Queue(8)

        async def take() -> None:
            async for request in request_iterator:
                if request.HasField("image"):
                    text = self._loop.run_in_executor(self._pool, self._read, request.image.image)
                    await ahead.put((request.image.request_id, text))
            await ahead.put(None)

        taking = self._loop.create_task(take())
        while (item := await ahead.get()) is not None:
            result = pb.RecognitionResult(text=await item[1])
            yield pb.StreamingRecognizeResponse(request_id=item[0], result=result)
        await taking


async def _serve_plainly(meter: Meter, model: Path, port_file: Path) -> None:
    bundle = load_bundle(model)
    recognizer = Recognizer(bundle, load_line_model(bundle, "cpu"))
    options = [RecognitionOptions()]

    def read(image: bytes) -> str:
        return recognizer.recognize([load_line_image(image, bundle.line)], options)[0].text

    cv2.setNumThreads(1)  # as in the real one
    plain = grpc.aio.server()
    servicer = PlainServicer(meter.metered(read), os.cpu_count() or 1)
    recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(servicer, plain)
    port = plain.add_insecure_port("127.0.0.1:0")
    await plain.start()
    write_port(port_file, port)
    await plain.wait_for_termination()


def _take(flag: str) -> str:
    """The value of an argument, which is taken away."""
    place = sys.argv.index(flag)
    _, value = sys.argv[place : place + 2]
    del sys.argv[place : place + 2]
    return value


def main() -> int:
    """Runs the server; returns its exit code."""
    meter = Meter(Path(_take("--meter")))
    if "--plain" in sys.argv:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_plainly(meter, Path(_take("--model")), Path(_take("--port-file"))))
        return 0
    pipeline.load_line_image = meter.metered(pipeline.load_line_image)  # type: ignore[attr-defined]
    Recognizer.recognize = meter.metered(Recognizer.recognize)  # type: ignore[method-assign]
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
