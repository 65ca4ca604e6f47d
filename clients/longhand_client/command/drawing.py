"""A picture of a reading: the line, and under it each character in its place, coloured by its confidence."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from longhand_client.errors import LonghandError
from longhand_client.results import Span, Transcription

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

SURE, UNSURE = (0, 80, 140), (213, 94, 0)  # not green and red, which look alike to many
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
BAND = 0.75  # height of the text's band, in heights of the line
SMALLEST = 8.0  # size of letters that can still be read, px


def draw_reading(image: bytes, transcription: Transcription) -> bytes:
    """Draws a reading under its line.

    Args:
        image: the image file that was read.
        transcription: its reading, with characters.

    Returns:
        A PNG file, the line the right way up; characters go from orange (a guess) to blue (certain).

    Raises:
        LonghandError: Pillow is not installed, or cannot read the image.
    """
    try:
        from PIL import Image, ImageDraw, ImageOps
    except ImportError as error:
        raise LonghandError("--show needs Pillow: pip install '.[client]' in Longhand's folder") from error
    try:
        with Image.open(io.BytesIO(image)) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # of 10 to 16 bits, which `convert` would cut off at 255
                _, lightest = cast("tuple[int, int]", upright.convert("I").getextrema())
                upright = upright.point(lambda value: value * (255 / max(lightest, 255))).convert("L")
            line = upright.convert("RGBA").rotate(-transcription.rotation, expand=True)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise LonghandError(f"cannot draw it: {error}") from error
    height = max(round(line.height * BAND), 16)
    picture = Image.new("RGB", (line.width, line.height + height), "white")
    picture.paste(line, (0, 0), line)
    pen = ImageDraw.Draw(picture)
    size = height * 0.7
    font, write = _font(size)
    share = _share_that_fits(transcription.characters, lambda text: font.getlength(write(text)))
    if share < 1:
        font, write = _font(max(size * share, SMALLEST))
    for character in transcription.characters:
        colour = _colour(character)
        middle = (character.x_start + character.x_end) / 2
        pen.line([(middle, line.height - 1), (middle, line.height + height * 0.12)], fill=colour)
        pen.text(
            (middle, line.height + height * 0.8), write(character.text), fill=colour, font=font, anchor="ms"
        )
    drawn = io.BytesIO()
    picture.save(drawn, "PNG")
    return drawn.getvalue()


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


def _share_that_fits(characters: Sequence[Span], width: Callable[[str], float]) -> float:
    """The share of the font's size at which letters leave each other room, each in its place.

    Seven of eight fit: for the very narrowest place, which is often a slip of the model's, all would be tiny.
    """
    widths = [(one.x_end - one.x_start, width(one.text)) for one in characters if not one.text.isspace()]
    shares = sorted(place / letter for place, letter in widths if letter)
    return shares[len(shares) // 8] if shares else 1.0


def _without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))


def _colour(character: Span) -> tuple[int, int, int]:
    share = min(max(character.confidence, 0.0), 1.0)
    red, green, blue = (round(low + share * (high - low)) for low, high in zip(UNSURE, SURE, strict=True))
    return red, green, blue
