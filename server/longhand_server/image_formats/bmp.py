"""BMP headers (Windows bitmap, BITMAPCOREHEADER and BITMAPINFOHEADER to version 5)."""

from __future__ import annotations

import functools

from longhand_server.image_formats.common import ImageHeader, damaged, truncated, unsigned, unsupported

MAGIC = b"BM"
_KIND = "BMP"
_UNCOMPRESSED, _BITFIELDS = 0, 3
# Where a pixel's colours lie, by bits a pixel. OpenCV takes those of 32 bits for blue, green and red, whatever the
# header says; an ink with red and blue exchanged is about as dark.
_MASKS = {16: ({0xF800, 0x7E0, 0x1F}, {0x7C00, 0x3E0, 0x1F}), 32: ({0xFF0000, 0xFF00, 0xFF},)}
_OPACITY_MASK = 0xFF000000


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
        raise unsupported(_KIND, f"its header claims {header_size} bytes; 12, or 40 to 124, are read")
    if compression not in (_UNCOMPRESSED, _BITFIELDS):
        raise unsupported(_KIND, f"compression {compression}; only uncompressed ones are read")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise damaged(_KIND, f"{bits} bits a pixel")
    if width <= 0:
        raise damaged(_KIND, f"a width of {width} pixels")
    needed = offset + (width * bits + 31) // 32 * 4 * height
    if offset < 14 + header_size or needed > len(data):
        raise truncated(_KIND, f"its pixels need {needed} bytes, {len(data)} are there")
    has_opacity = False
    if compression == _BITFIELDS:
        masks = {number(at, 4) for at in (54, 58, 62)}
        if masks not in _MASKS.get(bits, ()):
            raise unsupported(_KIND, f"{bits} bits a pixel with colours in {sorted(map(hex, masks))}")
        # Where none is opaque, the program that wrote it had no transparency in mind.
        is_stated = bits == 32 and header_size >= 56 and number(66, 4) == _OPACITY_MASK
        has_opacity = is_stated and bool(data[offset + 3 : needed : 4].strip(b"\x00"))
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        # The fourth byte is opacity where the header says so; few programs mean it so where it does not.
        channels=4 if has_opacity else 3,
        bits=8,
        orientation=1,
        payload=data,
    )


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
