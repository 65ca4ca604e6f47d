"""Writes server/SIMULATION.md and its picture: the simulation against a real server, then at scale.

``make bench-scale`` runs it; ``--reuse`` takes the measurements of the last run and only simulates again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import scenarios
from benchmarks.scale.fleet import Record
from benchmarks.scale.scenarios import ROOT, LoadPoint
from benchmarks.scale.stations import Floats
from benchmarks.scale.validate import KINDS, LineTimes, Run, compare

_MEASURED = Path(__file__).parent / "measured.json"
_LOADS = (0.3, 0.6, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
_BOUNDS, _OVERLOAD = (32, 128, 256, 1024), 1.1
# Shares of a replica's capacity, one of them too much.
_MEASURED_LOADS = (0.5, 0.7, 1.4)
_STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))  # of lines


def measure(duration_s: float, attempts: int) -> dict[str, object]:
    """Measures and compares; what comes back is JSON."""
    runs = [run for kind in KINDS for run in compare(kind, _MEASURED_LOADS, duration_s, attempts)]
    return {
        "machine": f"{os.cpu_count()} x {_processor()}, Python {platform.python_version()}",
        "duration_s": duration_s,
        "runs": [asdict(run) for run in runs],
    }


def read_runs(measured: Mapping[str, Any]) -> list[Run]:
    """The runs of an earlier measurement."""
    runs = []
    for values in measured["runs"]:
        times = values["times"]
        times = LineTimes(np.array(times["work_s"]), times["delay_s"], times["server_cpu_s"])
        runs.append(Run(**{**values, "times": times}))
    return runs


def service_times(runs: Sequence[Run]) -> Floats:
    """CPU time of each image: the shape of single lines here, the mean of `make bench-server`, less disturbed.

    Raises:
        ValueError: server/BENCHMARK.md has no such row.
    """
    run = min((run for run in runs if run.kind == KINDS[0].name), key=lambda run: run.disturbed)
    text = (ROOT / "server" / "BENCHMARK.md").read_text(encoding="utf-8")
    found = re.search(r"^\| server CPU, a unary call \|[^|]*\| ([0-9.]+) ms \|", text, re.MULTILINE)
    if found is None:
        raise ValueError("server/BENCHMARK.md: no row 'server CPU, a unary call'; make bench-server")
    return np.asarray(run.times.work_s.ravel() * float(found[1]) / 1000 / run.times.work_s.mean())


def page(
    measured: Mapping[str, Any],
    curves: Mapping[str, list[LoadPoint]],
    bounds: Mapping[int, LoadPoint],
    surges: Mapping[str, Record],
) -> str:
    """The text of server/SIMULATION.md."""
    runs = read_runs(measured)
    service_s = service_times(runs)
    template = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    return template.format(
        machine=measured["machine"],
        duration=f"{measured['duration_s']:g}",
        longer=f"{measured['duration_s'] * KINDS[0].longer:g}",
        runs="\n".join(map(_run_row, runs)),
        verdict=_verdict(runs),
        line_ms=f"{service_s.mean() * 1000:.1f}",
        replicas=f"{scenarios.REPLICAS:,}",
        workers=scenarios.WORKERS,
        capacity=f"{scenarios.capacity(service_s) / 1e6:.2f}",
        curves="\n".join(_curve_row(name, points) for name, points in curves.items()),
        overload=f"{_OVERLOAD:g}",
        bounds="\n".join(
            f"| {bound} | {one.answered / 1e6:.2f} M | {one.p99_ms:.0f} | {one.failed:.1%} |"
            for bound, one in bounds.items()
        ),
        surges="\n".join(_surge_row(name, record) for name, record in surges.items()),
    )


def _run_row(run: Run) -> str:
    def pair(name: str, form: str = ".0f") -> str:
        measured, simulated = run.measured[name], run.simulated[name]
        return f"{measured:{form}} / {simulated:{form}} | {simulated / measured - 1:+.0%}"

    refused = f"{run.measured['refused']:.0%} / {run.simulated['refused']:.0%}"
    columns = (pair("lines_per_s", ".1f"), pair("p50_ms"), pair("p99_ms"), refused)
    slower = f"x{run.slower:.2f}" if run.slower != 1 else "not scaled"
    return f"| {run.kind} | {run.load:g} | {' | '.join(columns)} | {slower} | {run.disturbed:.0%} |"


def _verdict(runs: Sequence[Run]) -> str:
    def worst(name: str) -> str:
        errors = [abs(run.simulated[name] / run.measured[name] - 1) for run in runs]
        near = sum(error <= 0.15 for error in errors)
        return f"within 15 % in {near} of {len(errors)} runs (worst {max(errors):.0%})"

    return f"Throughput is {worst('lines_per_s')}, p99 {worst('p99_ms')}."


def _curve_row(name: str, points: Sequence[LoadPoint]) -> str:
    calm = points[0].p99_ms
    good = [one for one in points if one.p99_ms <= 2 * calm and one.failed == 0]
    best = f"{good[-1].load:.0%}, {good[-1].offered / 1e6:.2f} M" if good else "none"
    at = next(one for one in points if one.load == 0.9)
    most = max(one.answered for one in points)
    return f"| {name} | {best} | {at.p99_ms:.0f} | {at.failed:.1%} | x{at.busiest:.2f} | {most / 1e6:.2f} M |"


def _surge_row(name: str, record: Record) -> str:
    offered, failed = sum(record.offered), sum(record.failed)
    bad = [
        n
        for n, (lost, all_) in enumerate(zip(record.failed, record.offered, strict=True))
        if lost > 0.001 * all_
    ]
    last = f"{bad[-1] + 1 - scenarios.SURGE_AT_S} s" if bad else "at once"
    if bad and bad[-1] >= len(record.failed) - 2:
        last = "not in the run"
    return f"| {name} | {record.replicas[0]:,} → {record.replicas[-1]:,} | {failed / offered:.1%} | {last} |"


def draw(curves: Mapping[str, list[LoadPoint]], surges: Mapping[str, Record], file: Path) -> None:
    """The picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(11, 9), layout="constrained")
    # A legend below each row: inside, it would hide curves.
    grid = figure.add_gridspec(2, 1)
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = np.array([upper.subplots(1, 2), lower.subplots(1, 2)])
    # Not told apart by colours alone.
    for (name, points), marker in zip(curves.items(), itertools.cycle("os^Dv"), strict=False):
        offered = [one.offered / 1e6 for one in points]
        axes[0, 0].plot(offered, [one.p99_ms for one in points], marker=marker, label=name)
        axes[0, 1].plot(offered, [100 * one.failed for one in points], marker=marker)
    for (name, record), style in zip(surges.items(), itertools.cycle(_STYLES), strict=False):
        seconds = np.arange(len(record.offered))
        share = 100 * np.array(record.failed) / np.array(record.offered)
        p99_ms = [np.quantile(part, 0.99) * 1000 for part in record.latencies_s]
        axes[1, 0].plot(seconds, p99_ms, linestyle=style, label=name)
        axes[1, 1].plot(seconds, share, linestyle=style)
    titles = ("p99 of answered lines, ms", "lines given up, %")
    for column, title in enumerate(titles):
        axes[0, column].set(title=title, xlabel="million lines a second offered")
        axes[1, column].set(title=f"load triples after {scenarios.SURGE_AT_S} s: {title}", xlabel="seconds")
    axes[0, 0].set_yscale("log")
    axes[0, 0].yaxis.set_major_formatter("{x:,.0f}")
    for row in (upper, lower):
        row.legend(loc="outside lower center", ncols=3, fontsize=8)
    for one in axes.flat:
        one.grid(alpha=0.3)
    figure.savefig(file, dpi=80)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--duration",
        type=float,
        default=30.0,
        help="seconds of each measured run; three times that with the shipped model",
    )
    parser.add_argument("--attempts", type=int, default=3, help="at most, where other programs disturb a run")
    parser.add_argument("--reuse", action="store_true", help="do not measure again")
    parser.add_argument("--write", type=Path, default=ROOT / "server" / "SIMULATION.md")
    options = parser.parse_args(arguments)
    if not options.reuse:
        found = measure(options.duration, options.attempts)
        _MEASURED.write_text(
            json.dumps(found, default=lambda array: array.round(6).tolist()), encoding="utf-8"
        )
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    service_s = service_times(read_runs(measured))
    curves = {}
    for name, scenario in scenarios.balancers(service_s).items():
        curves[name] = scenarios.sweep(scenario, _LOADS)
        print(name, curves[name][-1], flush=True)
    bounds = scenarios.queue_bounds(service_s, _BOUNDS, _OVERLOAD)
    surges = scenarios.surges(service_s)
    options.write.write_text(page(measured, curves, bounds, surges), encoding="utf-8")
    draw(curves, surges, options.write.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
