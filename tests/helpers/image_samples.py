"""Sound and hostile image files for tests, built byte by byte where no library would write them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What tells a sound image of each format to Pillow.
FORMATS: dict[str, dict[str, object]] = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "BMP": {},
}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **{**FORMATS[kind], **options})
    return buffer.getvalue()


def line_pixels(width: int = 240, height: int = 48) -> NDArray[np.uint8]:
    """A grey picture with slanted strokes, no two quarters of it alike."""
    y, x = np.mgrid[0:height, 0:width]
    ink = ((x + y // 2) % 23 < 3) & (y > height // 5) & (x < width * 4 // 5)
    grey = np.where(ink, 40 + x % 60, 235).astype(np.uint8)
    grey[: height // 8, : width // 8] = 10
    return grey


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    """A PNG chunk; ``length`` is what it claims."""
    return (
        struct.pack(">I", len(body) if length is None else length)
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body))
    )


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG with the chunks given after its IHDR."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks)


END = chunk(b"IEND", b"")


def png_of_zeros(width: int, height: int) -> bytes:
    """A sound PNG whose many pixels take few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(width, height, chunk(b"IDAT", data), END)


def png_with_lying_chunk() -> bytes:
    """219 bytes whose IDAT claims 4 GB."""
    body = zlib.compress(bytes(9 * 8))
    body += bytes(219 - 8 - 25 - 24 - len(body))
    return png(8, 8, chunk(b"IDAT", body, length=0xFFFFFFF0), END)


def tiff(fields: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: fields are (tag, type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\x00" + struct.pack("<IH", 8, len(fields)) + entries + struct.pack("<I", following) + tail


def plain_tiff(width: int, height: int, **changed: int) -> bytes:
    """A grey uncompressed TIFF; ``changed`` overrides a field: tag_256=..."""
    start = 8 + 2 + 9 * 12 + 4
    values = {
        256: (4, width),
        257: (4, height),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, start),
        277: (3, 1),
        278: (4, height),
        279: (4, width * height),
    }
    for name, value in changed.items():
        tag = int(name.removeprefix("tag_"))
        values[tag] = (values[tag][0], value)
    fields = [(tag, kind, 1, value) for tag, (kind, value) in sorted(values.items())]
    return tiff(fields, bytes(min(width * height, 1 << 20)))


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, body: bytes = b"") -> bytes:
    """A BMP with a BITMAPINFOHEADER that claims the size given."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + header + body


def progressive_jpeg_of_scans(width: int, height: int, extra: int) -> bytes:
    """A progressive JPEG with its last scan repeated ``extra`` times: little data, much work."""
    noise = np.random.default_rng(3).integers(0, 255, (height // 8, width // 8), np.uint8)
    picture = Image.fromarray(noise).resize((width, height)).convert("RGB")
    data = encode(picture, "JPEG", progressive=True, quality=60)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (1 + extra) + data[-2:]


def costly_images() -> dict[str, bytes]:
    """Sound files just inside the default limits that cost the most time or memory for their size."""
    width, height = 2000, 1500
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8))
    alpha = Image.fromarray(rng.integers(0, 2, (height, width), np.uint8) * 200)
    deep = zlib.compress(bytes((1 + 8 * width) * height), 1)
    return {
        "16-bit RGBA PNG": png(width, height, chunk(b"IDAT", deep), END, depth=16, colour=6),
        "noisy WebP": encode(noise, "WEBP", lossless=False, quality=50, method=0),
        "noisy WebP with transparency": encode(
            Image.merge("RGBA", [*noise.split(), alpha]), "WEBP", lossless=False, quality=30, method=0
        ),
        "JPEG of 20 scans": progressive_jpeg_of_scans(width, height, 10),
        "deflated RGBA TIFF": encode(Image.merge("RGBA", [alpha] * 4), "TIFF", compression="tiff_deflate"),
    }
