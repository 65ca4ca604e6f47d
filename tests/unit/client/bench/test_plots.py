"""What the benchmark's pictures show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longhand_client.bench.load import STAGES
from longhand_client.bench.plots import draw_plots
from longhand_client.bench.report import Point

pytest.importorskip("matplotlib", reason="needs Matplotlib (the extra 'bench')")

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def point(lines_per_s: float, latencies_ms: list[float], *, rate: float = 0.0, concurrency: int = 0) -> Point:
    return Point(
        call="unary",
        concurrency=concurrency,
        rate=rate,
        lines=len(latencies_ms),
        errors={},
        lines_per_s=lines_per_s,
        latency_ms=dict.fromkeys(("p50", "p90", "p99", "max"), latencies_ms[-1]),
        stages_ms=dict.fromkeys(STAGES, 1.0),
        client_cpu=0.1,
        latencies_ms=latencies_ms,
    )


def highest(axes: Axes) -> float:
    return float(axes.patches[0].get_path().get_extents().y1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of every figure that is saved; nothing is written."""
    axes: list[Axes] = []

    def keep(figure: Figure, file: Path, dpi: int) -> None:
        figure.draw_without_rendering()
        axes.append(figure.axes[0])

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    return axes


def test_points_are_joined_in_the_order_of_their_load(drawn: list[Axes], tmp_path: Path) -> None:
    points = [point(20.0, [900.0], rate=80.0), point(10.0, [50.0], rate=10.0), point(30.0, [60.0], rate=40.0)]
    draw_plots([point(5.0, [40.0], concurrency=1), *points], tmp_path)
    curves = [list(line.get_xdata()) for line in drawn[0].get_lines()]  # type: ignore[arg-type]
    assert [10.0, 30.0, 20.0] in curves
    assert [5.0] in curves  # a closed loop is another kind of load
    assert drawn[0].get_legend_handles_labels()[1] == ["p50", "p90", "p99"]


def test_the_histogram_shows_shares_of_the_lines(drawn: list[Axes], tmp_path: Path) -> None:
    draw_plots([point(5.0, [40.0, 41.0, 3000.0], concurrency=1)], tmp_path)
    assert highest(drawn[1]) == pytest.approx(2 / 3)
    labels = [label.get_text() for label in drawn[1].get_xticklabels(which="both")]
    assert {"50", "200", "1,000"} <= set(labels)


def test_latencies_that_are_all_the_same_can_be_drawn(drawn: list[Axes], tmp_path: Path) -> None:
    draw_plots([point(5.0, [40.0], concurrency=1)], tmp_path)
    assert highest(drawn[1]) == 1.0
