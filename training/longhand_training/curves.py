"""Learning curves of a run as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw_curves(log: Path, out: Path) -> None:
    """Draws loss, and the CER of each validation set, against the minutes of ``log.csv``."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["minutes"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(minutes, [float(row["loss"]) for row in rows], marker=".")
    left.set(xlabel="minutes", ylabel="CTC loss", yscale="log")
    for name in rows[0]:
        if name.startswith("cer_"):
            rates = [100 * float(row[name]) for row in rows]
            right.plot(minutes, rates, marker=".", label=f"{name[4:]} ({rates[-1]:.1f} %)")
    right.set(xlabel="minutes", ylabel="greedy CER, %", yscale="log")
    right.grid(True, which="both", alpha=0.3)
    if right.lines:
        right.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)
