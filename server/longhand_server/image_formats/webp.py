"""WebP headers (RFC 9649)."""

from __future__ import annotations

from collections.abc import Mapping

from longhand_server.image_formats.common import ImageHeader, damaged, truncated, unsigned, unsupported
from longhand_server.image_formats.tiff import exif_orientation

_KIND = "WebP"
_MAX_CHUNKS = 1_000
_PICTURES = (b"VP8 ", b"VP8L")
_ANIMATION_FLAG, _ALPHA_FLAG = 0x02, 0x10


def matches(data: bytes) -> bool:
    """Whether the file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read(data: bytes) -> ImageHeader:
    """Reads the header and checks that every chunk lies inside the file.

    Raises:
        InvalidImageError: The file is truncated, animated, or contradicts itself.
    """
    chunks = _chunks(data)
    pictures = [name for name in _PICTURES if name in chunks]
    if not pictures:
        raise truncated(_KIND, "it holds no picture (no VP8 or VP8L chunk)")
    if len(pictures) > 1:
        raise damaged(_KIND, "it holds two pictures")
    picture = chunks[pictures[0]]
    width, height, transparent = _lossless(picture) if pictures == [b"VP8L"] else _lossy(picture)
    extended = chunks.get(b"VP8X")
    if extended is not None:
        canvas = (
            unsigned(extended, 4, 3, "little", _KIND) + 1,
            unsigned(extended, 7, 3, "little", _KIND) + 1,
        )
        if canvas != (width, height):
            raise damaged(_KIND, f"canvas {canvas[0]}x{canvas[1]} but picture {width}x{height} pixels")
    return ImageHeader(
        kind=_KIND,
        width=width,
        height=height,
        channels=4 if transparent or b"ALPH" in chunks else 3,
        bits=8,
        orientation=exif_orientation(chunks.get(b"EXIF", b"")),
        payload=_payload(chunks, pictures[0]),
    )


def _payload(chunks: Mapping[bytes, bytes], picture: bytes) -> bytes:
    """The file with nothing but what was looked at: decoders differ in which of several chunks they take."""
    kept = {picture: chunks[picture]}
    if b"VP8X" in chunks:
        canvas = chunks[b"VP8X"]
        alpha = {b"ALPH": chunks[b"ALPH"]} if b"ALPH" in chunks else {}
        kept = {b"VP8X": bytes((canvas[0] & _ALPHA_FLAG,)) + canvas[1:], **alpha, **kept}
    body = b"WEBP" + b"".join(
        name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
        for name, content in kept.items()
    )
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Returns the chunks by name; the first one of a name counts."""
    end = unsigned(data, 4, 4, "little", _KIND) + 8
    if end > len(data):
        raise truncated(_KIND, f"it claims {end} bytes, {len(data)} are there")
    chunks: dict[bytes, bytes] = {}
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > end:
            return chunks
        name = data[at : at + 4]
        length = unsigned(data, at + 4, 4, "little", _KIND)
        if at + 8 + length > end:
            raise truncated(_KIND, f"a chunk claims {length} bytes, {end - at - 8} are there")
        body = data[at + 8 : at + 8 + length]
        if name in (b"ANIM", b"ANMF") or (name == b"VP8X" and body and body[0] & _ANIMATION_FLAG):
            raise unsupported(_KIND, "it is animated; send one picture")
        if name in _PICTURES and name in chunks:
            raise damaged(_KIND, "it holds two pictures")
        chunks.setdefault(name, body)
        at += 8 + length + length % 2
    raise damaged(_KIND, f"it has more than {_MAX_CHUNKS} chunks")


def _lossy(picture: bytes) -> tuple[int, int, bool]:
    if picture[3:6] != b"\x9d\x01\x2a":
        raise damaged(_KIND, "the start code of its picture is missing")
    width = unsigned(picture, 6, 2, "little", _KIND) & 0x3FFF
    height = unsigned(picture, 8, 2, "little", _KIND) & 0x3FFF
    return width, height, False


def _lossless(picture: bytes) -> tuple[int, int, bool]:
    if picture[:1] != b"\x2f":
        raise damaged(_KIND, "the signature of its lossless picture is missing")
    bits = unsigned(picture, 1, 4, "little", _KIND)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
