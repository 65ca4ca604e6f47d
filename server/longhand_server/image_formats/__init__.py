"""Headers of the image formats that Longhand reads, parsed without decoding a pixel.

The decoders behind OpenCV trust what a header claims; these readers do not. Whatever they let
through has its dimensions known, its parts inside the file, and one picture in it.
"""

from __future__ import annotations

from longhand_server.errors import InvalidImageError
from longhand_server.image_formats import bmp, jpeg, png, tiff, webp
from longhand_server.image_formats.common import ImageHeader

__all__ = ["ImageHeader", "read_header"]

_NEEDED = "need a PNG, JPEG, WebP, TIFF or BMP file"
# Files that people send by mistake, so that the error can name them.
_STRANGERS = (
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"<", "HTML, SVG or XML"),
)


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of an image file whose format is told by its first bytes.

    Args:
        data: The whole file.

    Returns:
        The header. Dimensions may be anything that the format can express, 0 included.

    Raises:
        InvalidImageError: Not one of the five formats, truncated, damaged, animated,
            several pages, or of a kind that is not read.
    """
    if not data:
        raise InvalidImageError(f"empty image: got 0 bytes, {_NEEDED}")
    if data.startswith(png.MAGIC):
        return png.read(data)
    if data.startswith(jpeg.MAGIC):
        return jpeg.read(data)
    if webp.matches(data):
        return webp.read(data)
    if data[:4] in tiff.MAGICS:
        return tiff.read(data)
    if data.startswith(bmp.MAGIC):
        return bmp.read(data)
    raise InvalidImageError(f"not an image that is read: got {_describe(data)}, {_NEEDED}")


def _describe(data: bytes) -> str:
    if data[:4] in tiff.BIG_MAGICS:
        return "a BigTIFF"
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    for magic, name in _STRANGERS:
        if data.startswith(magic):
            return name
    if data[:512].isascii() and data[:512].decode("ascii").isprintable():
        return f"{len(data)} bytes of text"
    return f"{len(data)} bytes of an unknown format"
