"""BMP headers (Windows bitmap, BITMAPCOREHEADER and BITMAPINFOHEADER to version 5)."""

from __future__ import annotations

import functools

from longhand_server.image_formats.common import ImageHeader, damaged, truncated, unsigned, unsupported

MAGIC = b"BM"
_KIND = "BMP"
_UNCOMPRESSED, _BITFIELDS = 0, 3


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that all pixels lie inside the file.

    Raises:
        InvalidImageError: The file is truncated, compressed, or contradicts itself.
    """
    number = functools.partial(unsigned, data, byteorder="little", kind=_KIND)
    offset = number(10, 4)
    header_size = number(14, 4)
    if header_size == 12:
        width = number(18, 2)
        height = number(20, 2)
        bits, compression = number(24, 2), _UNCOMPRESSED
    elif 40 <= header_size <= 124:
        width = _signed(number(18, 4))
        # A negative height means that the rows stand from top to bottom.
        height = abs(_signed(number(22, 4)))
        bits = number(28, 2)
        compression = number(30, 4)
        if number(46, 4) > 256:
            raise damaged(_KIND, "its palette has more than 256 colours")
    else:
        raise damaged(_KIND, f"its header claims {header_size} bytes")
    if compression not in (_UNCOMPRESSED, _BITFIELDS):
        raise unsupported(_KIND, f"compression {compression}; only uncompressed ones are read")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise damaged(_KIND, f"{bits} bits a pixel")
    if width <= 0:
        raise damaged(_KIND, f"a width of {width} pixels")
    needed = offset + (width * bits + 31) // 32 * 4 * height
    if offset < 14 + header_size or needed > len(data):
        raise truncated(_KIND, f"its pixels need {needed} bytes, {len(data)} are there")
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        # OpenCV drops the fourth byte, which few programs mean as transparency.
        channels=3,
        bits=8,
        orientation=1,
        payload=data,
    )


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
