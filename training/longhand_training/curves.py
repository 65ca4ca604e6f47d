"""A run's log: ``log.csv``, its learning curves as a picture and, where it is installed, TensorBoard events."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


class RunLog:
    """The log of the run in a folder; a run that goes on adds to it.

    Args:
        out: the folder.
        step: that the run begins or goes on at: rows of later ones, which a killed run left, are dropped. None keeps
            every row.
    """

    def __init__(self, out: Path, step: int | None = None) -> None:
        self._out = out
        self._writer: Any = None
        rows = read_log(out / "log.csv")
        left = [row for row in rows if step is None or int(row.get("step", 0)) <= step]
        if len(left) < len(rows):
            self._write(left)
        try:
            from torch.utils.tensorboard import SummaryWriter

            purge = None if step is None else step + 1
            self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=purge)
        except ImportError:
            print("no TensorBoard logs: pip install tensorboard", file=sys.stderr)

    def add(self, row: Mapping[str, float | None]) -> None:
        """Adds a row, which may lack columns of earlier ones and have new ones.

        Args:
            row: ``minutes``, ``step``, ``loss``, a ``cer_*`` for each validation set, and others; None for no value.
        """
        there = {name: value for name, value in row.items() if value is not None}
        self._write([*read_log(self._out / "log.csv"), there], row)
        draw_curves(read_log(self._out / "log.csv"), self._out / "curves.png")
        if self._writer is not None:
            for name, value in there.items():
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def _write(self, rows: Sequence[Mapping[str, Any]], first_columns: Iterable[str] = ()) -> None:
        path = self._out / "log.csv"
        columns = dict.fromkeys((*first_columns, *(name for row in rows for name in row)))
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(path)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``log.csv`` as text by column, without empty cells; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        # Rows may have more cells than there are columns: older versions wrote them when a set was added.
        return [
            {name: cell for name, cell in row.items() if name is not None and cell}
            for row in csv.DictReader(file)
        ]


def draw_curves(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draws loss, and the CER of each validation set, against the minutes of the rows of a log."""

    def curve(name: str) -> tuple[list[float], list[float]]:
        there = [row for row in rows if name in row]
        return [float(row["minutes"]) for row in there], [float(row[name]) for row in there]

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(*curve("loss"), marker=".")
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("cer_"))
    # A marker of its own for each: colours alone are not told apart by everybody.
    for name, marker in zip(names, itertools.cycle("os^Dv<>PX*"), strict=False):
        minutes, rates = curve(name)
        percent = [100 * rate for rate in rates]
        right.plot(minutes, percent, marker=marker, markersize=4, label=f"{name[4:]} ({percent[-1]:.1f} %)")
    if right.lines:
        right.legend()
    for axes, what in ((left, "CTC loss"), (right, "greedy CER, %")):
        has_logarithm = any(value > 0 for line in axes.lines for value in line.get_ydata())
        axes.set(xlabel="minutes", ylabel=what, yscale="log" if has_logarithm else "linear")
        # Not as powers of ten, which few curves span.
        axes.yaxis.set_major_formatter("{x:.4g}")
        axes.yaxis.set_minor_formatter("{x:.4g}")
        axes.tick_params(which="minor", labelsize=8)
        axes.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)
