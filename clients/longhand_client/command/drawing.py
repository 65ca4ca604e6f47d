"""A picture of a reading: the line, and under it each character in its place, coloured by its confidence."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from longhand_client.errors import LonghandError
from longhand_client.results import Span, Transcription

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

SURE, UNSURE = (0, 110, 60), (200, 30, 30)
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
BAND = 0.75  # height of the text's band, in heights of the line


def draw_reading(image: bytes, transcription: Transcription) -> bytes:
    """Draws a reading under its line.

    Args:
        image: the image file that was read.
        transcription: its reading, with characters.

    Returns:
        A PNG file; characters go from red (a guess) to green (certain).

    Raises:
        LonghandError: Pillow is not installed, or cannot read the image.
    """
    try:
        from PIL import Image, ImageDraw, ImageOps
    except ImportError as error:
        raise LonghandError("--show needs Pillow: pip install '.[client]' in Longhand's folder") from error
    try:
        with Image.open(io.BytesIO(image)) as opened:
            line = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise LonghandError(f"cannot draw it: {error}") from error
    height = max(round(line.height * BAND), 16)
    picture = Image.new("RGB", (line.width, line.height + height), "white")
    picture.paste(line, (0, 0), line)
    pen = ImageDraw.Draw(picture)
    font, write = _font(height * 0.7)
    for character in transcription.characters:
        colour = _colour(character)
        middle = (character.x_start + character.x_end) / 2
        pen.line([(middle, line.height - 1), (middle, line.height + height * 0.12)], fill=colour)
        pen.text(
            (middle, line.height + height * 0.92), write(character.text), fill=colour, font=font, anchor="ms"
        )
    return _png(picture)


def _font(size: float) -> tuple[FreeTypeFont | ImageFont, Callable[[str], str]]:
    """A font, and what must be done to a text before it can be written with it."""
    from PIL import ImageFont

    for name in FONTS:
        try:
            return ImageFont.truetype(name, size), str
        except OSError:
            continue
    # Pillow's own font knows the letters without their accents only.
    return ImageFont.load_default(size), _without_accents


def _without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))


def _colour(character: Span) -> tuple[int, int, int]:
    share = min(max(character.confidence, 0.0), 1.0)
    red, green, blue = (round(low + share * (high - low)) for low, high in zip(UNSURE, SURE, strict=True))
    return red, green, blue


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
