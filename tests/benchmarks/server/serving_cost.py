"""What serving costs beyond the pipeline: CPU time of the server process that is not the pipeline's own, a line.

    python tests/benchmarks/server/serving_cost.py

The pipeline takes a hundred times as long as the rest, so a difference of two measurements would tell little. Here
a server notes the CPU time that its worker threads spend in the pipeline, by their own clocks (metered_server.py),
and what the process used besides is the cost. Beside it, metered likewise, stands the plainest server that could be.
The runs take turns; the least of each counts, since what else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers

from benchmarks.server.metered_server import read_meter
from helpers.server_process import ServerProcess
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_client import AsyncRecognizerClient

Stub: TypeAlias = "recognition_pb2_grpc.RecognitionServiceAsyncStub"
_ROOT = Path(__file__).parents[3]
SHIPPED_MODEL = _ROOT / "server" / "longhand_server" / "models" / "en"
_SAMPLE = _ROOT / "examples" / "sample_line.png"
_AT_ONCE = 8
_METERED = ("benchmarks.server.metered_server",)


def make_image() -> bytes:
    """The repository's sample line as a JPEG of about 20 kB."""
    grey = cv2.imread(str(_SAMPLE), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    done, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 96])
    assert done
    return data.tobytes()


async def unary(address: str, image: bytes, lines: int) -> None:
    """Single calls, eight at a time."""
    numbers = iter(range(lines))
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Stub = recognition_pb2_grpc.RecognitionServiceStub(channel)

        async def loop() -> None:
            for _ in numbers:
                await stub.Recognize(pb.RecognizeRequest(image=image))

        await asyncio.gather(*(loop() for _ in range(_AT_ONCE)))


async def streamed(address: str, image: bytes, lines: int) -> None:
    """One stream with all lines, as our client sends it: in groups, where the server knows them."""
    async with AsyncRecognizerClient(address) as client:
        async for outcome in client.recognize_stream(image for _ in range(lines)):
            outcome.result()


async def streamed_singly(address: str, image: bytes, lines: int) -> None:
    """One stream with all lines, each in a message of its own."""

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        for number in range(lines):
            item = pb.StreamingRecognizeImage(request_id=str(number), image=image)
            yield pb.StreamingRecognizeRequest(image=item)

    async with grpc.aio.insecure_channel(address) as channel:
        stub: Stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        answers = [answer.WhichOneof("outcome") async for answer in stub.StreamingRecognize(requests())]
    assert answers == ["result"] * lines, f"{answers.count('result')} of {lines}"


KINDS: dict[str, Callable[[str, bytes, int], Coroutine[Any, Any, None]]] = {
    "unary call": unary,
    "streamed line": streamed,
    "streamed line, one a message": streamed_singly,
}


@dataclass
class Cost:
    """CPU seconds a line: of the pipeline, of serving beyond it, and of the plainest server beyond it."""

    pipeline: float
    serving: float
    plain: float


class _Runs:
    """Runs against one server."""

    def __init__(self, server: ServerProcess, meter: Path) -> None:
        self._server = server
        self._meter = meter
        self.best: dict[str, tuple[float, float]] = {}

    async def run(self, kind: str, image: bytes, lines: int) -> None:
        """Sends lines; keeps the least CPU time beyond the pipeline, with the pipeline's beside it."""
        before, metered = self._server.thread_seconds(), read_meter(self._meter)
        await KINDS[kind](self._server.address, image, lines)
        pipeline = (read_meter(self._meter) - metered) / lines
        serving = (self._server.thread_seconds() - before) / lines - pipeline
        self.best[kind] = min(self.best.get(kind, (serving, pipeline)), (serving, pipeline))


def serving_cost(model: Path, lines: int, rounds: int, *options: str) -> dict[str, Cost]:
    """The cost of a line by kind of call.

    Args:
        model: The bundle that is served.
        lines: Lines in one run.
        rounds: Runs of each kind that count; one more before them only warms up.
        options: Further arguments of the server.
    """
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    image = make_image()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)

        def start(name: str, *arguments: str) -> _Runs:
            meter = folder / f"{name}.meter"
            module = (*_METERED, "--meter", str(meter))
            server = ServerProcess(model, folder / name, *arguments, module=module, environment=environment)
            return _Runs(stack.enter_context(server), meter)

        ours = start("ours", "--device", "cpu", "--max-queue", "5000", *options)
        plain = start("plain", "--plain")
        for turn in range(rounds + 1):
            for kind in KINDS:
                asyncio.run(ours.run(kind, image, lines))
                asyncio.run(plain.run(kind, image, lines))
            if turn == 0:
                ours.best.clear()
                plain.best.clear()
        return {kind: Cost(ours.best[kind][1], ours.best[kind][0], plain.best[kind][0]) for kind in KINDS}


def main() -> int:
    """The command line; what it does not know goes to the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=8)
    arguments, options = parser.parse_known_args()
    costs = serving_cost(arguments.model, arguments.lines, arguments.rounds, *options)
    for kind, cost in costs.items():
        print(
            f"{kind}: {cost.serving * 1000:.3f} ms beyond the pipeline's {cost.pipeline * 1000:.2f} ms; "
            f"the plainest server: {cost.plain * 1000:.3f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
