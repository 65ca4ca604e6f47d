"""Holds the simulated replica against a real server on this machine, under the very same lines.

The benchmark's arrival times and choice of images follow from its seed, so the simulation gets the same trace and
only the server differs. What a line takes is measured image by image before each run, one line at a time; it holds
the client's share too, because client and server share one core here.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.scale.stations import BatchStations, Floats, SerialStations, Stations

from helpers.server_process import ServerProcess
from longhand_client import RecognizerClient
from longhand_client.bench.lines import draw_lines
from longhand_client.bench.load import arrivals

ROOT = Path(__file__).parents[3]
_IMAGES, _SEED, _WARM_UP_S = 64, 5, 2.0
_MAX_QUEUE, _MAX_BATCH_SIZE = 64, 8
_ROUNDS = 3
# Below this share of the cores' time for other programs a run counts at once.
_QUIET = 0.03


@dataclass(frozen=True)
class Comparison:
    """One load, measured and simulated.

    Attributes:
        server: "serial" or "batches".
        share: the load as a share of what one line at a time would allow.
        rate: lines a second that were sent.
        service_s: time of each image alone, measured just before.
        server_cpu_s: CPU time of the server, a line.
        lines_per_s: (measured, simulated).
        p50_ms: likewise, of the lines that were answered.
        p99_ms: likewise.
        refused: shares of the lines.
        disturbed: share of the cores' time that other programs took meanwhile.
    """

    server: str
    share: float
    rate: float
    service_s: Floats
    server_cpu_s: float
    lines_per_s: tuple[float, float]
    p50_ms: tuple[float, float]
    p99_ms: tuple[float, float]
    refused: tuple[float, float]
    disturbed: float


class Watch:
    """How much of the cores that this process may use went to other programs."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._begun = time.monotonic(), self._busy_s(), self._own_s()

    def disturbed(self) -> float:
        """The share since the watch was made."""
        cores = len(os.sched_getaffinity(0))
        elapsed, busy, own = (
            now - then
            for now, then in zip((time.monotonic(), self._busy_s(), self._own_s()), self._begun, strict=True)
        )
        return max(0.0, (busy - own) / (elapsed * cores))

    def _own_s(self) -> float:
        return self._server.cpu_seconds() + sum(os.times()[:4])

    def _busy_s(self) -> float:
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # user, nice, system, interrupts, soft interrupts, stolen; neither idle nor waiting for a disk
        ticks = sum(sum(map(int, (*line[1:4], *line[6:9]))) for line in lines if line and line[0] in names)
        return ticks / os.sysconf("SC_CLK_TCK")


def measure_service(address: str, images: Sequence[bytes], rounds: int = _ROUNDS) -> Floats:
    """The mean time of each image, one line at a time, in seconds."""
    with RecognizerClient(address) as client:
        client.recognize(images[0])
        taken = np.zeros((rounds, len(images)))
        for turn in range(rounds):
            for number, image in enumerate(images):
                begun = time.perf_counter()
                client.recognize(image)
                taken[turn, number] = time.perf_counter() - begun
    return taken.mean(axis=0)


def measure_load(address: str, rate: float, duration_s: float) -> dict[str, float]:
    """What clients/benchmark.py measures under that load."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        options = ("--rate", repr(rate), "--duration", str(duration_s), "--warm-up", str(_WARM_UP_S))
        subprocess.run(
            [sys.executable, str(ROOT / "clients" / "benchmark.py"), "--address", address, *options]
            + ["--seed", str(_SEED), "--json", str(file)],
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
    }


def simulate_load(stations: Stations, rate: float, duration_s: float, service_s: Floats) -> dict[str, float]:
    """The same for a simulated replica: the benchmark's own trace."""
    until = _WARM_UP_S + duration_s
    due = []
    for moment in arrivals(rate, _SEED):
        if moment >= until:
            break
        due.append(moment)
    chooser = random.Random(_SEED)
    service = service_s[[chooser.randrange(len(service_s)) for _ in due]]
    arrival = np.array(due)
    _, end = stations.run(np.zeros(len(due), np.int64), arrival, service)
    counted = arrival >= _WARM_UP_S
    refused = np.isnan(end)
    latencies = (end - arrival)[counted & ~refused] * 1000
    return {
        "lines_per_s": float(((end >= _WARM_UP_S) & (end < until)).sum()) / duration_s,
        "p50_ms": float(np.quantile(latencies, 0.5)),
        "p99_ms": float(np.quantile(latencies, 0.99)),
        "refused": float(refused[counted].mean()),
    }


def compare(
    model: str, shares: Sequence[float], duration_s: float, *, batches: bool, attempts: int = 4
) -> list[Comparison]:
    """Measures and simulates each share of the load; of several attempts the least disturbed one counts.

    With batches the cost of a line within a batch is fitted to the first share, which must be an overload; the
    others are predictions. Without batches everything is predicted from the times of single lines.
    """
    images = draw_lines(_IMAGES, median_width=900, spread=0.4, seed=_SEED)
    options = ["--threads", "1", "--max-queue", str(_MAX_QUEUE)]
    options += ["--max-batch-size", str(_MAX_BATCH_SIZE)] if batches else []
    found: list[Comparison] = []
    cost_share = 1.0 if batches else None
    with tempfile.TemporaryDirectory() as folder, ServerProcess(model, Path(folder), *options) as server:
        for share in shares:
            tried: list[_Run] = []
            while len(tried) < attempts and (not tried or tried[-1].disturbed > _QUIET):
                tried.append(_run(server, images, share, duration_s))
            run = min(tried, key=lambda one: one.disturbed)
            if batches and not found:
                cost_share = _fitted_cost(run)
            found.append(_compared(run, cost_share))
            print(found[-1], flush=True)
    return found


@dataclass(frozen=True)
class _Run:
    share: float
    rate: float
    duration_s: float
    service_s: Floats
    server_cpu_s: float
    measured: dict[str, float]
    disturbed: float

    def simulated(self, cost_share: float | None) -> dict[str, float]:
        """The same run without a server; a cost of a line within a batch means batches."""
        stations: Stations = SerialStations(1, 1, _MAX_QUEUE)
        if cost_share is not None:
            stations = BatchStations(1, _MAX_BATCH_SIZE, _MAX_QUEUE, cost_share)
        return simulate_load(stations, self.rate, self.duration_s, self.service_s)


def _run(server: ServerProcess, images: Sequence[bytes], share: float, duration_s: float) -> _Run:
    watch, cpu_s = Watch(server), server.cpu_seconds()
    service_s = measure_service(server.address, images)
    rate = share / float(service_s.mean())
    cpu_s = (server.cpu_seconds() - cpu_s) / (1 + _ROUNDS * len(images))
    measured = measure_load(server.address, rate, duration_s)
    return _Run(share, rate, duration_s, service_s, cpu_s, measured, watch.disturbed())


def _fitted_cost(run: _Run) -> float:
    costs = np.arange(0.5, 1.6, 0.01)
    throughputs = np.array([run.simulated(cost)["lines_per_s"] for cost in costs])
    return float(costs[np.abs(throughputs - run.measured["lines_per_s"]).argmin()])


def _compared(run: _Run, cost_share: float | None) -> Comparison:
    predicted = run.simulated(cost_share)
    pairs = {name: (run.measured[name], predicted[name]) for name in predicted}
    kind = "serial" if cost_share is None else f"batches of up to {_MAX_BATCH_SIZE}"
    return Comparison(
        server=kind,
        share=run.share,
        rate=run.rate,
        service_s=run.service_s,
        server_cpu_s=run.server_cpu_s,
        lines_per_s=pairs["lines_per_s"],
        p50_ms=pairs["p50_ms"],
        p99_ms=pairs["p99_ms"],
        refused=pairs["refused"],
        disturbed=run.disturbed,
    )
