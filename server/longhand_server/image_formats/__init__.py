"""Headers of the image formats that Longhand reads, parsed without decoding a pixel.

The decoders behind OpenCV trust what a header claims; these readers do not. Whatever they let
through has its dimensions known, its parts inside the file, and one picture in it.
"""

from __future__ import annotations

import codecs

from longhand_server.errors import InvalidImageError
from longhand_server.image_formats import bmp, jpeg, png, tiff, webp
from longhand_server.image_formats.common import ImageHeader

__all__ = ["ImageHeader", "read_header"]

_NEEDED = "need a PNG, JPEG, WebP, TIFF or BMP file"
# Files that people send by mistake, so that the error can name them.
_STRANGERS = (
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"AT&TFORM", "a DjVu"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x00\x05\x16\x07", "what macOS stores beside a file (._NAME)"),
    (b"\x89PNG", "a PNG with its line ends converted, as a transfer of text does"),
    (b"\xef\xbf\xbd", "an image that was converted to UTF-8 as if it were text"),
    (b"\xc2\x89PNG", "an image that was converted to UTF-8 as if it were text"),
    (b"\xc3\xbf\xc3\x98", "an image that was converted to UTF-8 as if it were text"),
)
# Behind "ftyp".
_BRANDS = ((b"avi", "an AVIF"), (b"hei", "a HEIC"), (b"hev", "a HEIC"), (b"mif1", "a HEIC or AVIF"))
# What PNG, JPEG, WebP, TIFF and BMP begin with, in base64.
_BASE64 = ("data:image/", "iVBORw0KGgo", "/9j/", "UklGR", "SUkqA", "TU0AK", "Qk0", "Qk1", "Qk2", "Qk3")


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
        return next((name for brand, name in _BRANDS if data[8:].startswith(brand)), "a video")
    for magic, name in _STRANGERS:
        if data.startswith(magic):
            return name
    if not data.strip(b"\x00"):
        return f"{len(data)} bytes that are all 0"
    return _describe_text(data) or f"{len(data)} bytes of an unknown format"


def _describe_text(data: bytes) -> str | None:
    try:
        # The last character may be cut, which is no error of an unfinished text.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:512])
    except UnicodeDecodeError:
        return None
    text = text.lstrip()
    if text.startswith("<"):
        return "HTML, SVG or XML"
    if text.startswith(_BASE64):
        return "an image in base64, as text"
    return f"{len(data)} bytes of text" if "".join(text.split()).isprintable() else None
