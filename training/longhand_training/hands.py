"""Pen strokes as another hand might have written them, so that few hundred writers stand for many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from longhand_training.strokes import PenText, Points, ends_of_points

# Small letters without their long parts lie between these quantiles of all heights, about.
_BODY = (0.2, 0.8)
# A raised pen that travels no further than this part of the line's height can have stayed on the paper.
_NEAR = 0.35
# Points of a dot or a comma, which nobody joins to a letter.
_DOT = 4


def another_hand(pen: PenText, rng: np.random.Generator) -> PenText:
    """Long letters shorter or longer, widths that vary along the line, rounder strokes, letters joined, at random.

    Args:
        pen: some text.
        rng: source of all chance.

    Returns:
        The same text; as it was in one case of five.
    """
    if rng.random() < 0.2:
        return pen
    points, starts = pen.points.copy(), pen.starts
    if rng.random() < 0.6:
        points[:, 1] = _long_parts(points[:, 1], *np.exp(rng.normal(-0.05, 0.3, 2)))
    if rng.random() < 0.5:
        points[:, 0] = _uneven(points[:, 0], float(np.ptp(points[:, 1])), rng)
    if rng.random() < 0.35:
        of_a_letter = len(points) / max(len(pen.text.replace(" ", "")), 1)
        reach = round(float(rng.uniform(0.06, 0.2)) * of_a_letter)
        points[:, :2] = _rounded(points[:, :2], starts, reach)
    if rng.random() < 0.3:
        starts = _joined(points, starts, float(rng.uniform(0.1, 0.8)), rng)
    return replace(pen, points=points, starts=starts)


def _long_parts(y: NDArray[np.float32], above: float, below: float) -> NDArray[np.float32]:
    """Heights (y down) with what reaches above and below the small letters scaled."""
    top, foot = np.quantile(y, _BODY)
    scaled = np.where(y < top, top + (y - top) * above, np.where(y > foot, foot + (y - foot) * below, y))
    return scaled.astype(np.float32)


def _uneven(x: NDArray[np.float32], height: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Places along the line with letters now narrower, now wider, by two fifths at most."""
    length = float(rng.uniform(0.7, 5.0)) * max(height, 1.0)
    swing = float(rng.uniform(0.1, 0.4)) * length / (2 * np.pi)
    angles = x * (2 * np.pi / length) + float(rng.uniform(0, 6.28))
    return np.asarray(x + swing * np.sin(angles), np.float32)


def _rounded(places: NDArray[np.float32], starts: NDArray[np.intp], reach: int) -> NDArray[np.float32]:
    """The mean of each place and the ``reach`` ones at either side within its stroke."""
    first, last, _ = ends_of_points(starts, len(places))
    around = np.arange(len(places)) + np.arange(-reach, reach + 1)[:, np.newaxis]
    mean: NDArray[np.float32] = places[np.clip(around, first, last)].mean(0)
    return mean


def _joined(
    points: Points, starts: NDArray[np.intp], share: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """The strokes' starts without some of those to which the pen had a short way to the right."""
    ends = np.append(starts[1:], len(points))
    long = ends - starts >= _DOT
    way = points[starts[1:], :2] - points[ends[:-1] - 1, :2]
    near = np.hypot(way[:, 0], way[:, 1]) < _NEAR * np.ptp(points[:, 1])
    rightwards = way[:, 0] > -0.3 * np.abs(way[:, 1])
    joins = near & rightwards & long[1:] & long[:-1] & (rng.random(len(way)) < share)
    kept: NDArray[np.intp] = starts[np.append(True, ~joins)]
    return kept
