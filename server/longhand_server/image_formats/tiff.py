"""TIFF headers (Adobe TIFF 6.0) and the orientation tag of EXIF, which is a TIFF in little."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping

from longhand_server.errors import InvalidImageError
from longhand_server.image_formats.common import (
    ByteOrder,
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
_PARTS = frozenset((_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES))
_READ = _PARTS | {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS_PER_STRIP),
    *(_TILE_WIDTH, _TILE_HEIGHT, _PLANAR, _SAMPLE_FORMAT),
}

# Bytes of one value of each field type.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I"}
_MAX_ENTRIES = 256
# Values of a field: strips and tiles can be many, anything else is one a sample.
_MAX_PARTS, _MAX_VALUES = 65_536, 16
# Pixels that all tiles together may have, whatever the picture's size, and per pixel of the picture.
_MAX_TILED, _MAX_TILED_SHARE = 1 << 22, 4
# None, CCITT (1D, group 3, group 4), LZW, deflate (both numbers), PackBits.
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 8, 32946, 32773))

Tags = Mapping[int, tuple[int, ...]]


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that every value, strip and tile lies inside the file.

    Raises:
        InvalidImageError: The file is truncated, has several pages, is of a rare kind, or
            contradicts itself.
    """
    tags, following = _read_directory(data, _READ)
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
    try:
        tags, _ = _read_directory(exif, (_ORIENTATION,))
    except InvalidImageError:
        return 1
    value = _one(tags, _ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _read_directory(data: bytes, wanted: Collection[int]) -> tuple[Tags, int]:
    """Returns the wanted fields of the first directory, all of them integers, and the next directory's offset."""
    byteorder: ByteOrder = "little" if data[:2] == b"II" else "big"
    order = "<" if byteorder == "little" else ">"
    at = unsigned(data, 4, 4, byteorder, _KIND)
    count = unsigned(data, at, 2, byteorder, _KIND)
    if not 1 <= count <= _MAX_ENTRIES:
        raise damaged(_KIND, f"a directory of {count} fields; 1 to {_MAX_ENTRIES} are read")
    end = at + 2 + 12 * count
    following = unsigned(data, end, 4, byteorder, _KIND)
    tags: dict[int, tuple[int, ...]] = {}
    entries = struct.iter_unpack(order + "HHII", data[at + 2 : end])
    for entry, (tag, kind, values, offset) in zip(range(at + 2, end, 12), entries, strict=True):
        if tag not in wanted:
            continue
        if tag in tags:
            # Which of them counts is not agreed upon, so that what is checked could be other than what is decoded.
            raise damaged(_KIND, f"field {tag} is there twice")
        most = _MAX_PARTS if tag in _PARTS else _MAX_VALUES
        if kind not in _INTEGER_FORMATS or not 1 <= values <= most:
            raise damaged(
                _KIND, f"field {tag} has {values} values of type {kind}; 1 to {most} integers are read"
            )
        size = values * _TYPE_SIZES[kind]
        start = entry + 8 if size <= 4 else offset
        if start + size > len(data):
            raise truncated(_KIND, f"field {tag} needs {start + size} bytes, {len(data)} are there")
        tags[tag] = struct.unpack_from(f"{order}{values}{_INTEGER_FORMATS[kind]}", data, start)
    return tags, following


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
        if min(across, down) < 16:
            raise damaged(_KIND, f"tiles of {across}x{down} pixels; 16 on a side are the least")
        needed = -(-width // across) * -(-height // down)
        # Tiles may reach past the picture, but where they dwarf it they only cost memory and time.
        if needed * across * down > max(_MAX_TILED, _MAX_TILED_SHARE * width * height):
            raise damaged(_KIND, f"{needed} tiles of {across}x{down} for {width}x{height} pixels")
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
