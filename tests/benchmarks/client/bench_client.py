"""What the client costs, against servers that do nothing: python tests/benchmarks/client/bench_client.py [FILES].

Costs are CPU seconds of the client alone, which other work on the machine touches less than the clock. What is
compared takes turns; medians are printed. `make bench-clients` runs it; clients/BENCHMARK.md has what came out.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from helpers.web_process import free_port
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client import AsyncRecognizerClient, LonghandError, RecognizerClient
from longhand_client.bench.load import Load, due_times, event_loop, measure

IMAGE = bytes(20_000)
COMMAND_LINE = Path(__file__).parents[3] / "clients" / "cli.py"
RATE, SECONDS, ROUNDS = 500.0, 4.0, 7
# Servers that the CPU does not limit: places, and seconds that a line takes. (The default model does about 60 lines/s
# on two cores.)
CAPACITIES = ((2, 0.02), (4, 0.01))


@contextmanager
def no_op_server(*arguments: object) -> Iterator[str]:
    """Runs the server that does nothing; gives its address."""
    port = free_port()
    script = Path(__file__).with_name("no_op_server.py")
    server = subprocess.Popen([sys.executable, str(script), str(port), *map(str, arguments)])
    address = f"127.0.0.1:{port}"
    try:
        with RecognizerClient(address) as client:
            for _ in range(100):
                try:
                    client.model()
                    break
                except LonghandError:
                    time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def images(count: int) -> Iterator[bytes]:
    """The same 20 kB again and again."""
    return (IMAGE for _ in range(count))


def stream_bare(address: str, count: int) -> None:
    """gRPC's generated stub alone, for comparison."""

    def requests() -> Iterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        for image in images(count):
            yield pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(request_id="1", image=image))

    with grpc.insecure_channel(address) as channel:
        for _ in rpc.RecognitionServiceStub(channel).StreamingRecognize(requests()):
            pass


def stream_sync(address: str, count: int) -> None:
    """The synchronous stream."""
    with RecognizerClient(address) as client:
        for outcome in client.recognize_stream(images(count)):
            outcome.result()


def stream_async(address: str, count: int) -> None:
    """The asynchronous stream."""

    async def read() -> None:
        async with AsyncRecognizerClient(address) as client:
            async for outcome in client.recognize_stream(images(count)):
                outcome.result()

    asyncio.run(read())


def unary(address: str, count: int) -> None:
    """One call after the other."""
    with RecognizerClient(address) as client:
        for image in images(count):
            client.recognize(image)


def report_rates(address: str, count: int) -> None:
    """Prints the images that a CPU second of the client carries."""
    ways: dict[str, tuple[Callable[[str, int], None], int]] = {
        "bare stub's stream": (stream_bare, count),
        "stream, synchronous": (stream_sync, count),
        "stream, asyncio": (stream_async, count),
        "single calls, synchronous": (unary, count // 4),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (run, images_sent) in ways.items():
            begun = time.process_time()
            run(address, images_sent)
            rates[name].append(images_sent / (time.process_time() - begun))
    for name, values in rates.items():
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{name:28}{statistics.median(values):7.0f} images per CPU second {spread}")


@contextmanager
def folder_of(count: int) -> Iterator[str]:
    """A folder with so many files."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            (Path(folder) / f"{number:06}.png").write_bytes(IMAGE)
        yield folder


def read_folder(folder: str, address: str) -> tuple[float, float, float]:
    """Reads a folder with the command line.

    Returns:
        Seconds by the clock from the first reading to the end, CPU seconds, and the most memory in MiB.
    """
    out = Path(folder) / "out.tsv"
    command = [sys.executable, str(COMMAND_LINE), folder, "--address", address, "--tsv", "--out", str(out)]
    process = subprocess.Popen(command)
    while not out.exists() or out.stat().st_size < 200:
        time.sleep(0.005)
    begun, memory = time.perf_counter(), 0.0
    # wait4 would give the memory of this process where that was larger, from before the child's exec.
    while found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
        memory = max(memory, int(found[1]) / 1024)
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    if status:
        raise SystemExit(f"the command line failed with status {status}")
    out.unlink()
    return wall, usage.ru_utime + usage.ru_stime, memory


def report_command_line(address: str, count: int) -> None:
    """Prints what the command line costs, and its memory with few and with many files."""
    for files in (count // 10, count):
        with folder_of(files) as folder:
            _, cpu, memory = read_folder(folder, address)
        print(f"command line, {files:6} files  {files / cpu:7.0f} images per CPU second, {memory:.0f} MiB")


def report_capacity(count: int, places: int, seconds: float) -> None:
    """Prints which share of a server's capacity the command line uses."""
    with (
        no_op_server(places, seconds) as address,
        folder_of(count) as folder,
        RecognizerClient(address) as client,
    ):
        client.model()
        wall, _, _ = read_folder(folder, address)
        share = float(client.model().description)
    name = f"server of {places / seconds:.0f} lines/s at most"
    print(
        f"command line, {count} files, {name}: {100 * share:.1f} % of its capacity, {count / wall:.0f} lines/s"
    )


async def pacing(one: Callable[[], Awaitable[object]] | None) -> float:
    """Starts one call at each arrival; returns the CPU's share of the time."""
    begun, cpu = time.perf_counter(), time.process_time()
    running: set[asyncio.Task[object]] = set()

    async def call() -> None:
        if one is not None:
            await one()

    async for _ in due_times(RATE, 1, begun + SECONDS):
        task: asyncio.Task[object] = asyncio.create_task(call())
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    return (time.process_time() - cpu) / (time.perf_counter() - begun)


def bare_calls(address: str) -> float:
    """The generated stub alone, at the same times."""

    async def run() -> float:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: rpc.RecognitionServiceAsyncStub = rpc.RecognitionServiceStub(channel)
            await stub.GetModel(pb.GetModelRequest())
            return await pacing(lambda: stub.Recognize(pb.RecognizeRequest(image=IMAGE), timeout=30))

    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(run())


def waiting_alone(address: str) -> float:
    """A task at each arrival, which does nothing."""
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(pacing(None))


def benchmark(address: str) -> float:
    """The benchmark itself."""
    sample = measure(Load(address, rate=RATE, duration_s=SECONDS, warm_up_s=0.5), [IMAGE])
    return sample.cpu_s / sample.duration_s


def report_overhead(address: str) -> None:
    """Prints what the benchmark costs at 500 lines/s, and how much of it gRPC's generated stub costs alone."""
    ways = {"waiting": waiting_alone, "bare": bare_calls, "benchmark": benchmark}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            shares[name].append(100 * run(address))
    waiting, bare, whole = (statistics.median(shares[name]) for name in ways)
    print(f"benchmark at {RATE:.0f} lines/s: {whole:.1f} % of a core, all in all")
    print(f"    waiting for the moments to send, one empty task each: {waiting:.1f} %")
    print(f"    bare gRPC calls at the same moments: {bare - waiting:.1f} % more")
    print(f"    so the benchmark's own part is {whole - (bare - waiting):.1f} %")


def main() -> None:
    """Measures everything once."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with no_op_server() as address:
        report_rates(address, count)
        report_overhead(address)
        report_command_line(address, count)
    for places, seconds in CAPACITIES:
        report_capacity(count, places, seconds)


if __name__ == "__main__":
    main()
