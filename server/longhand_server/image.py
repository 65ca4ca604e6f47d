"""A grey image of one text line -> the normalised line that the network reads.

The only preprocessing there is: the server and the training call the same function, so that a network is
never asked to read what it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_server.config import DEFAULT_IMAGE_LIMITS, ImageLimits, LineFormat
from longhand_server.errors import InvalidImageError
from longhand_server.image_file import MIN_SIDE, decode_grey

# Rows that a scan is brought to: few, which do for a crop that the text fills; where it turns out to fill less of
# them than the network's lines have rows, more.
_SCAN_ROWS = (96, 160)
# A scan that is taller than that by no more than this factor is taken as it is.
_NEARLY = 1.25
# Ink fainter than this part of the paper's brightness, everywhere, is a blank page.
_MIN_CONTRAST = 0.06
_MIN_INK_PIXELS = 12
# What counts as ink once typical ink is near 1.
_INK = 0.35
# Strokes of ordinary writing stand this far apart, as parts of the height of all its ink, in the rows that hold most
# of them. Where they stand closer or further apart, the line is brought some of the way there, within these bounds.
_CLOSE_STROKES = 0.25
_FAR_STROKES = 0.38
_PART_OF_THE_WAY = 0.5
_MOST_STRETCH = 1.4
_LEAST_HEIGHT = 0.5
# A line that is too long is squeezed, up to this factor: what is squeezed more is read wrong.
_MOST_SQUEEZE = 2.0
# Ink in fewer rows than this is a rule or a dash, which may be as long as it likes.
_LEAST_ROWS = 16
# Strokes are counted in as many neighbouring rows as are this part of the height.
_STROKE_ROWS = 0.11
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
# A picture taller than so many times its width is of a line on its side where a column crosses at least so many
# strokes, and so many times as many as a row does.
_TALL = 1.5
_SIDE_STROKES = 6
_SIDE_SHARE = 2
# A line is levelled when it rises by more than this part of the height, and is not steeper than 1 in 6.
_MIN_RISE = 0.1
_MAX_SLOPE = 1 / 6


@dataclass(frozen=True, eq=False)
class LineImage:
    """A normalised text line.

    Attributes:
        pixels: (H, W) float32, ink towards 1, paper 0; H is ``LineFormat.height``, W a multiple of
            ``LineFormat.frame_stride``.
        source_width, source_height: size of the image, px.
        source_left: x in the image where column 0 lies, px (can be negative: the margin).
        source_scale: px of the image per column.
        is_blank: no ink was found; ``pixels`` is all paper.
        rotation: degrees, clockwise, by which the image as sent was turned; sizes and places are those of the turned
            image.
    """

    pixels: NDArray[np.float32]
    source_width: int
    source_height: int
    source_left: float
    source_scale: float
    is_blank: bool
    rotation: int = 0

    def to_source_x(self, column: float) -> float:
        """X in px of the image, within it, for a column of :attr:`pixels`."""
        x = self.source_left + column * self.source_scale
        return min(max(x, 0.0), float(self.source_width))


def load_line_image(data: bytes, line: LineFormat, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> LineImage:
    """Decodes an encoded image (PNG, JPEG, WebP, TIFF, BMP) and normalises it; a line on its side is laid down.

    Whether it lies upside down then only its reading tells.

    Raises:
        InvalidImageError: not an image, damaged, too large, or smaller than 3 px on a side.
    """
    grey = decode_grey(data, limits)
    if _is_on_its_side(grey, line):
        return replace(normalise_line(np.ascontiguousarray(np.rot90(grey)), line), rotation=270)
    return normalise_line(grey, line)


def normalise_line(grey: NDArray[np.uint8], line: LineFormat) -> LineImage:
    """Evens out paper and ink, crops to the ink and scales to the line height.

    Letters that would come out huge take a part of the height, with paper above and below; narrow ones are widened.

    Args:
        grey: (H, W) uint8, dark ink on light paper (an inverted image is turned round).
        line: the shape wanted.

    Raises:
        InvalidImageError: smaller than 3 px on a side, or the writing is far wider than a line is.
    """
    height, width = grey.shape
    if min(height, width) < MIN_SIDE:
        raise InvalidImageError(
            f"image is {width} x {height} px; a text line needs at least {MIN_SIDE} px on either side"
        )
    for most_rows in _SCAN_ROWS:
        work, shrink_x = _shrink(grey, line, most_rows)
        ink = _level_ink(work)
        box = None if ink is None else _text_box(ink)
        if work.shape[0] == height or (box is not None and box[1] - box[0] >= line.height):
            break
    if ink is None or box is None:
        blank = np.zeros((line.height, 16 * line.frame_stride), np.float32)
        return LineImage(blank, width, height, 0.0, width / blank.shape[1], True)

    top, bottom, left, right = box
    crop = ink[top:bottom, left:right]
    height_share, stretch = _letter_size(crop)
    rows = round(line.height * height_share)
    longest = line.max_width - 2 * line.margin - line.frame_stride
    columns = min(max(round(crop.shape[1] * rows / crop.shape[0] * stretch), 1), longest)
    share = crop.shape[1] / shrink_x / (crop.shape[0] * height / work.shape[0])
    if share * rows * stretch > _MOST_SQUEEZE * longest and crop.shape[0] >= _LEAST_ROWS:
        raise InvalidImageError(
            f"the writing is {share:.0f} times as wide as high, more than is read at a time "
            f"({_MOST_SQUEEZE * longest / rows / stretch:.0f}); cut the line into parts"
        )
    method = cv2.INTER_AREA if rows < crop.shape[0] else cv2.INTER_LINEAR
    resized = cv2.resize(crop, (columns, rows), interpolation=method)

    pixels = place_ink(resized, line)
    source_scale = crop.shape[1] / columns / shrink_x
    source_left = left / shrink_x - line.margin * source_scale
    return LineImage(pixels, width, height, source_left, source_scale, False)


def _is_on_its_side(grey: NDArray[np.uint8], line: LineFormat) -> bool:
    height, width = grey.shape
    if height < _TALL * width:
        return False
    work, _ = _shrink(np.ascontiguousarray(np.rot90(grey)), line, _SCAN_ROWS[0])
    ink = _ink(work)
    if ink is None:
        return False
    along, across = (_most_strokes(turned, len(work)) for turned in (ink, np.ascontiguousarray(ink.T)))
    return along >= max(_SIDE_STROKES, _SIDE_SHARE * across)


def place_ink(ink: NDArray[Any], line: LineFormat) -> NDArray[np.float32]:
    """Ink of at most the line's height, halfway up it and between margins, as wide as whole frames."""
    rows, columns = ink.shape
    total = columns + 2 * line.margin
    total += -total % line.frame_stride
    pixels = np.zeros((line.height, total), np.float32)
    above = (line.height - rows) // 2
    pixels[above : above + rows, line.margin : line.margin + columns] = ink
    return pixels


def _shrink(grey: NDArray[np.uint8], line: LineFormat, most_rows: int) -> tuple[NDArray[np.uint8], float]:
    """A smaller copy of a large scan, and its columns per sent pixel."""
    height, width = grey.shape
    rows = height if height <= _NEARLY * most_rows else most_rows
    columns = min(max(round(width * rows / height), MIN_SIDE), 2 * line.max_width)
    if (rows, columns) == (height, width):
        return grey, 1.0
    small = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False), columns / width


def _level_ink(grey: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """The ink of this line alone, made level; None on a blank page."""
    ink = _ink(grey)
    if ink is None:
        return None
    slope = _slope(ink)
    if _clear_neighbours(ink, slope):
        slope = _slope(ink)
    return _sheared(ink, slope)


def _ink(grey: NDArray[np.uint8]) -> NDArray[np.float32] | None:
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
    paper = cv2.resize(paper, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
    ink = np.asarray(cv2.divide(grey, np.maximum(paper, 24), dtype=cv2.CV_32F), np.float32)
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
    mask = (ink > _INK).view(np.uint8)
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


def _slope(ink: NDArray[np.float32]) -> float:
    """Rows by which a line falls from one column to the next; 0 where it is level enough or too steep to be one."""
    height, width = ink.shape
    _, mass = cv2.threshold(ink, _INK, 0.0, cv2.THRESH_TOZERO)
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


def _strokes(ink: NDArray[np.float32]) -> NDArray[Any]:
    """How many strokes each row crosses."""
    mask = (ink > _INK).view(np.uint8)
    # Each has two edges.
    return np.asarray(
        0.5 * (mask[:, 0] + mask[:, -1] + np.count_nonzero(mask[:, 1:] != mask[:, :-1], axis=1))
    )


def _most_strokes(ink: NDArray[np.float32], height: int) -> float:
    """How many strokes the rows cross that cross most, in a line of that height."""
    by_row = _strokes(ink)
    rows = min(max(round(_STROKE_ROWS * height), 1), len(by_row))
    return float(np.convolve(by_row, np.full(rows, 1 / rows), "valid").max())


def _letter_band(ink: NDArray[np.float32]) -> tuple[int, int]:
    """The rows (exclusive end) of a level line's small letters."""
    strokes = _strokes(ink)
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


def _letter_size(ink: NDArray[np.float32]) -> tuple[float, float]:
    """How much of the line's height a crop should take, at most 1, and how much wider it should be, at least 1.

    A crop that cuts off the long letters would come out with huge letters, and one with a neighbour's ink with narrow
    ones.
    """
    strokes = _most_strokes(ink, len(ink))
    distance = ink.shape[1] / max(strokes, 1.0) / ink.shape[0]
    height_share = min((_FAR_STROKES / distance) ** _PART_OF_THE_WAY, 1.0)
    stretch = max((_CLOSE_STROKES / distance) ** _PART_OF_THE_WAY, 1.0)
    return max(height_share, _LEAST_HEIGHT), min(stretch, _MOST_STRETCH)


def _text_box(ink: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """Top, bottom, left, right (exclusive ends) of the ink, specks of dirt left out."""
    mask = (ink > _INK).astype(np.uint8)
    # Labels of 16 bits halve the time; of four neighbouring pixels at most one can begin a component.
    labels = cv2.CV_16U if mask.size // 4 < 1 << 15 else cv2.CV_32S
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=labels)
    least = max((ink.shape[0] / 40) ** 2, 3.0)
    boxes = stats[1:count]
    boxes = boxes[boxes[:, cv2.CC_STAT_AREA] >= least]
    if not len(boxes):
        return None
    left, top = boxes[:, 0].min(), boxes[:, 1].min()
    right = (boxes[:, 0] + boxes[:, 2]).max()
    bottom = (boxes[:, 1] + boxes[:, 3]).max()
    edge = max(round(0.03 * (bottom - top)), 1)
    return (
        max(int(top) - edge, 0),
        min(int(bottom) + edge, ink.shape[0]),
        max(int(left) - edge, 0),
        min(int(right) + edge, ink.shape[1]),
    )
