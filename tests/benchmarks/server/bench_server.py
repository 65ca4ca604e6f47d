"""Measures the server against the bare pipeline, its overhead, its latency, and what it does under overload.

    python tests/benchmarks/server/bench_server.py --write server/BENCHMARK.md

Client and server share the machine's cores, so throughput is compared by CPU time: CPU time of the pipeline a line,
called in process, against CPU time of the server process a line. That ratio is what a machine of its own would give.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers

from benchmarks.server.load import Client, Lag, make_images, percentile, perfect_queue
from benchmarks.server.serving_cost import SHIPPED_MODEL, serving_cost
from helpers.server_process import ServerProcess
from longhand.v1 import recognition_pb2_grpc
from longhand_server.bundle import load_bundle
from longhand_server.image import load_line_image
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import choose_device, load_line_model

_QUEUE = 64
_REST = "\n<!-- below: written by hand -->\n"
_LOADS = (0.3, 0.5, 0.7, 0.9)
_LOAD_S = 8


@dataclass
class Report:
    """Rows of the table: what, target, measured."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    curve: list[tuple[float, float, float]] = field(default_factory=list)  # lines/s, p50 and p99 in ms
    model: str = ""

    def add(self, what: str, target: str, measured: str) -> None:
        """Adds a row and shows it."""
        self.rows.append((what, target, measured))
        print(f"{what}: {measured} (target {target})", flush=True)

    def text(self, page: Path) -> str:
        """The page in Markdown; what stands below the measurements there stays."""
        table = "\n".join(f"| {what} | {target} | {measured} |" for what, target, measured in self.rows)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        rest = page.read_text(encoding="utf-8").partition(_REST)[2] if page.exists() else ""
        return (
            "# The server, measured\n\n"
            "Made by `make bench-server` (tests/benchmarks/server/bench_server.py). Client and server share the\n"
            "machine, so throughput is compared by CPU time: of the pipeline called in process, with as many\n"
            "threads, and of the server process. The cost of serving is what a server's process uses beside the\n"
            "CPU time that its threads spend in the pipeline (serving_cost.py, a JPEG of 20 kB).\n\n"
            f"Machine: {os.cpu_count()} x {_cpu_name()}, Python {platform.python_version()}, "
            f"{date.today().isoformat()}, load average when done {load} (above 3: other work ran beside this, which\n"
            f"stretches every latency below). Model: {self.model}.\n\n"
            f"| what | target | measured |\n|---|---|---|\n{table}\n\n"
            f"![latency against load](BENCHMARK.png)\n{_REST}{rest}"
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


def pipeline_cpu(
    model: Path, images: list[bytes], lines: int, device: str, threads: int = 1
) -> tuple[float, str]:
    """CPU seconds a line of the pipeline called in process, and the model's name.

    Args:
        model: The bundle.
        images: What is read, in turn.
        lines: Lines in all.
        device: Where the network runs.
        threads: Lines that are read at the same time.
    """
    bundle = load_bundle(model)
    recognizer = Recognizer(bundle, load_line_model(bundle, choose_device(device)))
    options = [RecognitionOptions()]
    cv2.setNumThreads(1)  # as in the server

    def read(index: int) -> None:
        recognizer.recognize([load_line_image(images[index % len(images)], bundle.line)], options)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(len(images))))
        begun = time.process_time()
        list(pool.map(read, range(lines)))
        used = time.process_time() - begun
    return used / lines, f"{bundle.name} {bundle.version}"


async def measure(server: ServerProcess, images: list[bytes], arguments: argparse.Namespace) -> Report:
    """Everything but the metered cost of serving."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        client = Client(recognition_pb2_grpc.RecognitionServiceStub(channel), images)
        await client.unary(4 * len(images))
        report = Report()
        await _compare(server, client, images, arguments, report)
        unloaded = [await client.one(number) for number in range(40)]
        p50 = statistics.median(unloaded) * 1000
        begun = time.perf_counter()
        await client.unary(arguments.lines)
        capacity = arguments.lines / (time.perf_counter() - begun)
        report.add("capacity with a client on the same cores", "", f"{capacity:.0f} lines/s")
        lag = Lag()
        async with lag:
            for share in _LOADS:
                # One pause of the machine makes the p99 of a run; of three it does not make the median.
                runs = [(await client.open_loop(share * capacity, _LOAD_S))[0] for _ in range(3)]
                p50s, p99s = ([percentile(run, place) for run in runs] for place in (0.5, 0.99))
                report.curve.append((share * capacity, statistics.median(p50s), statistics.median(p99s)))
        p99 = report.curve[_LOADS.index(0.7)][2]
        report.add("unloaded p50", "", f"{p50:.0f} ms")
        report.add(
            "p99 at 70 % load (median of 3 runs)", "<= 3x unloaded p50", f"{p99:.0f} ms ({p99 / p50:.1f}x)"
        )
        paced = [(await client.open_loop(0.7 * capacity, _LOAD_S, even=True))[0] for _ in range(3)]
        p99 = statistics.median(percentile(run, 0.99) for run in paced)
        report.add("the same, calls at even intervals", "", f"{p99:.0f} ms ({p99 / p50:.1f}x)")
        cores = os.cpu_count() or 1
        least = percentile(perfect_queue(unloaded, cores, 0.7), 0.99)
        report.add(
            f"the same of calls at random in a queue that costs nothing, {cores} at a time (simulated)",
            "",
            f"{least:.0f} ms ({least / p50:.1f}x)",
        )
        report.add(
            "the client's own timers meanwhile, late by p99", "", f"{percentile(lag.seconds, 0.99):.0f} ms"
        )
        await _overload(server, client, capacity, report)
        return report


async def _compare(
    server: ServerProcess, client: Client, images: list[bytes], arguments: argparse.Namespace, report: Report
) -> None:
    """CPU time a line: the pipeline in process with as many threads as the server has, and the server.

    They take turns, and the least of three counts: what else the machine does can only add to it.
    """
    pipeline, unary, stream, own = [], [], [], []
    for _ in range(3):
        seconds, report.model = await asyncio.to_thread(
            pipeline_cpu, arguments.model, images, arguments.lines, arguments.device, os.cpu_count() or 1
        )
        pipeline.append(seconds)
        mine = time.process_time()
        unary.append(await _cpu_of(server, lambda: client.unary(arguments.lines)))
        own.append((time.process_time() - mine) / arguments.lines)
        stream.append(await _cpu_of(server, lambda: client.stream(arguments.lines)))
    base = min(pipeline)
    report.add("CPU of the pipeline in process, a line", "", f"{base * 1000:.1f} ms")
    for name, used in (("unary call", min(unary)), ("streamed line", min(stream))):
        report.add(f"server CPU, a {name}", "", f"{used * 1000:.1f} ms")
        report.add(f"throughput against the pipeline, {name}", ">= 90 %", f"{base / used:.0%}")
    report.add("CPU of the client, a unary call (not counted above)", "", f"{min(own) * 1000:.2f} ms")


async def _cpu_of(server: ServerProcess, work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    before, lines = server.cpu_seconds(), await _lines_of(server)
    await work()
    return (server.cpu_seconds() - before) / (await _lines_of(server) - lines)


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
    before, lag = server.memory(), Lag()
    async with lag, grpc.aio.insecure_channel(server.address) as channel:
        probes = asyncio.create_task(_probe(channel))
        answered, refused = await client.open_loop(5 * capacity, seconds)
        probes.cancel()
    probed = await probes
    after = server.memory()
    worth = _QUEUE / capacity * 1000
    report.add(f"overload 5x for {seconds} s: memory", "within 10 %", f"x{after / before:.2f}")
    share = len(refused) / (len(answered) + len(refused))
    report.add("overload: refused", "", f"{share:.0%} of {len(answered) + len(refused)}")
    p99 = percentile(answered, 0.99)
    report.add(
        "overload: p99 of accepted calls", f"<= 2x the queue's worth ({2 * worth:.0f} ms)", f"{p99:.0f} ms"
    )
    for what, target, values in (
        ("overload: refusals, p50 / p99", "< 50 ms", refused),
        ("overload: health checks, which do nothing, p50 / p99", "", probed),
        ("overload: the client's own timers, late by p50 / p99", "", lag.seconds),
    ):
        report.add(what, target, f"{percentile(values, 0.5):.0f} / {percentile(values, 0.99):.0f} ms")
    answered, refused = await client.open_loop(0.5 * capacity, 5)
    report.add("afterwards at half load: refused", "0", str(len(refused)))


async def _probe(channel: grpc.aio.Channel) -> list[float]:
    """Seconds that health checks take, until this is cancelled."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    seconds: list[float] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            begun = time.perf_counter()
            await health.Check(health_pb2.HealthCheckRequest())
            seconds.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)
    return seconds


def add_serving_cost(arguments: argparse.Namespace, report: Report) -> None:
    """What serving costs beyond the pipeline, from a server that meters its pipeline."""
    # More lines than a stream has on its way at once: it then goes on in groups.
    costs = serving_cost(arguments.model, 2 * arguments.lines, 3)
    for kind, most in (("unary call", 0.5), ("streamed line", 0.25)):
        cost = costs[kind]
        report.add(
            f"server CPU beyond the pipeline, a {kind}", f"<= {most} ms", f"{cost.serving * 1000:.2f} ms"
        )
        report.add(f"the same of the plainest server, a {kind}", "", f"{cost.plain * 1000:.2f} ms")
        share = cost.pipeline / (cost.pipeline + cost.serving)
        report.add(f"pipeline's share of the server's CPU, {kind}", ">= 90 %", f"{share:.1%}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--device", default="cpu", help="where both the pipeline and the server compute")
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--metrics-port", "0", "--max-queue", str(_QUEUE), "--device", arguments.device]
        with ServerProcess(arguments.model, Path(folder), *options) as server:
            report = asyncio.run(measure(server, make_images(), arguments))
    if arguments.device == "cpu":  # on a GPU the stages have threads of their own
        add_serving_cost(arguments, report)
    if arguments.write:
        arguments.write.write_text(report.text(arguments.write), encoding="utf-8")
        draw(report.curve, arguments.write.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
