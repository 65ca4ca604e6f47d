"""Damaged relatives of sound image files, the same ones for the same seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from helpers import image_samples as samples

_INTERESTING = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFF,
)


def seeds() -> list[bytes]:
    """Small sound files of every format, in many of its sorts."""
    grey = Image.fromarray(samples.line_pixels(97, 41))
    colour = Image.merge("RGB", [grey, grey.rotate(180), grey])
    alpha = Image.merge("RGBA", [*colour.split(), grey])
    levels = grey.point(lambda value: 255 if value > 128 else 0).convert("1")
    deep = Image.fromarray(samples.line_pixels(97, 41).astype("uint16") * 257)
    exif = Image.Exif()
    exif[274] = 6
    sorts: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((image, kind, {}) for image in (grey, colour, levels) for kind in ("PNG", "TIFF", "BMP")),
        *((image, "PNG", {}) for image in (alpha, deep, colour.quantize(16), grey.convert("LA"))),
        (colour.quantize(16), "PNG", {"transparency": 0}),
        (grey, "PNG", {"exif": exif}),
        (grey, "JPEG", {"exif": exif}),
        (colour, "JPEG", {}),
        (colour, "JPEG", {"progressive": True, "subsampling": 0}),
        (grey, "JPEG", {"progressive": True, "restart_marker_rows": 1}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "WEBP", {"lossless": False}),
        (alpha, "WEBP", {"lossless": False, "exif": exif}),
        (alpha, "WEBP", {"lossless": True}),
        (alpha, "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "tiff_deflate"}),
        (grey, "TIFF", {"compression": "packbits", "tiffinfo": {278: 5}}),
        (levels, "TIFF", {"compression": "group3"}),
        (levels, "TIFF", {"compression": "group4"}),
        (alpha, "BMP", {}),
    ]
    files = [
        samples.tiled_tiff(97, 41, 32, 16, samples=1, bits=8),
        samples.tiff_of(samples.line_pixels(97, 41), 0),
        samples.bitfield_bmp(np.asarray(alpha), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    ]
    for image, kind, options in sorts:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged files."""
    chooser = random.Random(seed)
    sound = seeds()
    for _ in range(count):
        data = bytearray(chooser.choice(sound))
        for _ in range(chooser.choice((1, 1, 1, 2, 4, 16))):
            _damage(data, chooser, sound)
        # A wrong checksum stops a PNG's reader early; half of them get further.
        yield (
            _mend_png(bytes(data)) if data.startswith(b"\x89PNG") and chooser.random() < 0.5 else bytes(data)
        )


def _damage(data: bytearray, chooser: random.Random, sound: list[bytes]) -> None:
    if not data:
        return
    at = chooser.randrange(len(data)) if chooser.random() < 0.5 else chooser.randrange(min(len(data), 96))
    kind = chooser.randrange(7)
    if kind == 0:
        data[at] ^= 1 << chooser.randrange(8)
    elif kind == 1:
        data[at] = chooser.choice((0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)))
    elif kind == 2:
        size, order = chooser.choice((2, 4)), chooser.choice("<>")
        value = chooser.choice(_INTERESTING) & (0xFFFF if size == 2 else 0xFFFFFFFF)
        data[at : at + size] = struct.pack(order + ("H" if size == 2 else "I"), value)
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at : at + chooser.randrange(1, 64)]
    elif kind == 5:
        data[at:at] = data[at : at + chooser.randrange(1, 256)] * chooser.choice((1, 2, 50))
    else:
        other = chooser.choice(sound)
        start = chooser.randrange(len(other))
        data[at : at + 32] = other[start : start + chooser.randrange(1, 256)]


def _mend_png(data: bytes) -> bytes:
    """Recomputes the checksums of a PNG's chunks, as far as they can be found."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)
