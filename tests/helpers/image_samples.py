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


def packed_zeros(count: int) -> bytes:
    """The zlib stream of ``count`` zeros: that of a megabyte over and over, as zlib itself takes seconds for many."""
    megabytes, rest = divmod(count, 1 << 20)
    packer = zlib.compressobj(9, wbits=-15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, wbits=-15)
    last = packer.compress(bytes(rest)) + packer.flush()
    adler32 = count % 65_521 << 16 | 1
    return b"\x78\xda" + megabyte * megabytes + last + struct.pack(">I", adler32)


def png_of_zeros(width: int, height: int) -> bytes:
    """A sound PNG whose many pixels take few bytes."""
    return png(width, height, chunk(b"IDAT", packed_zeros((1 + width) * height)), END)


def png_with_lying_chunk() -> bytes:
    """219 bytes whose IDAT claims 4 GB."""
    body = zlib.compress(bytes(9 * 8))
    body += bytes(219 - 8 - 25 - 24 - len(body))
    return png(8, 8, chunk(b"IDAT", body, length=0xFFFFFFF0), END)


def tiff(fields: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: fields are (tag, type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\x00" + struct.pack("<IH", 8, len(fields)) + entries + struct.pack("<I", following) + tail


def plain_tiff(width: int, height: int, **changed: int | tuple[int, int]) -> bytes:
    """A grey uncompressed TIFF; ``changed`` overrides a field's value, or type and value: tag_256=..."""
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
        values[tag] = value if isinstance(value, tuple) else (values[tag][0], value)
    fields = [(tag, kind, 1, value) for tag, (kind, value) in sorted(values.items())]
    return tiff(fields, bytes(min(width * height, 1 << 20)))


def tiff_of(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], photometric: int, extra: int | None = None
) -> bytes:
    """An uncompressed TIFF of these samples: (H, W) or (H, W, S); ``extra`` is what the fourth one is said to be."""
    height, width, samples = (*pixels.shape, 1)[:3]
    bits = 8 * pixels.itemsize
    fields = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (262, 3, 1, photometric)]
    fields += [(277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, pixels.nbytes)]
    fields += [] if extra is None else [(338, 3, 1, extra)]
    start = 8 + 2 + 12 * (len(fields) + 2) + 4
    fields += [(258, 3, samples, bits if samples == 1 else start), (273, 4, 1, start + 2 * samples)]
    return tiff(sorted(fields), struct.pack(f"<{samples}H", *[bits] * samples) + pixels.tobytes())


def tiff_of_two_sizes(first: int, second: int) -> bytes:
    """A deflated TIFF that states two widths and two heights; what it holds is of the first ones."""
    pixels = packed_zeros(first * first)
    sizes = [(256, 4, 1, first), (256, 4, 1, second), (257, 4, 1, first), (257, 4, 1, second)]
    start = 8 + 2 + 12 * 11 + 4
    rest = [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, start), (277, 3, 1, 1)]
    return tiff([*sizes, *rest, (278, 4, 1, first), (279, 4, 1, len(pixels))], pixels)


def tiled_tiff(width: int, height: int, across: int, down: int, samples: int = 4, bits: int = 16) -> bytes:
    """A deflated TIFF of tiles of that size, all of them the same bytes of the file."""
    pixels = packed_zeros(across * down * samples * bits // 8)
    tiles = -(-width // across) * -(-height // down)
    fields = 11 if samples < 4 else 12
    start = 8 + 2 + 12 * fields + 4
    lists = b"".join(struct.pack(f"<{tiles}I", *([value] * tiles)) for value in (start, len(pixels)))
    at = start + len(pixels)
    extra = [(338, 3, 1, 2)] if samples == 4 else []
    several = samples * 2 > 4
    depth_at = at + len(lists)
    return tiff(
        [
            *((256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, depth_at if several else bits)),
            *((259, 3, 1, 8), (262, 3, 1, 2 if samples > 1 else 1), (277, 3, 1, samples), (284, 3, 1, 1)),
            *((322, 4, 1, across), (323, 4, 1, down)),
            (324, 4, tiles, at if tiles > 1 else start),
            (325, 4, tiles, at + 4 * tiles if tiles > 1 else len(pixels)),
            *extra,
        ],
        pixels + lists + struct.pack(f"<{samples}H", *([bits] * samples)),
    )


def jpeg_of_exif_bomb() -> bytes:
    """A sound JPEG with blocks of EXIF that state 256 fields of 65,000 values each, all in the same place."""
    fields = [(1_000 + n, 1, 65_000, 0) for n in range(256)]
    exif = b"Exif\x00\x00" + tiff(fields, bytes(65_400 - 12 * 256 - 14))
    data = encode(Image.fromarray(line_pixels()), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return data[:2] + segment * 40 + data[2:]


def _lossless_webp(side: int) -> bytes:
    """The VP8L stream of a white square: every code of it has one symbol, so that a pixel takes no bits."""
    bits, count = 0, 0
    fields = [(0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for _ in range(4):
        fields += [(1, 1), (0, 1), (1, 1), (255, 8)]
    fields += [(1, 1), (0, 1), (0, 1), (0, 1)]
    for value, width in fields:
        bits |= value << count
        count += width
    return bits.to_bytes((count + 7) // 8, "little") + bytes(16)


def _riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunk + bytes(len(chunk) % 2) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _small_webp_picture() -> bytes:
    return encode(Image.new("RGB", (8, 8), "white"), "WEBP", lossless=False)[12:]


def webp_of_two_pictures(side: int) -> bytes:
    """A WebP of a large picture of few bytes and, behind it, a small one."""
    large = _lossless_webp(side)
    return _riff(b"VP8L" + struct.pack("<I", len(large)) + large, _small_webp_picture())


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, body: bytes = b"") -> bytes:
    """A BMP with a BITMAPINFOHEADER that claims the size given."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + header + body


def bitfield_bmp(pixels: NDArray[np.uint8], masks: tuple[int, int, int, int]) -> bytes:
    """A BMP (BITMAPV4HEADER) of pixels of 4 bytes, whose red, green, blue and opacity lie where the masks say."""
    height, width, _ = pixels.shape
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, 0, 0, 0, 0, 0)
    header += struct.pack("<4I", *masks) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 122 + pixels.nbytes, 0, 0, 122) + header + pixels.tobytes()


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
        "TIFF of tiles larger than the picture": tiled_tiff(2_000, 500, 1_024, 1_024),
        "TIFF of small tiles": tiled_tiff(1_296, 1_600, 16, 16, bits=8),
        "JPEG with much EXIF": jpeg_of_exif_bomb(),
        **{
            f"RGBA TIFF, {packing}": encode(Image.merge("RGBA", [alpha] * 4), "TIFF", compression=packing)
            for packing in ("tiff_deflate", "tiff_lzw")
        },
    }
