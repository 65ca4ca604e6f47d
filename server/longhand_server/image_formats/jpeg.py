"""JPEG headers (ITU-T T.81)."""

from __future__ import annotations

import re

from longhand_server.image_formats.common import ImageHeader, damaged, truncated, unsigned, unsupported
from longhand_server.image_formats.tiff import exif_orientation

MAGIC = b"\xff\xd8\xff"
_KIND = "JPEG"
_MAX_SEGMENTS = 10_000
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_READ_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coded
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7)  # 0xF7: JPEG-LS
_STANDALONE = (0x01, *range(0xD0, 0xD8))
# In coded data 0xFF is followed by 0 (stuffing) or a restart mark; anything else ends the scan.
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


def read(data: bytes) -> ImageHeader:
    """Reads the header and walks all segments to the end mark, counting scans.

    Raises:
        InvalidImageError: The file is truncated, contradicts itself, or is of a rare kind.
    """
    frame: tuple[int, int, int] | None = None
    orientation: int | None = None
    scans, at = 0, 2
    for _ in range(_MAX_SEGMENTS):
        marker, at = _next_marker(data, at)
        if marker == _EOI:
            return _header(data, frame, orientation or 1, scans)
        if marker in _STANDALONE:
            continue
        if marker in _OTHER_FRAMES:
            raise unsupported(_KIND, "lossless, hierarchical or arithmetic coding")
        length = unsigned(data, at, 2, "big", _KIND)
        if length < 2 or at + length > len(data):
            raise truncated(_KIND, f"a segment of {length} bytes does not fit into the file")
        if marker in _READ_FRAMES:
            if frame is not None:
                raise damaged(_KIND, "it has two frames")
            frame = _read_frame(data, at, length)
        elif marker == _APP1 and orientation is None and data[at + 2 : at + 8] == b"Exif\x00\x00":
            orientation = exif_orientation(data[at + 8 : at + length])
        elif marker == _SOS:
            scans += 1
            found = _SCAN_END.search(data, at + length)
            if found is None:
                raise truncated(_KIND, "its end mark is missing")
            length = found.start() - at
        at += length
    raise damaged(_KIND, f"it has more than {_MAX_SEGMENTS} segments")


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise truncated(_KIND, "its end mark is missing")
    if data[at] != 0xFF:
        raise damaged(_KIND, f"no marker where one must be, at byte {at}")
    while at < len(data) and data[at] == 0xFF:
        at += 1
    return unsigned(data, at, 1, "big", _KIND), at + 1


def _read_frame(data: bytes, at: int, length: int) -> tuple[int, int, int]:
    if length < 8:
        raise damaged(_KIND, f"its frame header has {length} bytes, at least 8 are needed")
    bits, components = data[at + 2], data[at + 7]
    if bits != 8:
        raise unsupported(_KIND, f"{bits} bits a sample; 8 are read")
    if components not in (1, 3, 4) or length != 8 + 3 * components:
        raise damaged(_KIND, f"{components} colour components in {length} bytes")
    height = unsigned(data, at + 3, 2, "big", _KIND)
    width = unsigned(data, at + 5, 2, "big", _KIND)
    return width, height, components


def _header(data: bytes, frame: tuple[int, int, int] | None, orientation: int, scans: int) -> ImageHeader:
    if frame is None or scans == 0:
        raise truncated(_KIND, "it holds no picture (no frame or no scan)")
    width, height, components = frame
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        channels=1 if components == 1 else 3,
        bits=8,
        orientation=orientation,
        payload=data,
        passes=scans,
    )
