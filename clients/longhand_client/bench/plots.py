"""Pictures of a benchmark: latency against load, and how the latencies spread."""

from __future__ import annotations

from pathlib import Path

from longhand_client.bench.report import Point
from longhand_client.errors import LonghandError


def draw_plots(points: list[Point], folder: Path) -> list[Path]:
    """Draws what was measured.

    Args:
        points: the points; those without a line read are left out.
        folder: made where it does not exist.

    Returns:
        The PNG files: latency against load, and a histogram of the latencies of each point.

    Raises:
        LonghandError: Matplotlib is not installed, or nothing was read.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LonghandError(
            "--plots needs Matplotlib: pip install '.[bench]' in Longhand's folder"
        ) from error
    points = [point for point in points if point.lines]
    if not points:
        raise LonghandError("no line was read, so there is nothing to draw")
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(points, key=lambda point: point.lines_per_s)
    for name in ("p50", "p90", "p99"):
        axes.plot(
            [point.lines_per_s for point in ordered],
            [point.latency_ms[name] for point in ordered],
            marker="o",
            label=name,
        )
    for point in ordered:
        axes.annotate(point.name, (point.lines_per_s, point.latency_ms["p50"]), fontsize=7, rotation=30)
    axes.set(xlabel="lines a second", ylabel="latency, ms", yscale="log", title="Latency against load")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    load_file = folder / "latency_load.png"
    figure.savefig(load_file, dpi=120)

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for point in points:
        axes.hist(point.latencies_ms, bins=60, histtype="step", density=True, label=point.name)
    axes.set(xlabel="latency, ms", ylabel="share of the lines", title="Latencies")
    axes.legend(fontsize=8)
    histogram_file = folder / "latency_histogram.png"
    figure.savefig(histogram_file, dpi=120)
    return [load_file, histogram_file]
