"""PNG headers (W3C Portable Network Graphics Specification)."""

from __future__ import annotations

from longhand_server.image_formats.common import ImageHeader, damaged, truncated, unsigned, unsupported
from longhand_server.image_formats.tiff import exif_orientation

MAGIC = b"\x89PNG\r\n\x1a\n"
_KIND = "PNG"
# A 4 MiB PNG with the customary 8 KiB of data in a chunk has some 500.
_MAX_CHUNKS = 10_000
# Only these go to the decoder: texts, colour profiles and animations are what bombs are made of.
_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that every chunk lies inside the file.

    Raises:
        InvalidImageError: The file is truncated or contradicts itself.
    """
    kept, orientation = _sift_chunks(data)
    header = kept[0]
    if header[4:8] != b"IHDR" or len(header) != 25:
        raise damaged(_KIND, "it does not begin with an IHDR chunk of 13 bytes")
    depth, colour = header[16], header[17]
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged(_KIND, f"colour type {colour} with {depth} bits a sample does not exist")
    names = [chunk[4:8] for chunk in kept]
    if b"IDAT" not in names:
        raise truncated(_KIND, "it holds no pixel data (no IDAT chunk)")
    if names.count(b"IHDR") > 1:
        raise damaged(_KIND, "it has two IHDR chunks")
    transparent = colour in (4, 6) or (colour != 0 and b"tRNS" in names)
    return ImageHeader(
        kind=_KIND,
        width=int.from_bytes(header[8:12], "big"),
        height=int.from_bytes(header[12:16], "big"),
        channels=4 if transparent else (1 if colour == 0 else 3),
        bits=16 if depth == 16 else 8,
        orientation=orientation,
        payload=MAGIC + b"".join(kept),
        transparent_grey=_transparent_grey(kept, depth) if colour == 0 else None,
    )


def _transparent_grey(chunks: list[bytes], depth: int) -> int | None:
    for chunk in chunks:
        if chunk[4:8] == b"tRNS" and len(chunk) == 14:
            level = int.from_bytes(chunk[8:10], "big") & ((1 << depth) - 1)
            return level if depth >= 8 else level * 255 // ((1 << depth) - 1)
    return None


def _sift_chunks(data: bytes) -> tuple[list[bytes], int]:
    """Returns the chunks that matter, up to IEND, and the EXIF orientation."""
    kept: list[bytes] = []
    orientation: int | None = None
    at = len(MAGIC)
    for _ in range(_MAX_CHUNKS):
        if at >= len(data):
            raise truncated(_KIND, "its end mark (IEND chunk) is missing")
        length = unsigned(data, at, 4, "big", _KIND)
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            there = max(0, len(data) - at - 8)
            label = name.decode("ascii", "replace") if name.isalpha() else "?"
            raise truncated(
                _KIND, f"chunk {label} claims {length} bytes and 4 of checksum, {there} are there"
            )
        if name in _KEPT:
            kept.append(data[at:end])
        elif name == b"acTL" and unsigned(data, at + 8, 4, "big", _KIND) > 1:
            raise unsupported(_KIND, "it is animated; send one picture")
        elif name == b"eXIf" and orientation is None:
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        if name == b"IEND":
            if not kept:
                break
            return kept, orientation or 1
        at = end
    raise damaged(_KIND, f"it has more than {_MAX_CHUNKS} chunks")
