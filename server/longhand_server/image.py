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
from longhand_server.ink import INK, count_strokes, find_ink, find_level_ink

# Rows that a scan is brought to: few, which do for a crop that the text fills; where it turns out to fill less of
# them than the network's lines have rows, more.
_SCAN_ROWS = (96, 160)
# A scan that is taller than that by no more than this factor is taken as it is.
_NEARLY = 1.25
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
# A picture taller than so many times its width is of a line on its side where a column crosses at least so many
# strokes, and so many times as many as a row does.
_TALL = 1.5
_SIDE_STROKES = 6
_SIDE_SHARE = 2


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
        ink = find_level_ink(work)
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
    ink = find_ink(work)
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


def _most_strokes(ink: NDArray[np.float32], height: int) -> float:
    """How many strokes the rows cross that cross most, in a line of that height."""
    by_row = count_strokes(ink)
    rows = min(max(round(_STROKE_ROWS * height), 1), len(by_row))
    return float(np.convolve(by_row, np.full(rows, 1 / rows), "valid").max())


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
    mask = (ink > INK).astype(np.uint8)
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
