"""Mixed calls for a while: no answer may be lost or crossed, and memory must not grow.

    python tests/benchmarks/server/soak.py --seconds 300

Good and bad images, unary, batch and stream, cancels and broken connections. The toy model of the tests says what
each image must read as, so every answer is checked against its own image. Prints a summary; exit code 1 on failure.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers

from helpers.bad_images import bad_images
from helpers.server_process import ServerProcess
from helpers.toy_model import ALPHABET, draw_image, write_bundle
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc

_CLIENTS = 6
_MAX_GROWTH = 1.10


class Soak:
    """What the clients share: images to send and counts of what came back."""

    def __init__(self, address: str, seconds: float) -> None:
        self.address = address
        self.end = time.monotonic() + seconds
        self.counts: collections.Counter[str] = collections.Counter()
        chooser = random.Random(1)
        texts = {" ".join("".join(chooser.choices(ALPHABET, k=n % 30 + 1)).split()) for n in range(300)} - {
            ""
        }
        self.good = [
            (text, draw_image(text, chooser.choice(("PNG", "TIFF", "BMP")))) for text in sorted(texts)
        ]
        self.bad = [data for data, _ in bad_images().values() if len(data) < 1_000_000]

    def check(self, wanted: str, got: str) -> None:
        """Counts a right answer; a wrong one ends the run."""
        if wanted != got:
            raise AssertionError(f"crossed or wrong: {wanted!r} was sent, {got!r} came back")
        self.counts["right"] += 1

    async def client(self, seed: int) -> None:
        """Opens connections, does something on each, and leaves, until the time is over."""
        chooser = random.Random(seed)
        while time.monotonic() < self.end:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(self.address, options) as channel:
                stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
                for _ in range(chooser.randrange(1, 12)):
                    kind = chooser.choice(
                        (self.unary, self.unary, self.batch, self.stream, self.cancel, self.leave)
                    )
                    await kind(stub, chooser)

    async def unary(
        self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, chooser: random.Random
    ) -> None:
        """Twenty calls at once, one in five bad."""

        async def one() -> None:
            if chooser.random() < 0.2:
                await self._bad(stub, chooser.choice(self.bad))
                return
            text, image = chooser.choice(self.good)
            with contextlib.suppress(_Overloaded):
                self.check(text, (await self._call(stub, image)).result.text)

        await asyncio.gather(*(one() for _ in range(20)))

    async def batch(
        self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, chooser: random.Random
    ) -> None:
        """One batch with bad images among the good ones."""
        chosen = [chooser.choice(self.good) for _ in range(24)]
        items = [pb.BatchRecognizeItem(request_id=str(n), image=image) for n, (_, image) in enumerate(chosen)]
        items.insert(
            chooser.randrange(24), pb.BatchRecognizeItem(request_id="bad", image=chooser.choice(self.bad))
        )
        try:
            outcomes = (await stub.BatchRecognize(pb.BatchRecognizeRequest(items=items))).outcomes
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            return
        assert [outcome.request_id for outcome in outcomes] == [item.request_id for item in items]
        for outcome in outcomes:
            if outcome.request_id == "bad":
                assert outcome.WhichOneof("outcome") == "error"
                self.counts["refused"] += 1
            else:
                self.check(chosen[int(outcome.request_id)][0], outcome.result.text)

    async def stream(
        self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, chooser: random.Random
    ) -> None:
        """A stream of 60 images, bad ones among them, in messages of one or of up to nine."""
        chosen = [chooser.choice(self.good) for _ in range(60)]
        groups = chooser.random() < 0.5

        async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
            yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig(group_answers=groups))
            unsent = collections.deque(enumerate(chosen))
            while unsent:
                request = pb.StreamingRecognizeRequest()
                for _ in range(min(len(unsent), chooser.randrange(1, 10) if groups else 1)):
                    n, (_, image) = unsent.popleft()
                    data = chooser.choice(self.bad) if n % 9 == 0 else image
                    message = request.images.images.add() if groups else request.image
                    message.request_id, message.image = str(n), data
                yield request

        seen = set()
        async for response in stub.StreamingRecognize(requests()):
            for answer in response.answers.answers if groups else (response,):
                n = int(answer.request_id)
                assert n not in seen, f"answered twice: {n}"
                seen.add(n)
                if n % 9 == 0:
                    assert answer.WhichOneof("outcome") == "error"
                    self.counts["refused"] += 1
                else:
                    self.check(chosen[n][0], answer.result.text)
        assert len(seen) == 60, f"{60 - len(seen)} answers of a stream are lost"

    async def cancel(
        self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, chooser: random.Random
    ) -> None:
        """Calls that nobody waits for."""
        calls = [stub.Recognize(pb.RecognizeRequest(image=chooser.choice(self.good)[1])) for _ in range(20)]
        await asyncio.sleep(chooser.random() * 0.02)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self.counts["cancelled"] += len(calls)

    async def leave(self, _: object, chooser: random.Random) -> None:
        """A connection that breaks in the middle of a stream."""
        async with grpc.aio.insecure_channel(
            self.address, [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = recognition_pb2_grpc.RecognitionServiceStub(channel).StreamingRecognize()
            await call.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))
            for _ in range(chooser.randrange(10)):
                item = pb.StreamingRecognizeImage(request_id="x", image=chooser.choice(self.good)[1])
                await call.write(pb.StreamingRecognizeRequest(image=item))
        self.counts["left"] += 1

    async def _call(
        self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, image: bytes
    ) -> pb.RecognizeResponse:
        try:
            return await stub.Recognize(pb.RecognizeRequest(image=image), timeout=60)
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            raise _Overloaded from error

    async def _bad(self, stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, data: bytes) -> None:
        try:
            await stub.Recognize(pb.RecognizeRequest(image=data), timeout=60)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                self.counts["refused"] += 1
                return
            self._refused(error)
            return
        raise AssertionError("a bad image was accepted")

    def _refused(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise error
        self.counts["overloaded"] += 1


class _Overloaded(Exception):  # noqa: N818 - no error: the server said to come back later
    pass


async def run(server: ServerProcess, seconds: float) -> tuple[collections.Counter[str], list[int]]:
    """Runs the clients; returns the counts and the server's memory over time in bytes."""
    soak = Soak(server.address, seconds)
    clients = [asyncio.create_task(soak.client(seed)) for seed in range(_CLIENTS)]
    memory: list[int] = []
    try:
        while not all(client.done() for client in clients):
            await asyncio.wait(clients, timeout=seconds / 60, return_when=asyncio.FIRST_EXCEPTION)
            memory.append(server.memory())
            for client in clients:
                if client.done() and client.exception() is not None:
                    client.result()
    finally:
        for client in clients:
            client.cancel()
    return soak.counts, memory


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ServerProcess(write_bundle(folder / "bundle"), folder / "run") as server:
            counts, memory = asyncio.run(run(server, seconds))
            code = server.stop()
    # The first quarter fills caches and pools.
    early = max(memory[: max(1, len(memory) // 4)])
    growth = max(memory[-max(1, len(memory) // 4) :]) / early
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    print(f"memory: {early / 1e6:.0f} MB at first, x{growth:.3f} at the end; exit code {code}")
    return 0 if growth < _MAX_GROWTH and code == 0 and counts["right"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
