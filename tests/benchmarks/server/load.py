"""What the server's benchmarks send, and how they time it."""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import cv2
import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc

ROOT = Path(__file__).parents[3]
_SHARES = (0.35, 0.55, 0.75, 1.0)


def make_images() -> list[bytes]:
    """PNG lines of several widths, cut from the repository's sample."""
    grey = cv2.imread(str(ROOT / "examples" / "sample_line.png"), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    images = []
    for share in _SHARES:
        done, data = cv2.imencode(".png", grey[:, : int(grey.shape[1] * share)])
        assert done
        images.append(data.tobytes())
    return images


class Client:
    """Sends images over one connection and measures."""

    def __init__(self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, images: list[bytes]) -> None:
        self._stub = stub
        self._images = images

    async def unary(self, lines: int, at_once: int = 8) -> None:
        """Closed loop of single calls."""
        numbers = iter(range(lines))

        async def loop() -> None:
            for number in numbers:
                await self.one(number)

        await asyncio.gather(*(loop() for _ in range(at_once)))

    async def one(self, number: int) -> float:
        """One call; returns its seconds."""
        begun = time.perf_counter()
        await self._stub.Recognize(pb.RecognizeRequest(image=self._images[number % len(self._images)]))
        return time.perf_counter() - begun

    async def stream(self, lines: int) -> None:
        """One stream with all lines."""

        async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
            yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
            for number in range(lines):
                item = pb.StreamingRecognizeImage(
                    request_id=str(number), image=self._images[number % len(self._images)]
                )
                yield pb.StreamingRecognizeRequest(image=item)

        answers = 0
        async for answer in self._stub.StreamingRecognize(requests()):
            assert answer.WhichOneof("outcome") == "result"
            answers += 1
        assert answers == lines

    async def open_loop(
        self, rate: float, seconds: float, *, even: bool = False
    ) -> tuple[list[float], list[float]]:
        """Calls at random times (Poisson) or at even intervals, ``rate`` a second on average.

        Returns:
            Seconds from the intended time of sending to the answer: of answered and of refused calls.
        """
        answered: list[float] = []
        refused: list[float] = []

        async def one(number: int, due: float) -> None:
            try:
                await self.one(number)
                answered.append(time.perf_counter() - due)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                refused.append(time.perf_counter() - due)

        chooser = random.Random(1)
        tasks: list[asyncio.Task[None]] = []
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(len(tasks), due)))
            due += 1 / rate if even else chooser.expovariate(rate)
        await asyncio.gather(*tasks)
        return answered, refused


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies; milliseconds for seconds."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


class Lag:
    """How late this process's own timers come while it is entered: what the machine adds to every latency here."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __aenter__(self) -> Lag:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            due = time.perf_counter() + 0.01
            await asyncio.sleep(0.01)
            self.seconds.append(time.perf_counter() - due)


def perfect_queue(services: Sequence[float], servers: int, load: float, calls: int = 200_000) -> list[float]:
    """What random (Poisson) arrivals wait and take where queueing itself costs nothing: a simulation.

    Args:
        services: Times that calls take when nothing waits; drawn from at random.
        servers: Calls worked on at the same time, first come first served.
        load: Share of the time that each server works, below 1.
        calls: How many to simulate.

    Returns:
        Of each call, the time from its arrival to its answer, in the unit of ``services``.
    """
    chance = random.Random(1)
    rate = load * servers / statistics.fmean(services)
    free, now, taken = [0.0] * servers, 0.0, []
    for _ in range(calls):
        now += chance.expovariate(rate)
        done = max(now, heapq.heappop(free)) + chance.choice(services)
        heapq.heappush(free, done)
        taken.append(done - now)
    return taken
