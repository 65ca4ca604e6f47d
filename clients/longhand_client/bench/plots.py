"""Pictures of a benchmark: latency against load, and how the latencies spread."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from longhand_client.bench.report import Point
from longhand_client.errors import LonghandError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_BINS = 60
_STYLES = ("-", "--", ":", "-.")  # of lines: colours alone are not told apart by everybody


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
    drawn: list[Path] = []
    for name, draw in (("latency_load.png", _draw_load), ("latency_histogram.png", _draw_histogram)):
        figure = Figure(figsize=(8, 5), layout="constrained")
        draw(points, figure.add_subplot())
        drawn.append(folder / name)
        figure.savefig(drawn[-1], dpi=120)
    return drawn


def _draw_load(points: list[Point], axes: Axes) -> None:
    both = len({point.rate == 0 for point in points}) == 2
    for closed in (True, False):
        # In the order of what was asked for: of two loads too many the heavier one may well bring fewer lines.
        curve = sorted(
            (point for point in points if (point.rate == 0) == closed),
            key=lambda point: (point.rate, point.concurrency),
        )
        for name, colour, marker in (("p50", "C0", "o"), ("p90", "C1", "s"), ("p99", "C2", "^")):
            axes.plot(
                [point.lines_per_s for point in curve],
                [point.latency_ms[name] for point in curve],
                marker=marker,
                linestyle="--" if closed and both else "-",
                color=colour,
                label=name if curve and name not in axes.get_legend_handles_labels()[1] else None,
            )
    for point in points:
        axes.annotate(
            point.name,
            (point.lines_per_s, point.latency_ms["p50"]),
            (0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    title = "Latency against load" + (" (closed loops: dashed)" if both else "")
    axes.set(xlabel="lines a second", ylabel="latency, ms", yscale="log", title=title)
    axes.margins(y=0.1)  # room for the names below
    _plain_numbers(axes.yaxis)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def _draw_histogram(points: list[Point], axes: Axes) -> None:
    edges = _edges([latency for point in points for latency in point.latencies_ms])
    for point, style in zip(points, itertools.cycle(_STYLES), strict=False):
        shares = [1 / len(point.latencies_ms)] * len(point.latencies_ms)
        axes.hist(
            point.latencies_ms, edges, histtype="step", linestyle=style, weights=shares, label=point.name
        )
    axes.set(xlabel="latency, ms", ylabel="share of the lines", xscale="log", title="Latencies")
    _plain_numbers(axes.xaxis)
    axes.legend(fontsize=8)


def _edges(latencies_ms: list[float]) -> list[float]:
    """The edges of bins that all points share, equally wide on a logarithmic scale."""
    low, high = 0.99 * min(latencies_ms), 1.01 * max(latencies_ms)
    return [low * (high / low) ** (number / _BINS) for number in range(_BINS + 1)]


def _plain_numbers(axis: Axis) -> None:
    """Labels such as 300 in place of 3 x 10^2, as many as there is room for."""
    low, high = axis.get_view_interval()
    leading = "125" if high > 20 * low else "1234568"

    def label(value: float, _: object) -> str:
        text = f"{value:,.6g}"
        return text if text.lstrip("0.")[0] in leading else ""

    axis.set_major_formatter(label)
    axis.set_minor_formatter(label)
