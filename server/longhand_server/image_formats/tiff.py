"""TIFF headers (Adobe TIFF 6.0) and the orientation tag of EXIF, which is a TIFF in little."""

from __future__ import annotations

from collections.abc import Mapping

from longhand_server.errors import InvalidImageError
from longhand_server.image_formats.common import (
    ImageHeader,
    damaged,
    truncated,
    unsigned,
    unsupported,
)

MAGICS = (b"II*\x00", b"MM\x00*")
BIG_MAGICS = (b"II+\x00", b"MM\x00+")
_KIND = "TIFF"

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 274, 277, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_PLANAR, _SAMPLE_FORMAT = 284, 339

# Bytes of one value of each field type.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGER_TYPES = {1: 1, 3: 2, 4: 4}
_MAX_ENTRIES = 256
_MAX_VALUES = 65_536
# None, CCITT (1D, group 3, group 4), LZW, deflate (both numbers), PackBits.
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 8, 32946, 32773))

Tags = Mapping[int, tuple[int, ...]]


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that every value, strip and tile lies inside the file.

    Raises:
        InvalidImageError: The file is truncated, has several pages, is of a rare kind, or
            contradicts itself.
    """
    byteorder = "little" if data[:2] == b"II" else "big"
    tags, following = _read_directory(data, unsigned(data, 4, 4, byteorder, _KIND), byteorder)
    if following:
        raise unsupported(_KIND, "it has several pages; send one page")
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    samples, bits = _one(tags, _SAMPLES, 1), tags.get(_BITS, (1,))
    compression = _one(tags, _COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise unsupported(
            _KIND, f"compression {compression}; none, CCITT, LZW, deflate and PackBits are read"
        )
    if any(kind != 1 for kind in tags.get(_SAMPLE_FORMAT, (1,))):
        raise unsupported(_KIND, "samples that are no unsigned integers")
    if len(set(bits)) != 1 or bits[0] not in (1, 4, 8, 16) or not 1 <= samples <= 4:
        raise unsupported(_KIND, f"{samples} samples a pixel of {bits[0]} bits")
    if samples == 2:
        raise unsupported(_KIND, "grey with transparency")
    if bits[0] < 8 and samples > 1:
        raise unsupported(_KIND, f"colour of {bits[0]} bits a sample")
    if _one(tags, _PLANAR, 1) != 1 and samples > 1:
        raise unsupported(_KIND, "separate colour planes")
    _check_pixels(data, tags, width, height)
    palette = _one(tags, _PHOTOMETRIC, 1) == 3
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        channels=1 if samples == 1 and not palette else (3 if samples == 3 else 4),
        bits=16 if bits[0] == 16 else 8,
        # OpenCV itself turns a TIFF the way its tag says.
        orientation=1,
        payload=data,
        premultiplied=True,
    )


def exif_orientation(exif: bytes) -> int:
    """Returns the orientation, 1 to 8, that an EXIF block states; 1 where it states none.

    A damaged block counts as none: an image is not refused for its remarks.
    """
    if exif[:6] == b"Exif\x00\x00":
        exif = exif[6:]
    if exif[:4] not in MAGICS:
        return 1
    byteorder = "little" if exif[:2] == b"II" else "big"
    try:
        offset = unsigned(exif, 4, 4, byteorder, "EXIF")
        tags, _ = _read_directory(exif, offset, byteorder)
        return _valid_orientation(tags)
    except InvalidImageError:
        return 1


def _valid_orientation(tags: Tags) -> int:
    value = (tags.get(_ORIENTATION) or (1,))[0]
    return value if 1 <= value <= 8 else 1


def _read_directory(data: bytes, at: int, byteorder: str) -> tuple[Tags, int]:
    """Returns the integer fields of the directory at ``at`` and the next directory's offset."""
    count = unsigned(data, at, 2, byteorder, _KIND)
    if not 1 <= count <= _MAX_ENTRIES:
        raise damaged(_KIND, f"a directory of {count} fields; 1 to {_MAX_ENTRIES} are read")
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag = unsigned(data, entry, 2, byteorder, _KIND)
        kind = unsigned(data, entry + 2, 2, byteorder, _KIND)
        values = unsigned(data, entry + 4, 4, byteorder, _KIND)
        size = values * _TYPE_SIZES.get(kind, 1)
        start = entry + 8 if size <= 4 else unsigned(data, entry + 8, 4, byteorder, _KIND)
        if start + size > len(data):
            raise truncated(_KIND, f"field {tag} needs {start + size} bytes, {len(data)} are there")
        if kind in _INTEGER_TYPES and 1 <= values <= _MAX_VALUES:
            width = _INTEGER_TYPES[kind]
            tags[tag] = tuple(
                unsigned(data, start + width * index, width, byteorder, _KIND) for index in range(values)
            )
    return tags, unsigned(data, at + 2 + 12 * count, 4, byteorder, _KIND)


def _one(tags: Tags, tag: int, default: int | None = None) -> int:
    values = tags.get(tag)
    if values:
        return values[0]
    if default is None:
        raise damaged(_KIND, f"field {tag} is missing")
    return default


def _check_pixels(data: bytes, tags: Tags, width: int, height: int) -> None:
    """Checks that strips or tiles are as many as the dimensions need and lie in the file."""
    if _TILE_OFFSETS in tags:
        offsets, sizes = tags[_TILE_OFFSETS], tags.get(_TILE_SIZES, ())
        across, down = _one(tags, _TILE_WIDTH), _one(tags, _TILE_HEIGHT)
        # A tile may reach past the picture, but one that dwarfs it only costs memory.
        if not (16 <= across <= max(1024, 2 * width) and 16 <= down <= max(1024, 2 * height)):
            raise damaged(_KIND, f"tiles of {across}x{down} for {width}x{height} pixels")
        needed = -(-width // across) * -(-height // down)
    else:
        offsets, sizes = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_SIZES, ())
        rows = _one(tags, _ROWS_PER_STRIP, height)
        if rows == 0:
            raise damaged(_KIND, "strips of 0 rows")
        needed = -(-height // rows)
    if len(offsets) != needed or len(sizes) != needed:
        raise damaged(_KIND, f"{len(offsets)} strips or tiles where {needed} are needed")
    for offset, size in zip(offsets, sizes, strict=True):
        if offset + size > len(data):
            raise truncated(_KIND, f"its pixels need {offset + size} bytes, {len(data)} are there")
