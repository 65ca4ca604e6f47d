"""Ray Serve against the plain server, our batcher against Ray's, and bulk against the bare pipeline.

    python tests/benchmarks/scale/bench_ray.py [serve] [batchers] [bulk]          (make bench-ray)

All by CPU time in one run, in turns, since other programs may share the machine; ratios are what counts.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from unittest.mock import Mock

import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/, for helpers and benchmarks

from benchmarks.server.bench_server import pipeline_cpu
from benchmarks.server.load import Client, make_images
from helpers.process_tree import cpu_seconds, process_tree
from helpers.ray_process import RayProcess, ray_config
from helpers.server_process import ServerProcess
from helpers.web_process import free_port
from longhand.v1 import recognition_pb2_grpc
from longhand_server.batching import DynamicBatcher
from longhand_server.config import BatchingConfig

_MODEL = Path(__file__).parents[3] / "server" / "longhand_server" / "models" / "en"
_ROUNDS, _LINES = 4, 48
_BULK_LINES, _CHUNK, _BULK_ROUNDS = 1200, 50, 2  # the default is 500 a chunk
# A network on a GPU, made up: 4 ms a batch and 1 us a column of a line, padding included.
_BATCH_S, _COLUMN_S = 0.004, 1e-6
_BATCH_SIZE = 64


async def serve(folder: Path) -> None:
    """CPU time a line of both servers, unary and in a stream."""
    config = ray_config(_MODEL, free_port(), replicas=1)
    with RayProcess(config, folder / "ray") as ray, ServerProcess(_MODEL, folder / "plain") as plain:
        engines = {
            "plain server": (plain.address, plain.process.pid),
            "Ray Serve": (ray.address, ray.process.pid),
        }
        pids = {name: process_tree(pid) for name, (_, pid) in engines.items()}
        async with AsyncExitStack() as stack:
            clients = {}
            for name, (address, _) in engines.items():
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
                clients[name] = Client(recognition_pb2_grpc.RecognitionServiceStub(channel), make_images())
                await clients[name].unary(20)
            idle = cpu_seconds(pids["Ray Serve"])
            await asyncio.sleep(10)
            idle = (cpu_seconds(pids["Ray Serve"]) - idle) / 10
            print(f"Ray's processes when nothing happens: {idle * 1000:.0f} ms of CPU a second", flush=True)
            for kind in ("unary, 8 at a time", "stream"):
                used: dict[str, list[float]] = {name: [] for name in engines}
                for _ in range(_ROUNDS):
                    for name, client in clients.items():
                        before, begun = cpu_seconds(pids[name]), time.perf_counter()
                        await (client.stream(_LINES) if kind == "stream" else client.unary(_LINES))
                        cpu = cpu_seconds(pids[name]) - before
                        if name == "Ray Serve":
                            cpu -= idle * (time.perf_counter() - begun)
                        used[name].append(cpu / _LINES * 1000)
                plain_ms, ray_ms = (statistics.median(values) for values in used.values())
                print(
                    f"{kind}: plain server {plain_ms:.1f} ms of CPU a line, Ray Serve {ray_ms:.1f} ms "
                    f"({ray_ms / plain_ms:.2f} times as much) on top of that",
                    flush=True,
                )


async def batchers() -> None:
    """Lines of mixed widths through a made-up GPU: our batcher and Ray's."""
    from ray import serve as ray_serve

    # It asks its replica only whether that lets enough requests in.
    replica = Mock()
    replica._deployment_config.max_ongoing_requests = 1000
    ray_serve.get_replica_context = lambda: replica

    chooser = random.Random(5)
    widths = [chooser.randint(200, 1600) for _ in range(4000)]
    sizes: list[int] = []
    padding: list[float] = []
    gpu = asyncio.Lock()

    async def network(batch: Sequence[int]) -> None:
        sizes.append(len(batch))
        padding.append(1 - sum(batch) / (len(batch) * max(batch)))
        async with gpu:
            await asyncio.sleep(_BATCH_S + _COLUMN_S * len(batch) * max(batch))

    async def ours_run(batch: Sequence[int], hand_over: Callable[[], None]) -> list[int]:
        await network(batch)
        return list(batch)

    ours = DynamicBatcher(ours_run, BatchingConfig(max_batch_size=_BATCH_SIZE, max_queue=100_000))

    @ray_serve.batch(max_batch_size=_BATCH_SIZE, batch_wait_timeout_s=0.005)  # type: ignore[untyped-decorator]
    async def rays(batch: list[int]) -> list[int]:
        await network(batch)
        return batch

    async def through_ours(width: int) -> int:
        return await ours.submit(width, size=width)

    ways: dict[str, Callable[[int], Awaitable[int]]] = {"DynamicBatcher": through_ours, "@serve.batch": rays}
    for name, way in ways.items():
        sizes.clear()
        padding.clear()
        latencies: list[float] = []
        numbers = iter(widths)

        async def loop(
            numbers: object = numbers, way: Callable[[int], Awaitable[int]] = way, to: list[float] = latencies
        ) -> None:
            for width in numbers:  # type: ignore[attr-defined]
                begun = time.perf_counter()
                assert await way(width) == width
                to.append(time.perf_counter() - begun)

        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(loop() for _ in range(256)))
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        latencies.sort()
        print(
            f"{name}: {len(widths) / seconds:.0f} lines/s, p50 {latencies[len(latencies) // 2] * 1000:.0f} ms, "
            f"p99 {latencies[len(latencies) * 99 // 100] * 1000:.0f} ms, {statistics.mean(sizes):.0f} lines a batch, "
            f"{statistics.mean(padding):.0%} padding, {cpu / len(widths) * 1e6:.0f} us of CPU a line",
            flush=True,
        )


def bulk(folder: Path) -> None:
    """CPU time a line of bulk, in one process and on Ray, against the bare pipeline: each on all cores."""
    images = make_images()
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number}.png")
        files[-1].write_bytes(image)
    manifest = folder / "lines.txt"
    manifest.write_text("".join(f"{files[n % len(files)]}\n" for n in range(_BULK_LINES)))
    bare: list[float] = []
    cores = os.cpu_count() or 1
    ways: dict[str, tuple[str, ...]] = {
        "one process": (),
        "Ray Data": ("--address", "local"),
    }
    used: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(_BULK_ROUNDS):
        for name, place in ways.items():
            bare.append(pipeline_cpu(_MODEL, images, 200, "cpu", cores)[0])
            used[name].append(_steady_cpu(manifest, folder / f"{round_number}{name}", place))
            print(f"bare {bare[-1] * 1000:.1f} ms, then {name} {used[name][-1] * 1000:.1f} ms", flush=True)
    bare.append(pipeline_cpu(_MODEL, images, 200, "cpu", cores)[0])
    alone = statistics.median(bare)
    print(f"bare pipeline: {alone * 1000:.1f} ms of CPU a line")
    for name, values in used.items():
        line = statistics.median(values)
        print(f"bulk, {name}: {line * 1000:.1f} ms of CPU a line, efficiency {alone / line:.0%}", flush=True)


def _steady_cpu(manifest: Path, out: Path, place: Sequence[str]) -> float:
    """CPU seconds a line of a run's processes between its first files of rows and its last one."""
    command = [
        sys.executable,
        "-m",
        "longhand_server.bulk",
        str(manifest),
        "--out",
        str(out),
        "--format",
        "jsonl",
    ]
    command += ["--chunk", str(_CHUNK), *place]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    total = _BULK_LINES // _CHUNK
    first: tuple[int, float] | None = None
    last = (0, 0.0)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            done = len(list(out.glob("part-*.jsonl")))
            if done > last[0] and done < total:
                last = (done, cpu_seconds(process_tree(process.pid)))
                first = first or last
            time.sleep(0.01)
    if process.returncode or first is None or last[0] <= first[0]:
        raise RuntimeError(f"{command} ended with {process.returncode} after {last[0]} of {total} files")
    return (last[1] - first[1]) / ((last[0] - first[0]) * _CHUNK)


def main() -> None:
    """Runs the parts named on the command line, or all."""
    parts = sys.argv[1:] or ["batchers", "serve", "bulk"]
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            if part == "serve":
                asyncio.run(serve(Path(folder)))
            elif part == "batchers":
                asyncio.run(batchers())
            elif part == "bulk":
                bulk(Path(folder))
            else:
                sys.exit(f"got {part!r}, need serve, batchers or bulk")


if __name__ == "__main__":
    main()
