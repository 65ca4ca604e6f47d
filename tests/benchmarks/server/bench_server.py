"""Measures the server against the bare pipeline, its overhead, its latency, and what it does under overload.

    python tests/benchmarks/server/bench_server.py --write server/BENCHMARK.md

Client and server share the machine's cores, so throughput is compared by CPU time: CPU time of the pipeline a line,
called in process, against CPU time of the server process a line. That ratio is what a machine of its own would give.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers

from helpers.server_process import ServerProcess
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server.bundle import load_bundle
from longhand_server.image import load_line_image
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import choose_device, load_line_model

_ROOT = Path(__file__).parents[3]
_SHARES = (0.35, 0.55, 0.75, 1.0)
_QUEUE = 64
_LOADS = (0.3, 0.5, 0.7, 0.9)


@dataclass
class Report:
    """Rows of the table: what, target, measured."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    curve: list[tuple[float, float, float]] = field(default_factory=list)  # lines/s, p50 and p99 in ms

    def add(self, what: str, target: str, measured: str) -> None:
        """Adds a row and shows it."""
        self.rows.append((what, target, measured))
        print(f"{what}: {measured} (target {target})", flush=True)

    def text(self, model: str) -> str:
        """The page, in Markdown."""
        table = "\n".join(f"| {what} | {target} | {measured} |" for what, target, measured in self.rows)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        return (
            "# The server, measured\n\n"
            "Made by `make bench-server` (tests/benchmarks/server/bench_server.py). Client and server share the\n"
            "machine, so throughput is compared by CPU time: of the bare pipeline, and of the server process.\n\n"
            f"Machine: {os.cpu_count()} x {_cpu_name()}, Python {platform.python_version()}, load average when done "
            f"{load} (other work than this runs on it where that is above 3). Model: {model}.\n\n"
            f"| what | target | measured |\n|---|---|---|\n{table}\n\n"
            "![latency against load](BENCHMARK.png)\n"
        )


def draw(curve: list[tuple[float, float, float]], path: Path) -> None:
    """Draws latency against load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    rates, p50, p99 = zip(*curve, strict=True)
    axes.plot(rates, p50, "o-", label="p50")
    axes.plot(rates, p99, "s-", label="p99")
    axes.set_xlabel("lines/s (random arrivals)")
    axes.set_ylabel("ms, from the intended time of sending")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=110)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def make_images() -> list[bytes]:
    """PNG lines of several widths, cut from the repository's sample."""
    grey = cv2.imread(str(_ROOT / "examples" / "sample_line.png"), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    images = []
    for share in _SHARES:
        done, data = cv2.imencode(".png", grey[:, : int(grey.shape[1] * share)])
        assert done
        images.append(data.tobytes())
    return images


def pipeline_cpu(model: Path, images: list[bytes], lines: int, device: str) -> tuple[float, str]:
    """CPU seconds a line of the pipeline called in process, on one thread, and the model's name."""
    bundle = load_bundle(model)
    recognizer = Recognizer(bundle, load_line_model(bundle, choose_device(device)))
    options = [RecognitionOptions()]

    def read(index: int) -> None:
        recognizer.recognize([load_line_image(images[index % len(images)], bundle.line)], options)

    for index in range(len(images)):
        read(index)
    begun = time.process_time()
    for index in range(lines):
        read(index)
    return (time.process_time() - begun) / lines, f"{bundle.name} {bundle.version}"


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

    async def open_loop(self, rate: float, seconds: float) -> tuple[list[float], list[float]]:
        """Calls at random times, ``rate`` a second on average.

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
            due += chooser.expovariate(rate)
        await asyncio.gather(*tasks)
        return answered, refused


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies; milliseconds for seconds."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


async def measure(
    server: ServerProcess, images: list[bytes], base: float, lines: int, report: Report
) -> None:
    """Fills the report."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        client = Client(stub, images)
        await client.unary(4 * len(images))
        unary = await _cpu_of(server, lambda: client.unary(lines))
        stream = await _cpu_of(server, lambda: client.stream(lines))
        report.add("CPU of the pipeline alone, a line", "", f"{base * 1000:.1f} ms")
        for name, used, most in (("unary call", unary, 0.5), ("streamed line", stream, 0.25)):
            report.add(f"server CPU, a {name}", "", f"{used * 1000:.1f} ms")
            report.add(
                f"overhead beyond the pipeline, a {name}", f"<= {most} ms", f"{(used - base) * 1000:.2f} ms"
            )
            report.add(f"throughput against the pipeline, {name}", ">= 90 %", f"{base / used:.0%}")

        unloaded = [await client.one(number) for number in range(40)]
        p50 = statistics.median(unloaded) * 1000
        begun = time.perf_counter()
        await client.unary(lines)
        capacity = lines / (time.perf_counter() - begun)
        report.add("capacity with a client on the same cores", "", f"{capacity:.0f} lines/s")
        for share in _LOADS:
            answered, _ = await client.open_loop(share * capacity, 15)
            report.curve.append((share * capacity, percentile(answered, 0.5), percentile(answered, 0.99)))
        p99 = report.curve[_LOADS.index(0.7)][2]
        report.add("unloaded p50", "", f"{p50:.0f} ms")
        report.add("p99 at 70 % load", "<= 3x unloaded p50", f"{p99:.0f} ms ({p99 / p50:.1f}x)")
        await _overload(server, client, capacity, report)


async def _cpu_of(server: ServerProcess, work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """The least CPU time of three runs: what else the machine does can only add to it."""
    used = []
    for _ in range(3):
        before, lines = server.cpu_seconds(), await _lines_of(server)
        await work()
        used.append((server.cpu_seconds() - before) / (await _lines_of(server) - lines))
    return min(used)


async def _lines_of(server: ServerProcess) -> float:
    """Images that the server has answered, by its own metrics."""
    url = next(line for line in server.text().splitlines() if line.startswith("metrics on ")).split()[-1]
    host, _, rest = url.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET /{rest} HTTP/1.0\r\n\r\n".encode())
    page = (await reader.read()).decode()
    writer.close()
    return sum(
        float(line.split()[-1]) for line in page.splitlines() if line.startswith("longhand_lines_total")
    )


async def _overload(
    server: ServerProcess, client: Client, capacity: float, report: Report, seconds: int = 60
) -> None:
    before = server.memory()
    answered, refused = await client.open_loop(5 * capacity, seconds)
    after = server.memory()
    worth = _QUEUE / capacity * 1000
    report.add(f"overload 5x for {seconds} s: memory", "within 10 %", f"x{after / before:.2f}")
    share = len(refused) / (len(answered) + len(refused))
    report.add("overload: refused", "", f"{share:.0%} of {len(answered) + len(refused)}")
    p99 = percentile(answered, 0.99)
    report.add(
        "overload: p99 of accepted calls", f"<= 2x the queue's worth ({worth:.0f} ms)", f"{p99:.0f} ms"
    )
    if refused:
        report.add(
            "overload: refusals, p50 / p99",
            "< 50 ms",
            f"{percentile(refused, 0.5):.0f} / {percentile(refused, 0.99):.0f} ms",
        )
    answered, refused = await client.open_loop(0.5 * capacity, 5)
    report.add("afterwards at half load: refused", "0", str(len(refused)))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=_ROOT / "server" / "longhand_server" / "models" / "en")
    parser.add_argument("--device", default="cpu", help="where both the pipeline and the server compute")
    parser.add_argument("--lines", type=int, default=150)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    images, report = make_images(), Report()
    base, model = min(
        pipeline_cpu(arguments.model, images, arguments.lines, arguments.device) for _ in range(3)
    )
    with tempfile.TemporaryDirectory() as folder:
        options = ["--metrics-port", "0", "--max-queue", str(_QUEUE), "--device", arguments.device]
        with ServerProcess(arguments.model, Path(folder), *options) as server:
            asyncio.run(measure(server, images, base, arguments.lines, report))
    if arguments.write:
        arguments.write.write_text(report.text(model), encoding="utf-8")
        draw(report.curve, arguments.write.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
