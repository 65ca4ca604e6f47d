"""What every format's reader shares: the header record and bounds-checked integers."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from longhand_server.errors import InvalidImageError

ByteOrder: TypeAlias = Literal["little", "big"]


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself, read without decoding a pixel.

    Attributes:
        kind: Format name for people, such as ``"PNG"``.
        width: Stored width in pixels, before any rotation.
        height: Stored height in pixels, before any rotation.
        channels: Samples a pixel once decoded (1 grey, 3 colour, 4 with transparency).
        bits: Bits a sample once decoded, 8 or 16.
        orientation: EXIF orientation, 1 (upright) to 8, still to be applied.
        payload: The bytes to decode: the file, or the part of it that matters.
        proof: Bytes of an image that decodes only where the payload is whole, if OpenCV does not tell by the payload.
        passes: How often the decoder walks over the whole picture (scans of a JPEG).
        premultiplied: Whether colours come decoded already multiplied by their opacity.
        inverted: Whether samples come decoded with 0 for white.
        transparent_grey: The grey level, as decoded, that stands for transparency, if any does.
    """

    kind: str
    width: int
    height: int
    channels: int
    bits: int
    orientation: int
    payload: bytes
    proof: bytes | None = None
    passes: int = 1
    premultiplied: bool = False
    inverted: bool = False
    transparent_grey: int | None = None


def unsigned(data: bytes, at: int, size: int, byteorder: ByteOrder, kind: str) -> int:
    """Reads an unsigned integer of ``size`` bytes at offset ``at``.

    Raises:
        InvalidImageError: The file ends before the integer does.
    """
    if at < 0 or at + size > len(data):
        raise truncated(kind, f"its header needs {at + size} bytes, {len(data)} are there")
    return int.from_bytes(data[at : at + size], byteorder)


def truncated(kind: str, what: str) -> InvalidImageError:
    """The error for a file that ends too early."""
    return InvalidImageError(f"truncated {kind} image: {what}")


def damaged(kind: str, what: str) -> InvalidImageError:
    """The error for a file that contradicts itself."""
    return InvalidImageError(f"damaged {kind} image: {what}")


def unsupported(kind: str, what: str) -> InvalidImageError:
    """The error for a sound file of a sort that is not read."""
    return InvalidImageError(f"{kind} image of a kind that is not read: {what}")
