"""Holds the simulated replica against a real server on this machine, under the very same lines.

The benchmark's arrival times and its choice of images follow from its seed, so the simulation gets the same trace
and only the server differs. What a line takes is measured just before, image by image, one line at a time. A machine
lent among others does not keep its speed for a minute, and a simulation of queues cannot foretell that; so where the
network computes, these times are scaled to what the run's own lines took on average, queue left out, as the server
says. The server has the first core to itself, the clients the others.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.scale.stations import BatchStations, Floats, SerialStations, Stations
from helpers.server_process import ServerProcess
from helpers.toy_model import write_bundle
from longhand_client import RecognizerClient
from longhand_client.bench.lines import draw_lines
from longhand_client.bench.load import arrivals

ROOT = Path(__file__).parents[3]
_IMAGES, _SEED, _WARM_UP_S, _ROUNDS = 64, 5, 2.0, 4
_MAX_QUEUE, _MAX_BATCH_SIZE, _BATCH_SHARE, _WORKERS = 64, 16, 0.1, 16
# Long waits: what a busy machine adds to a line, some ms, then counts for little.
_SECONDS_A_PIXEL = 300e-6
# Below this share of the cores' time for other programs a run counts at once.
_QUIET = 0.03


@dataclass(frozen=True)
class Kind:
    """A server to hold the simulation against.

    Attributes:
        name: what it is.
        model: a shipped model; "" = the network that waits (timed_server.py).
        workers: lines worked on at a time.
        max_batch_size: 1 = a line at a time.
        capacity: about how many lines a second it does for one that a single line at a time would allow.
        longer: its runs last so many times as long: where lines differ from one time to the next, few say little.
    """

    name: str
    model: str = ""
    workers: int = 1
    max_batch_size: int = 1
    capacity: float = 1.0
    longer: float = 1.0

    def stations(self) -> Stations:
        """The simulated replica."""
        if self.max_batch_size > 1:
            return BatchStations(1, self.max_batch_size, _MAX_QUEUE, _BATCH_SHARE, _SECONDS_A_PIXEL)
        return SerialStations(1, self.workers, _MAX_QUEUE)

    def start(self, folder: Path) -> ServerProcess:
        """The real one."""
        options = ["--threads", str(self.workers), "--max-queue", str(_MAX_QUEUE)]
        if self.max_batch_size > 1:
            options += ["--max-batch-size", str(self.max_batch_size)]
        if self.model:
            return ServerProcess(self.model, folder, *options)
        module = ("benchmarks.scale.timed_server", repr(_SECONDS_A_PIXEL), repr(_BATCH_SHARE))
        path = {"PYTHONPATH": str(ROOT / "tests")}
        return ServerProcess(write_bundle(folder / "toy"), folder, *options, module=module, environment=path)


KINDS = (
    Kind("shipped model, 1 worker", model="en", longer=3.0),
    Kind(f"timed network, {_WORKERS} workers", workers=_WORKERS, capacity=_WORKERS),
    Kind(f"timed network, batches of up to {_MAX_BATCH_SIZE}", max_batch_size=_MAX_BATCH_SIZE, capacity=2.0),
)


@dataclass(frozen=True)
class LineTimes:
    """What each image takes.

    Attributes:
        work_s: time of a worker (of the network, where it works in batches), several times each (times, images).
        delay_s: what a line takes besides, on average; it holds up no other line.
        server_cpu_s: CPU time of the server, a line.
    """

    work_s: Floats
    delay_s: float
    server_cpu_s: float


@dataclass(frozen=True)
class Run:
    """One load on one kind of server, measured and simulated.

    Attributes:
        kind: which server.
        load: as a share of the server's capacity.
        times: what single lines took just before.
        slower: how much longer a line took in the run than in ``times``, on average; 1 where it is not looked at.
        measured: lines_per_s, p50_ms and p99_ms of the answered lines, refused (share of the lines).
        simulated: the same.
        disturbed: share of the cores' time that other programs took meanwhile.
    """

    kind: str
    load: float
    times: LineTimes
    slower: float
    measured: dict[str, float]
    simulated: dict[str, float]
    disturbed: float


def split_cores() -> tuple[set[int], set[int]]:
    """The server's core and the clients'.

    Raises:
        RuntimeError: there is only one.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise RuntimeError("the server needs one core and the clients another; this process may use only one")
    return {first}, set(others)


class Watch:
    """How much of the server's and the clients' cores went to other programs."""

    def __init__(self, server: ServerProcess, cores: set[int]) -> None:
        self._server, self._cores = server, cores
        self._begun = time.monotonic(), self._busy_s(), self._own_s()

    def disturbed(self) -> float:
        """The share since the watch was made."""
        now = time.monotonic(), self._busy_s(), self._own_s()
        elapsed, busy, own = (after - before for after, before in zip(now, self._begun, strict=True))
        return max(0.0, (busy - own) / (elapsed * len(self._cores)))

    def _own_s(self) -> float:
        return self._server.cpu_seconds() + sum(os.times()[:4])

    def _busy_s(self) -> float:
        names = {f"cpu{core}" for core in self._cores}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # user, nice, system, interrupts, soft interrupts, stolen; neither idle nor waiting for a disk
        ticks = sum(sum(map(int, (*line[1:4], *line[6:9]))) for line in lines if line and line[0] in names)
        return ticks / os.sysconf("SC_CLK_TCK")


def measure_lines(server: ServerProcess, images: Sequence[bytes], kind: Kind) -> LineTimes:
    """The times of each image, one line at a time."""
    rounds = _ROUNDS if kind.model else 1  # waiting takes the same time every time
    latency, work = np.zeros((rounds, len(images))), np.zeros((rounds, len(images)))
    with RecognizerClient(server.address) as client:
        client.recognize(images[0])
        cpu_s = server.cpu_seconds()
        for turn in range(rounds):
            for number, image in enumerate(images):
                begun = time.perf_counter()
                timings = client.recognize(image).timings
                latency[turn, number] = time.perf_counter() - begun
                busy_ms = timings.infer_ms if kind.max_batch_size > 1 else timings.total_ms - timings.queue_ms
                work[turn, number] = busy_ms / 1000
        cpu_s = (server.cpu_seconds() - cpu_s) / latency.size
    return LineTimes(work, float((latency - work).mean()), cpu_s)


def measure_load(address: str, rate: float, duration_s: float) -> dict[str, float]:
    """What clients/benchmark.py measures under that load."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        options = ["--rate", repr(rate), "--duration", str(duration_s), "--warm-up", str(_WARM_UP_S)]
        options += ["--address", address, "--seed", str(_SEED), "--json", str(file)]
        subprocess.run(
            [sys.executable, str(ROOT / "clients" / "benchmark.py"), *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (point,) = json.loads(file.read_text())["points"]
    refused = sum(point["errors"].values())
    return {
        "lines_per_s": point["lines_per_s"],
        "p50_ms": point["latency_ms"]["p50"],
        "p99_ms": point["latency_ms"]["p99"],
        "refused": refused / max(refused + point["lines"], 1),
        "work_ms": point["stages_ms"]["total_ms"] - point["stages_ms"]["queue_ms"],
    }


def simulate_load(stations: Stations, rate: float, duration_s: float, times: LineTimes) -> dict[str, float]:
    """The same for a simulated replica: the benchmark's own trace."""
    until = _WARM_UP_S + duration_s
    due = []
    for moment in arrivals(rate, _SEED):
        if moment >= until:
            break
        due.append(moment)
    chooser = random.Random(_SEED)
    image = [chooser.randrange(times.work_s.shape[1]) for _ in due]
    arrival = np.array(due)
    service = times.work_s[np.random.default_rng(_SEED).integers(0, len(times.work_s), len(due)), image]
    _, end = stations.run(np.zeros(len(due), np.int64), arrival, service)
    end += times.delay_s
    counted = arrival >= _WARM_UP_S
    refused = np.isnan(end)
    latencies = (end - arrival)[counted & ~refused] * 1000
    return {
        "lines_per_s": float(((end >= _WARM_UP_S) & (end < until)).sum()) / duration_s,
        "p50_ms": float(np.quantile(latencies, 0.5)),
        "p99_ms": float(np.quantile(latencies, 0.99)),
        "refused": float(refused[counted].mean()),
        "work_ms": float(service[counted & ~refused].mean()) * 1000,
    }


def compare(kind: Kind, loads: Sequence[float], duration_s: float, attempts: int) -> list[Run]:
    """Measures and simulates each load; of several attempts the least disturbed one counts."""
    images = draw_lines(_IMAGES, median_width=900, spread=0.4, seed=_SEED)
    found = []
    times = None
    servers, clients = split_cores()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.sched_setaffinity(0, servers)  # a child inherits it
            server = kind.start(Path(folder))
            os.sched_setaffinity(0, clients)
            with server:
                for load in loads:
                    tried: list[Run] = []
                    while len(tried) < attempts and (not tried or tried[-1].disturbed > _QUIET):
                        watch = Watch(server, servers | clients)
                        if times is None or kind.model:
                            times = measure_lines(server, images, kind)
                        tried.append(_run(kind, server, times, load, duration_s * kind.longer, watch))
                    found.append(min(tried, key=lambda one: one.disturbed))
        finally:
            os.sched_setaffinity(0, servers | clients)
    return found


def _run(
    kind: Kind, server: ServerProcess, times: LineTimes, load: float, duration_s: float, watch: Watch
) -> Run:
    rate = load * kind.capacity / float(times.work_s.mean())
    measured = measure_load(server.address, rate, duration_s)
    disturbed = watch.disturbed()
    simulated = simulate_load(kind.stations(), rate, duration_s, times)
    slower = 1.0
    if kind.model:
        slower = measured["work_ms"] / simulated["work_ms"]
        scaled = replace(times, work_s=times.work_s * slower)
        simulated = simulate_load(kind.stations(), rate, duration_s, scaled)
    run = Run(kind.name, load, times, slower, measured, simulated, disturbed)
    print(
        f"{kind.name}, load {load:g}, disturbed {disturbed:.1%}, slower {slower:.2f}: {measured} {simulated}",
        flush=True,
    )
    return run
