"""TIFF headers (Adobe TIFF 6.0) and the orientation tag of EXIF, which is a TIFF in little."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

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

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 274, 277, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 284, 338, 339
_PARTS = frozenset((_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES))
_READ = _PARTS | {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _ROWS_PER_STRIP),
    *(_TILE_WIDTH, _TILE_HEIGHT, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT),
}

# Bytes of one value of each field type.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I"}
_MAX_ENTRIES = 256
# Values of a field: strips and tiles can be many, anything else is one a sample.
_MAX_PARTS, _MAX_VALUES = 65_536, 16
# Pixels that all tiles together may have, whatever the picture's size, and per pixel of the picture.
_MAX_TILED, _MAX_TILED_SHARE = 1 << 22, 4
# Tiny tiles take longer to look up than to read.
_MAX_TILES = 1 << 13
# None, CCITT (1D, group 3, group 4), LZW, deflate (both numbers), PackBits.
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 8, 32946, 32773))
_UNCOMPRESSED, _CCITT = 1, (2, 3, 4)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _CIELAB = 0, 1, 2, 3, 5, 8
# What OpenCV shows as it is meant, by bits a sample.
_PHOTOMETRICS = {
    1: (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE),
    4: (_PALETTE,),
    8: (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _CIELAB),
    16: (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB),
}
# An extra sample that is not said to be opacity, and one that colours are not multiplied by yet.
_NO_OPACITY, _UNASSOCIATED = 0, 2

Tags = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Layout:
    """The strips or tiles of a picture: of so many columns and rows, from left to right and from top to bottom."""

    across: int
    down: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    is_tiled: bool


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that every value, strip and tile lies inside the file.

    Raises:
        InvalidImageError: The file is truncated, has several pages, is of a rare kind, or
            contradicts itself.
    """
    tags, end = _read_directory(data, _READ)
    if unsigned(data, end, 4, _byte_order(data), _KIND):
        raise unsupported(_KIND, "it has several pages; send one page")
    _check_kind(tags)
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    samples, bits, photometric = _one(tags, _SAMPLES, 1), _one(tags, _BITS, 1), _photometric(tags)
    layout = _layout(tags, width, height)
    row_bytes = -(-layout.across * samples * bits // 8)
    is_packed = _one(tags, _COMPRESSION, 1) != _UNCOMPRESSED
    if layout.is_tiled and not is_packed and bits <= 8 and row_bytes * layout.down % 1024:
        # libtiff takes them for longer than they are where the file is in memory.
        raise unsupported(
            _KIND, f"uncompressed tiles of {layout.across}x{layout.down} pixels, not of whole KiB"
        )
    _check_pixels(data, layout, height, None if is_packed else row_bytes)
    extra = _one(tags, _EXTRA_SAMPLES, -1)
    has_colour = samples >= 3 or photometric == _PALETTE
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        channels=4 if samples == 4 and extra != _NO_OPACITY else (3 if has_colour else 1),
        bits=16 if bits == 16 else 8,
        # OpenCV itself turns a TIFF the way its tag says.
        orientation=1,
        payload=data,
        proof=_proof(data, tags, layout, row_bytes),
        # libtiff multiplies samples of 8 bits; those of 16 come as they are stored.
        premultiplied=bits != 16 or extra != _UNASSOCIATED,
        inverted=bits == 16 and photometric == _WHITE_IS_ZERO,
    )


def _photometric(tags: Tags) -> int:
    return _one(tags, _PHOTOMETRIC, _BLACK_IS_ZERO)


def _check_kind(tags: Tags) -> None:
    compression = _one(tags, _COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise unsupported(
            _KIND, f"compression {compression}; none, CCITT, LZW, deflate and PackBits are read"
        )
    if any(kind != 1 for kind in tags.get(_SAMPLE_FORMAT, (1,))):
        raise unsupported(_KIND, "samples that are no unsigned integers")
    samples, bits, photometric = _one(tags, _SAMPLES, 1), tags.get(_BITS, (1,)), _photometric(tags)
    if len(set(bits)) != 1 or bits[0] not in _PHOTOMETRICS or not 1 <= samples <= 4:
        raise unsupported(_KIND, f"{samples} samples a pixel of {bits[0]} bits")
    if photometric not in _PHOTOMETRICS[bits[0]]:
        raise unsupported(
            _KIND,
            f"photometric interpretation {photometric} in samples of {bits[0]} bits; grey of 1, 8 and 16 bits, "
            "RGB of 8 and 16, palettes, CMYK and CIELAB are read",
        )
    if samples == 2:
        raise unsupported(_KIND, "grey with transparency")
    if bits[0] < 8 and samples > 1:
        raise unsupported(_KIND, f"colour of {bits[0]} bits a sample")
    if _one(tags, _PLANAR, 1) != 1 and samples > 1:
        raise unsupported(_KIND, "separate colour planes")


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


def _byte_order(data: bytes) -> ByteOrder:
    return "little" if data[:2] == b"II" else "big"


def _struct_order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _read_directory(data: bytes, wanted: Collection[int]) -> tuple[Tags, int]:
    """Returns the wanted fields of the first directory, all of them integers, and where its fields end."""
    byteorder, order = _byte_order(data), _struct_order(data)
    at = unsigned(data, 4, 4, byteorder, _KIND)
    count = unsigned(data, at, 2, byteorder, _KIND)
    if not 1 <= count <= _MAX_ENTRIES:
        raise damaged(_KIND, f"a directory of {count} fields; 1 to {_MAX_ENTRIES} are read")
    end = at + 2 + 12 * count
    if end > len(data):
        raise truncated(_KIND, f"its directory needs {end} bytes, {len(data)} are there")
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
    return tags, end


def _one(tags: Tags, tag: int, default: int | None = None) -> int:
    values = tags.get(tag)
    if values:
        return values[0]
    if default is None:
        raise damaged(_KIND, f"field {tag} is missing")
    return default


def _layout(tags: Tags, width: int, height: int) -> _Layout:
    """Where strips or tiles lie, which are as many as the dimensions need."""
    is_tiled = _TILE_OFFSETS in tags
    if is_tiled:
        offsets, sizes = tags[_TILE_OFFSETS], tags.get(_TILE_SIZES, ())
        across, down = _one(tags, _TILE_WIDTH), _one(tags, _TILE_HEIGHT)
        if min(across, down) < 16:
            raise damaged(_KIND, f"tiles of {across}x{down} pixels; 16 on a side are the least")
        needed = -(-width // across) * -(-height // down)
        if needed > _MAX_TILES:
            raise unsupported(
                _KIND, f"{needed} tiles of {across}x{down} pixels; {_MAX_TILES} at most are read"
            )
        # Tiles may reach past the picture, but where they dwarf it they only cost memory and time.
        if needed * across * down > max(_MAX_TILED, _MAX_TILED_SHARE * width * height):
            raise damaged(_KIND, f"{needed} tiles of {across}x{down} for {width}x{height} pixels")
    else:
        offsets, sizes = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_SIZES, ())
        across, down = width, _one(tags, _ROWS_PER_STRIP, height)
        if down == 0:
            raise damaged(_KIND, "strips of 0 rows")
        needed = -(-height // down)
    if len(offsets) != needed or len(sizes) != needed:
        raise damaged(_KIND, f"{len(offsets)} strips or tiles where {needed} are needed")
    return _Layout(across, down, offsets, sizes, is_tiled)


def _check_pixels(data: bytes, layout: _Layout, height: int, row_bytes: int | None) -> None:
    """Checks that strips or tiles lie in the file and, where a row's bytes are known, hold all their rows."""
    for number, (offset, stated) in enumerate(zip(layout.offsets, layout.sizes, strict=True)):
        size = stated
        if row_bytes is not None:
            rows = layout.down if layout.is_tiled else min(layout.down, height - number * layout.down)
            size = rows * row_bytes
            # Of a lone strip the size is not needed, and not always right.
            if stated < size and len(layout.sizes) > 1:
                raise truncated(_KIND, f"strip or tile {number} has {stated} bytes, {size} are needed")
        if offset + size > len(data):
            raise truncated(_KIND, f"its pixels need {offset + size} bytes, {len(data)} are there")


def _proof(data: bytes, tags: Tags, layout: _Layout, row_bytes: int) -> bytes | None:
    """The same strips or tiles as grey samples of 16 bits, of which OpenCV reports what does not unpack to all rows.

    None where that tells nothing more: the samples have 16 bits already, nothing is packed, or it is CCITT, in which
    libtiff goes on behind the damage.
    """
    compression, words = _one(tags, _COMPRESSION, 1), row_bytes // 2
    if _one(tags, _BITS, 1) == 16 or compression in (_UNCOMPRESSED, *_CCITT) or words == 0:
        return None
    width = -(-_one(tags, _WIDTH) // layout.across) * words
    if width >= 1 << 32:  # more than the field takes, and more than is read
        return None
    fields: dict[int, tuple[int, ...]] = {
        _WIDTH: (width,),
        _HEIGHT: (_one(tags, _HEIGHT),),
        _BITS: (16,),
        _COMPRESSION: (compression,),
        _PHOTOMETRIC: (_BLACK_IS_ZERO,),
        _FILL_ORDER: (_one(tags, _FILL_ORDER, 1),),
        _SAMPLES: (1,),
    }
    if layout.is_tiled:
        fields |= {_TILE_WIDTH: (words,), _TILE_HEIGHT: (layout.down,)}
        fields |= {_TILE_OFFSETS: layout.offsets, _TILE_SIZES: layout.sizes}
    else:
        fields |= {
            _STRIP_OFFSETS: layout.offsets,
            _ROWS_PER_STRIP: (layout.down,),
            _STRIP_SIZES: layout.sizes,
        }
    return _with_directory(data, fields)


def _with_directory(data: bytes, fields: Mapping[int, tuple[int, ...]]) -> bytes:
    """The file with these fields, written behind it, for its directory."""
    order, at = _struct_order(data), len(data) + len(data) % 2
    entries, lists = struct.pack(order + "H", len(fields)), b""
    lists_at = at + 2 + 12 * len(fields) + 4
    for tag, values in sorted(fields.items()):
        place = values[0] if len(values) == 1 else lists_at + len(lists)
        entries += struct.pack(order + "HHII", tag, 4, len(values), place)
        if len(values) > 1:
            lists += struct.pack(f"{order}{len(values)}I", *values)
    start = data[:4] + struct.pack(order + "I", at) + data[8:] + bytes(len(data) % 2)
    return start + entries + bytes(4) + lists
