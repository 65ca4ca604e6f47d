"""What a benchmark found: as a table, as JSON, and against an earlier run."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from longhand_client.bench.load import STAGES, Load, Sample
from longhand_client.bench.statistics import bootstrap_ratio, percentile
from longhand_client.errors import LonghandError

FORMAT = 1
KEPT_LATENCIES = 20_000
# A client process that is this busy (share of a core) measures itself as much as the server.
BUSY = 0.8


@dataclass(frozen=True)
class Point:
    """One load and what came of it.

    Attributes:
        call: "unary", "batch" or "stream".
        concurrency: lines on their way, in all processes; 0 in an open loop.
        rate: lines a second that were due; 0 in a closed loop.
        lines: lines read.
        errors: lines that failed, by code.
        lines_per_s: lines that came back in the measuring time, a second.
        latency_ms: p50, p90, p99, max; empty where nothing was read.
        stages_ms: the server's own times, on average over the lines; `batch_size` is a count.
        client_cpu: share of a core that the busiest client process took.
        latencies_ms: the latencies, or every n-th of them where there are very many.
        messages: what the first line that failed said, by code.
    """

    call: str
    concurrency: int
    rate: float
    lines: int
    errors: dict[str, int]
    lines_per_s: float
    latency_ms: dict[str, float]
    stages_ms: dict[str, float]
    client_cpu: float
    latencies_ms: list[float] = field(repr=False)
    messages: dict[str, str] = field(default_factory=dict)  # runs from before have none

    @property
    def name(self) -> str:
        """The load in a few letters, the same from run to run."""
        size = f"{self.rate:g}/s" if self.rate else f"x{self.concurrency}"
        return f"{self.call} {size}"


def make_point(load: Load, samples: list[Sample]) -> Point:
    """Puts the samples of all processes together.

    Args:
        load: what one process did.
        samples: one for each process.

    Returns:
        The point; rate and concurrency are those of all processes.
    """
    latencies = sorted(value for sample in samples for value in sample.latencies_ms)
    errors: Counter[str] = Counter()
    messages: dict[str, str] = {}
    for sample in samples:
        errors += sample.errors
        messages = sample.messages | messages
    count = len(latencies)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return Point(
        call=load.call,
        concurrency=0 if load.rate else load.concurrency * len(samples),
        rate=load.rate * len(samples),
        lines=count,
        errors=dict(errors),
        lines_per_s=sum(sample.completed / sample.duration_s for sample in samples),
        latency_ms={name: percentile(latencies, share) for name, share in shares.items()} if count else {},
        stages_ms={name: sum(one.stages[name] for one in samples) / max(count, 1) for name in STAGES},
        client_cpu=max(sample.cpu_s / sample.duration_s for sample in samples),
        latencies_ms=latencies[:: max(count // KEPT_LATENCIES, 1)],
        messages=messages,
    )


def to_json(points: list[Point], facts: dict[str, Any]) -> str:
    """A run as JSON, with the machine and the time."""
    machine = {
        "platform": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
    }
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {
        "format": FORMAT,
        "time": stamp,
        "machine": machine,
        **facts,
        "points": [asdict(p) for p in points],
    }
    return json.dumps(record, ensure_ascii=False, indent=1)


def read_points(path: Path) -> list[Point]:
    """Reads an earlier run.

    Raises:
        LonghandError: the file is no run of this program.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, need {FORMAT}")
        return [Point(**point) for point in record["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LonghandError(f"{path} is no run of this benchmark: {error}") from error


def print_table(points: list[Point], stream: TextIO) -> None:
    """The points as a table, or in running text where the terminal is too narrow for one."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Longhand: lines a second and latency in milliseconds", title_justify="left")
    shares = ("p50", "p90", "p99", "max")
    columns = ("load", "lines/s", *shares, "queue", "network", "decoder", "batch", "errors", "client CPU")
    rows = []
    for column in columns:
        table.add_column(column, justify="left" if column in ("load", "errors") else "right")
    for point in points:
        latency = [_number(point.latency_ms.get(name)) for name in shares]
        stages = [point.stages_ms[name] for name in ("queue_ms", "infer_ms", "beam_ms", "batch_size")]
        errors = ", ".join(f"{code} {count}" for code, count in sorted(point.errors.items()))
        rows.append(
            (
                point.name,
                f"{point.lines_per_s:.1f}",
                *latency,
                *[_number(stage if point.lines else None) for stage in stages],
                errors or "none",
                f"{100 * point.client_cpu:.0f} %",
            )
        )
        table.add_row(*rows[-1])
    console = Console(file=stream, width=None if stream.isatty() else 140)
    if console.measure(table, options=console.options.update(width=1000)).maximum <= console.width:
        console.print(table)
    else:  # which would cut the figures off
        console.print(table.title)
        for name, *cells in rows:
            figures = (f"{column} {cell}" for column, cell in zip(columns[1:], cells, strict=True))
            console.print(f"{name}: {', '.join(figures)}", markup=False, highlight=False)
    for point in points:
        for code, message in sorted(point.messages.items()):
            console.print(f"{point.name}: {code}: {message}", markup=False, highlight=False)
        if point.client_cpu > BUSY:
            console.print(
                f"warning: {point.name}: the client itself was busy ({100 * point.client_cpu:.0f} % of a core);"
                " use more --processes, or another machine"
            )


def print_comparison(old: list[Point], new: list[Point], stream: TextIO) -> None:
    """The ratios of latencies and throughput for the loads that both runs have."""
    earlier = {point.name: point for point in old}
    for point in new:
        before = earlier.get(point.name)
        if before is None or not before.latencies_ms or not point.latencies_ms:
            print(f"{point.name}: nothing to compare with", file=stream)
            continue
        parts = [f"lines/s x{point.lines_per_s / max(before.lines_per_s, 1e-9):.2f}"]
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            ratio = bootstrap_ratio(before.latencies_ms, point.latencies_ms, share)
            parts.append(f"{name} x{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
        print(f"{point.name}: {', '.join(parts)}", file=stream)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
