"""The images of a benchmark: files that were named, or drawn lines whose widths follow a distribution."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from pathlib import Path

from longhand_client.command.inputs import find_items
from longhand_client.errors import LonghandError
from longhand_client.images import image_bytes


def load_images(arguments: Sequence[str]) -> list[bytes]:
    """Reads the images that a command line names.

    Raises:
        LonghandError: one cannot be read, or there is none.
    """
    images: list[bytes] = []
    for item in find_items(arguments):
        if item.source is None:
            raise LonghandError(f"{item.name}: {item.problem}")
        images.append(image_bytes(Path(item.source) if isinstance(item.source, str) else item.source))
    return images


def draw_lines(count: int, *, median_width: int, spread: float, seed: int = 0) -> list[bytes]:
    """Draws lines of pen-like loops.

    Args:
        count: how many.
        median_width: median width in pixels; widths are log-normal, as those of real lines nearly are.
        spread: standard deviation of the logarithm of the width.
        seed: of the random numbers.

    Returns:
        PNG files, 64 pixels high.

    Raises:
        LonghandError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise LonghandError(
            "drawing lines needs Pillow: pip install '.[client]' in Longhand's folder, or name images"
        ) from error
    generator = random.Random(seed)
    lines: list[bytes] = []
    for _ in range(count):
        width = min(max(round(median_width * math.exp(generator.gauss(0, spread))), 80), 3000)
        line = Image.new("L", (width, 64), 245)
        pen = ImageDraw.Draw(line)
        left = 8.0
        while left < width - 30:
            left = _word(pen, generator, left, width) + generator.uniform(10, 22)
        buffer = io.BytesIO()
        line.save(buffer, "PNG")
        lines.append(buffer.getvalue())
    return lines


def _word(pen: object, generator: random.Random, left: float, width: int) -> float:
    from PIL.ImageDraw import ImageDraw

    assert isinstance(pen, ImageDraw)
    right = min(left + generator.uniform(25, 110), width - 8)
    phase, size = generator.uniform(0, 6), generator.uniform(8, 14)
    points = [
        (
            left + step * 0.9 + 5 * math.sin(step * 0.55),
            36 - size * math.cos(step * 0.5 + phase) * (1 + 0.4 * math.sin(step * 0.13)),
        )
        for step in range(int((right - left) / 0.9))
    ]
    pen.line(points, fill=generator.randint(20, 70), width=2, joint="curve")
    return right
