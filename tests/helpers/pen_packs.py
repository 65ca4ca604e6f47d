"""Packs of made-up pen strokes, as ``iamondb_strokes.npz`` of the data folder is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def pen_word(text: str, x: float, slope: float = 0.0) -> list[np.ndarray]:
    """One zigzag stroke a letter, 100 units wide and 100 high."""
    strokes = []
    for i in range(len(text)):
        left = x + 100 * i
        points = [(left, 0.0), (left + 40, 100.0), (left + 60, 20.0), (left + 85, 90.0)]
        strokes.append(np.array([(a, b + slope * a, 5.0) for a, b in points], np.float32))
    return strokes


def write_pack(path: Path, lines: list[tuple[str, str]], slope: float = 0.0) -> None:
    """A stroke pack of lines (id, text); every second one is for validation."""
    xy, ends, starts = [], [], [0]
    for _, text in lines:
        x = 0.0
        for word in text.split(" "):
            for stroke in pen_word(word, x, slope):
                xy += [(a, b) for a, b, _ in stroke]
                ends += [0] * (len(stroke) - 1) + [1]
            x += 100 * len(word) + 180
        starts.append(len(xy))
    points = np.round(np.array(xy)).astype(np.int32)
    np.savez(
        path,
        point_deltas=np.diff(points, axis=0, prepend=np.zeros((1, 2), np.int32)).astype(np.int16),
        dt_centiseconds=np.ones(len(points), np.uint8),
        pen_up=np.array(ends, np.uint8),
        line_start=np.array(starts),
        text=np.array([text for _, text in lines]),
        line_id=np.array([line_id for line_id, _ in lines]),
        is_validation=np.array([i % 2 == 1 for i in range(len(lines))]),
    )
