"""Measures what a machine with a GPU reads: each stage alone, the pipeline in process, and the server over gRPC.

    python tests/benchmarks/server/bench_gpu.py --write gpu.json

Client processes share the machine with the server. Lines are those of the other benchmarks of the server (the
repository's sample, cut to four widths).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers

from benchmarks.server.load import make_images
from benchmarks.server.serving_cost import SHIPPED_MODEL
from helpers.process_tree import cpu_seconds, process_tree
from helpers.server_process import ServerProcess
from longhand_client import AsyncRecognizerClient
from longhand_server.bundle import load_bundle
from longhand_server.config import BatchingConfig, ImageLimits
from longhand_server.image import LineImage, load_line_image
from longhand_server.options import RecognitionOptions
from longhand_server.pipeline import make_pipeline
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import choose_device, load_line_model

_BATCHES = (64, 256)
_AT_ONCE = 512
# Streams of one client process; each has a connection of its own, so that the server's workers share them.
_STREAMS = 4


class Stages:
    """The stages of the pipeline, each by itself, on all that the machine has."""

    def __init__(self, model: Path, device: str, cores: int) -> None:
        bundle = load_bundle(model)
        self.recognizer = Recognizer(
            bundle, load_line_model(bundle, choose_device(device)), decoder_threads=cores
        )
        self.images = make_images()
        self._cores = cores
        cv2.setNumThreads(1)

    def _load(self, number: int) -> LineImage:
        return load_line_image(self.images[number % len(self.images)], self.recognizer.bundle.line)

    def prepare(self, seconds: float) -> float:
        """Lines/s of decoding and normalising image files on every core."""
        with ThreadPoolExecutor(self._cores) as pool:

            def some(count: int) -> None:
                list(pool.map(self._load, range(count), chunksize=8))

            return _rate(lambda: some(16 * self._cores), 16 * self._cores, seconds)

    def network(self, size: int, seconds: float) -> float:
        """Lines/s of the network, in batches of one width, results in the host's memory."""
        batches = [[self._load(number).pixels] * size for number in range(len(self.images))]

        def every() -> None:
            for batch in batches:
                self.recognizer.line_model.log_probs(batch)

        return _rate(every, sum(map(len, batches)), seconds)

    def beam(self, seconds: float) -> float:
        """Lines/s of the beam search with both language models on every core."""
        lines = [self._load(number) for number in range(len(self.images))]
        log_probs, _ = self.recognizer.infer(lines)
        lines, log_probs = lines * self._cores, log_probs * self._cores
        options = [RecognitionOptions()] * len(lines)
        return _rate(lambda: self.recognizer.transcribe(lines, log_probs, 0.0, options), len(lines), seconds)

    async def pipeline(self, seconds: float) -> float:
        """Lines/s of the server's pipeline without gRPC."""
        pipeline = make_pipeline(
            self.recognizer,
            BatchingConfig(max_queue=2 * _AT_ONCE),
            ImageLimits(),
            threads=self._cores,
        )
        counted, end = 0, 0.0

        async def loop(number: int) -> None:
            nonlocal counted
            while time.monotonic() < end:
                await pipeline.recognize(
                    self.images[number % len(self.images)], RecognitionOptions(), wait=True
                )
                counted += 1

        for length in (0.3 * seconds, seconds):  # the first is for warming up
            counted, begun = 0, time.monotonic()
            end = begun + length
            await asyncio.gather(*(loop(number) for number in range(_AT_ONCE)))
            rate = counted / (time.monotonic() - begun)
        await pipeline.close()
        return rate


def _rate(work: Callable[[], object], lines: int, seconds: float) -> float:
    work()
    work()
    done, begun = 0, time.monotonic()
    while time.monotonic() < begun + seconds:
        work()
        done += lines
    return done / (time.monotonic() - begun)


async def client(address: str, seconds: float) -> int:
    """Streams until the time is up; the lines answered in its last four fifths."""
    images = make_images()
    begun = time.monotonic()
    end, answered = begun + seconds, 0

    def sources() -> Iterator[bytes]:
        for number in itertools.count():
            if time.monotonic() >= end:
                return
            yield images[number % len(images)]

    async def stream(number: int) -> None:
        nonlocal answered
        # Clients with the same settings share a connection.
        async with AsyncRecognizerClient(address, keepalive_s=60.0 + number) as client:
            async for outcome in client.recognize_stream(sources()):
                outcome.result()
                if begun + 0.2 * seconds < time.monotonic() < end:
                    answered += 1

    await asyncio.gather(*(stream(number) for number in range(_STREAMS)))
    return answered


def over_grpc(
    model: Path, options: Sequence[str], clients: int, seconds: float, add: Callable[[str, float], None]
) -> None:
    """Lines/s over gRPC, with client processes on the same machine, and what the server takes for a line."""
    with tempfile.TemporaryDirectory() as folder, ServerProcess(model, Path(folder), *options) as server:
        command = [sys.executable, __file__, "--client", server.address, "--seconds", str(seconds)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
        time.sleep(0.5 * seconds)  # clients load their modules, and the server warms up
        pids = process_tree(server.process.pid)
        before, begun = cpu_seconds(pids), time.monotonic()
        time.sleep(0.4 * seconds)
        card = _card_load()
        cores = (cpu_seconds(pids) - before) / (time.monotonic() - begun)
        rate = sum(int(process.communicate()[0] or 0) for process in running) / (0.8 * seconds)
        name = f"streamed over gRPC, {' '.join(options)}"
        add(name, rate)
        print(
            f"    {cores:.1f} cores for the server, {1000 * cores / rate:.2f} ms a line; card: {card}",
            flush=True,
        )


def _card_load() -> str:
    """How much of the time the card computes, and the memory it has given away, as its driver says."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "no nvidia-smi"


def _measure_stages(
    model: Path, device: str, seconds: float, cores: int, add: Callable[[str, float], None]
) -> None:
    stages = Stages(model, device, cores)
    add("decode and normalise alone", stages.prepare(seconds))
    for size in _BATCHES if stages.recognizer.line_model.device != "cpu" else (1,):
        add(f"network alone, batches of {size}", stages.network(size, seconds))
    add("beam search alone", stages.beam(seconds))
    add("pipeline in process", asyncio.run(stages.pipeline(seconds)))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8], help="server processes")
    parser.add_argument("--clients", type=int, default=4, help="client processes")
    parser.add_argument("--server", default="", help="further options of the server, in one word")
    parser.add_argument("--only-server", action="store_true", help="leave the stages out")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(asyncio.run(client(arguments.client, arguments.seconds)))
        return 0
    cores = os.cpu_count() or 1
    rates: dict[str, float] = {}

    def add(name: str, rate: float) -> None:
        rates[name] = rate
        print(f"{name}: {rate:.0f} lines/s", flush=True)
        if arguments.write:
            arguments.write.write_text(json.dumps({"cores": cores, "lines/s": rates}, indent=2) + "\n")

    if not arguments.only_server:
        _measure_stages(arguments.model, arguments.device, arguments.seconds, cores, add)
    for workers in arguments.workers:
        options = ["--device", arguments.device, "--workers", str(workers), *arguments.server.split()]
        over_grpc(arguments.model, options, arguments.clients, 2 * arguments.seconds, add)
    return 0


if __name__ == "__main__":
    sys.exit(main())
