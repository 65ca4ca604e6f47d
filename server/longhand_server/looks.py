"""Other looks at a line that was read badly: the same normalised line, changed."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from longhand_server.config import LineFormat
from longhand_server.image import LineImage, place_ink

# Letters of this part of their size, and letters that lean this much less to the right (columns a row).
_SMALLER = 0.75
_UPRIGHT = 0.25


def upside_down(image: LineImage, line: LineFormat) -> tuple[LineImage, ...]:
    """The line turned by 180 degrees.

    Args:
        image: as :func:`longhand_server.image.normalise_line` made it.
        line: the shape it was made in.
    """
    width = image.pixels.shape[1]
    ink = image.pixels[:, line.margin : width - line.margin]
    right = image.source_left + width * image.source_scale
    turned = replace(
        image,
        pixels=place_ink(ink[::-1, ::-1], line),
        source_left=image.source_width - right,
        rotation=(image.rotation + 180) % 360,
    )
    return (turned,)


def other_looks(image: LineImage, line: LineFormat) -> tuple[LineImage, ...]:
    """The line with smaller letters, and with letters that lean less to the right.

    A network that is unsure of a line often reads it better so (see training/EXPERIMENTS.md).

    Args:
        image: as :func:`longhand_server.image.normalise_line` made it.
        line: the shape it was made in.
    """
    return _smaller(image, line), _upright(image, line)


def _smaller(image: LineImage, line: LineFormat) -> LineImage:
    ink = image.pixels[:, line.margin : image.pixels.shape[1] - line.margin]
    columns = max(round(_SMALLER * ink.shape[1]), 1)
    resized = cv2.resize(ink, (columns, round(_SMALLER * line.height)), interpolation=cv2.INTER_AREA)
    scale = image.source_scale * ink.shape[1] / columns
    left = image.source_left + line.margin * (image.source_scale - scale)
    return replace(image, pixels=place_ink(resized, line), source_left=left, source_scale=scale)


def _upright(image: LineImage, line: LineFormat) -> LineImage:
    height, width = image.pixels.shape
    # What the outermost rows move by, to either side; the middle one stays.
    reach = math.ceil(_UPRIGHT * height / 2)
    total = width + 2 * reach
    total += -total % line.frame_stride
    matrix = np.array([[1.0, _UPRIGHT, reach - _UPRIGHT * (height - 1) / 2], [0.0, 1.0, 0.0]])
    pixels = np.asarray(cv2.warpAffine(image.pixels, matrix, (total, height)), np.float32)
    return replace(image, pixels=pixels, source_left=image.source_left - reach * image.source_scale)
