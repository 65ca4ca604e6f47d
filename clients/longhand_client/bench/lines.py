"""The images of a benchmark: files that were named, or drawn lines whose widths follow a distribution."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence

from longhand_client.command.inputs import find_items
from longhand_client.errors import LonghandError
from longhand_client.images import image_bytes

_WORDS = (
    "and the that this with from they were there which would could about people water other first little between "
    "a of to in is it he on as at be we so now how many time make long read line hand word write letter"
)


def load_images(arguments: Sequence[str]) -> list[bytes]:
    """Reads the images that a command line names.

    Raises:
        LonghandError: one cannot be read, or there is none.
    """
    images: list[bytes] = []
    for item in find_items(arguments):
        if item.source is None:
            raise LonghandError(f"{item.name}: {item.problem}")
        images.append(image_bytes(item.source))
    return images


def draw_lines(count: int, *, median_width: int, spread: float, seed: int = 0) -> list[bytes]:
    """Draws lines of words, which a model reads surely: of scribbles it is unsure, and may read them more than once.

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
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise LonghandError(
            "drawing lines needs Pillow: pip install '.[client]' in Longhand's folder, or name images"
        ) from error
    generator = random.Random(seed)
    font = ImageFont.load_default(30)
    widths = {word: font.getlength(f"{word} ") for word in _WORDS.split()}
    vocabulary = list(widths)
    lines: list[bytes] = []
    for _ in range(count):
        width = min(max(round(median_width * math.exp(generator.gauss(0, spread))), 80), 3000)
        words = [generator.choice(vocabulary)]
        room = width - 16 - widths[words[0]]
        while (room := room - widths[word := generator.choice(vocabulary)]) > 0:
            words.append(word)
        line = Image.new("L", (width, 64), 245)
        ImageDraw.Draw(line).text(
            (8, 32), " ".join(words), fill=generator.randint(20, 70), font=font, anchor="lm"
        )
        buffer = io.BytesIO()
        line.save(buffer, "PNG")
        lines.append(buffer.getvalue())
    return lines
