"""A grey image of a text line -> its ink, dark strokes told from paper of any brightness, made level."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Ink fainter than this part of the paper's brightness, everywhere, is a blank page.
_MIN_CONTRAST = 0.06
_MIN_INK_PIXELS = 12
# What counts as ink once typical ink is near 1.
INK = 0.35
# Paper is told from ink by how often its brightness occurs and, with this weight, by how lopsided the brightness is
# round its local mean, where strokes are the sharper exceptions. The first alone takes a shadow for ink, the second a
# dark frame for paper.
_SKEW_WEIGHT = 0.2
# The rows between which a line's small letters lie: as many as this part of the height hold the most strokes, but for
# those at their ends with fewer than this part of what the rows hold on average.
_BAND_ROWS = 0.25
_BAND_STROKES = 0.5
# Ink that comes in over the image's edge and ends this many heights of the small letters away from them is a
# neighbour's.
_NEIGHBOUR_GAP = 0.5
# Strokes are averaged over neighbouring rows, as many as this part of the height, to tell the rows of small letters.
_SMOOTH_ROWS = 0.05
# A line is levelled when it rises by more than this part of the height, and is not steeper than 1 in 6.
_MIN_RISE = 0.1
_MAX_SLOPE = 1 / 6


def find_level_ink(grey: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """The ink of this line alone, made level; None on a blank page."""
    ink = find_ink(grey)
    if ink is None:
        return None
    slope = _slope(ink)
    if _clear_neighbours(ink, slope):
        slope = _slope(ink)
    return _sheared(ink, slope)


def find_ink(grey: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """(H, W) ink darkness relative to the paper round it, typical ink near 1; None on a blank page."""
    # Work is done in place and by OpenCV where it can be: this runs for every image, often on many threads.
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    there = np.flatnonzero(counts)
    darkest, lightest = int(there[0]), int(there[-1])
    if lightest - darkest < _MIN_CONTRAST * 255:
        return None
    common = (_median(counts) - 0.5 * (darkest + lightest)) / (lightest - darkest)
    if common < _SKEW_WEIGHT * _skewness(grey):
        grey = 255 - grey
    # The paper's brightness: grey closing takes the strokes away, the blur evens out its blocks.
    span = max(grey.shape[0] // 3, 5)
    small = cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    kernel = np.ones((max(span // 4, 3), max(span // 2, 3)), np.uint8)
    padded = cv2.copyMakeBorder(small, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    paper = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    paper = cv2.blur(paper, (9, 9))[8:-8, 8:-8]
    # In floats, since OpenCV rounds whole greys otherwise on ARM than on x86.
    paper = np.maximum(paper, 24).astype(np.float32)
    ink = np.asarray(
        cv2.resize(paper, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32
    )
    np.divide(grey, ink, out=ink)
    np.subtract(1.0, ink, out=ink)
    np.maximum(ink, 0.0, out=ink)

    levels = np.multiply(ink, 255.0).astype(np.uint8)
    _, strong = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    count = cv2.countNonZero(strong)
    # As cv2.mean with a mask, in a quarter of its time.
    mean = cv2.sumElems(cv2.copyTo(ink, strong))[0] / max(count, 1)
    if count < _MIN_INK_PIXELS or mean < _MIN_CONTRAST:
        return None
    # Strokes of a faint pencil and of a felt pen come out alike.
    full = 1.1 * mean
    floor = 0.12 * full
    ink -= np.float32(floor)
    ink /= np.float32(full - floor)
    return np.clip(ink, 0.0, 1.0, out=ink)


def _skewness(grey: NDArray[np.uint8]) -> float:
    """Of the brightness round its local mean: below 0 where strokes are dark."""
    small = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    side = max(small.shape[0] // 2, 3) | 1
    small -= cv2.blur(small, (side, side), borderType=cv2.BORDER_REPLICATE)
    squares = small * small
    spread = float(squares.mean()) ** 1.5
    return float((squares * small).mean()) / spread if spread > 0 else 0.0


def _median(counts: NDArray[Any]) -> float:
    """The median of values of which there are so many each."""
    upto = np.cumsum(counts, dtype=np.int64)
    low, high = np.searchsorted(upto, ((upto[-1] - 1) // 2, upto[-1] // 2), "right")
    return 0.5 * float(low + high)


def _clear_neighbours(ink: NDArray[np.float32], slope: float) -> bool:
    """Takes away, in place, what the lines above and below have left at the edges; whether there was any."""
    mask = (ink > INK).view(np.uint8)
    if not (mask[0].any() or mask[-1].any()):
        return False
    height, width = ink.shape
    top, bottom = _letter_band(_sheared(ink, slope))
    gap = _NEIGHBOUR_GAP * (bottom - top)
    # The row of each column at which a level line would have its row 0.
    origin = slope * np.arange(width) - _shear_offset(slope, width)
    at_top = _clear_edge(ink, mask, origin + top - gap)
    at_bottom = _clear_edge(ink[::-1], mask[::-1], height - origin - bottom - gap)
    return at_top or at_bottom


def _clear_edge(ink: NDArray[np.float32], mask: NDArray[np.uint8], depths: NDArray[Any]) -> bool:
    """Takes away, in place, ink that crosses the edge at row 0 and ends before its column's depth; whether any did.

    Where more of the edge is crossed by ink that reaches deeper, the crop cuts this line's own long letters, and all
    ink is its own.
    """
    ends = np.clip(depths, 0, len(ink)).astype(int)
    strip = mask[: ends.max()] & (np.arange(ends.max())[:, None] < ends)
    if not strip[:1].any():
        return False
    count, labels = cv2.connectedComponents(strip, connectivity=8)
    columns = np.flatnonzero(ends)
    is_deep = np.zeros(count, np.bool_)
    is_deep[labels[ends[columns] - 1, columns]] = True
    crossing = labels[0][labels[0] > 0]
    is_foreign = np.zeros(count, np.bool_)
    is_foreign[crossing] = ~is_deep[crossing]
    part = np.count_nonzero(is_foreign[crossing])
    if part == 0 or 2 * part < np.count_nonzero(mask[0]):
        return False
    # With the grey fringe round it.
    gone = cv2.dilate(is_foreign[labels].view(np.uint8), np.ones((3, 3), np.uint8))
    ink[: len(gone)][gone > 0] = 0.0
    return True


def _letter_band(ink: NDArray[np.float32]) -> tuple[int, int]:
    """The rows (exclusive end) of a level line's small letters."""
    strokes = count_strokes(ink)
    height = len(strokes)
    rows = max(round(_BAND_ROWS * height), 1)
    sums = np.convolve(strokes, np.ones(rows), "valid")
    top = int(sums.argmax())
    bottom = top + rows
    smooth = max(round(_SMOOTH_ROWS * height), 1)
    is_dense = np.convolve(strokes, np.full(smooth, 1 / smooth), "same") >= _BAND_STROKES * sums[top] / rows
    while top < bottom - 1 and not is_dense[top]:
        top += 1
    while bottom > top + 1 and not is_dense[bottom - 1]:
        bottom -= 1
    while top > 0 and is_dense[top - 1]:
        top -= 1
    while bottom < height and is_dense[bottom]:
        bottom += 1
    return top, bottom


def _slope(ink: NDArray[np.float32]) -> float:
    """Rows by which a line falls from one column to the next; 0 where it is level enough or too steep to be one."""
    height, width = ink.shape
    _, mass = cv2.threshold(ink, INK, 0.0, cv2.THRESH_TOZERO)
    column_mass = cv2.reduce(mass, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[0]
    total = float(column_mass.sum())
    if width < 3 * height or total <= 0:
        return 0.0
    columns = np.arange(width)
    x = columns - float((column_mass * columns).sum()) / total
    y = np.arange(height, dtype=np.float32) @ mass  # first moment of each column
    spread = float((column_mass * x * x).sum())
    slope = float((y * x).sum()) / spread if spread > 0 else 0.0
    return slope if _MIN_RISE * height < abs(slope) * width < _MAX_SLOPE * width else 0.0


def _sheared(ink: NDArray[np.float32], slope: float) -> NDArray[np.float32]:
    """A line of this slope made level, column by column, so that x stays what it was."""
    if slope == 0.0:
        return ink
    height, width = ink.shape
    matrix = np.array([[1.0, 0.0, 0.0], [-slope, 1.0, _shear_offset(slope, width)]])
    return np.asarray(cv2.warpAffine(ink, matrix, (width, height + round(abs(slope) * width))), np.float32)


def _shear_offset(slope: float, width: int) -> int:
    """Rows by which shearing moves column 0 down, so that no column leaves the image at its top."""
    return round(slope * width) if slope > 0 else 0


def count_strokes(ink: NDArray[np.float32]) -> NDArray[Any]:
    """How many strokes each row crosses."""
    mask = (ink > INK).view(np.uint8)
    # Each has two edges.
    return np.asarray(
        0.5 * (mask[:, 0] + mask[:, -1] + np.count_nonzero(mask[:, 1:] != mask[:, :-1], axis=1))
    )
