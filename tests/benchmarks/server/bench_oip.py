"""Compares one image a call by the Open Inference Protocol with our own unary call: same server, client and images.

    python tests/benchmarks/server/bench_oip.py

Both run in turns against one server, so that other work on the machine meets both alike; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers and benchmarks

from benchmarks.server.load import make_images
from helpers.server_process import ServerProcess
from longhand.oip import inference_pb2 as oip
from longhand.oip import inference_pb2_grpc
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc

Send = Callable[[bytes], Awaitable[object]]


def own_call(channel: grpc.aio.Channel) -> Send:
    """Our own Recognize."""
    stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
    return lambda image: stub.Recognize(pb.RecognizeRequest(image=image))


def oip_call(channel: grpc.aio.Channel) -> Send:
    """ModelInfer with one image."""
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)

    def send(image: bytes) -> Awaitable[object]:
        request = oip.ModelInferRequest(raw_input_contents=[struct.pack("<I", len(image)) + image])
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        return stub.ModelInfer(request)

    return send


async def run(send: Send, images: list[bytes], calls: int, at_once: int) -> float:
    """Calls in a closed loop; returns seconds."""
    numbers = iter(range(calls))

    async def loop() -> None:
        for number in numbers:
            await send(images[number % len(images)])

    begun = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(at_once)))
    return time.perf_counter() - begun


async def compare(server: ServerProcess, images: list[bytes], calls: int, rounds: int, at_once: int) -> None:
    """Prints lines/s and the server's CPU time a line of both, and the medians of the ratios of each round."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        ways = {"Recognize": own_call(channel), "ModelInfer": oip_call(channel)}
        for send in ways.values():
            await run(send, images, 2 * len(images), at_once)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            # Each goes first every other time.
            for name in list(ways) if number % 2 else list(ways)[::-1]:
                before = server.cpu_seconds()
                rates[name].append(calls / await run(ways[name], images, calls, at_once))
                cpu_ms[name].append((server.cpu_seconds() - before) / calls * 1000)
    for name in ways:
        print(
            f"concurrency {at_once:2d}, {name}: {statistics.median(rates[name]):.1f} lines/s, "
            f"{statistics.median(cpu_ms[name]):.2f} ms of the server's CPU a line"
        )
    pairs = [theirs / own for own, theirs in zip(rates["Recognize"], rates["ModelInfer"], strict=True)]
    costs = [own / theirs for own, theirs in zip(cpu_ms["Recognize"], cpu_ms["ModelInfer"], strict=True)]
    print(
        f"concurrency {at_once:2d}, ModelInfer against Recognize: throughput {statistics.median(pairs):.1%}, "
        f"by the server's CPU time {statistics.median(costs):.1%} (target >= 90 %; {rounds} rounds of {calls})"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="en")
    parser.add_argument("--calls", type=int, default=60, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(arguments.model, Path(folder), "--device", "cpu") as server,
    ):
        for at_once in (1, 16):
            asyncio.run(compare(server, make_images(), arguments.calls, arguments.rounds, at_once))
    return 0


if __name__ == "__main__":
    sys.exit(main())
