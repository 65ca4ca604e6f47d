"""What may be handed in as an image, and how it becomes the bytes that are sent."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from longhand_client.errors import InvalidImageError

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class _PillowImage(Protocol):
    """What a `PIL.Image.Image` is known by; Pillow itself is not needed."""

    def save(self, target: IO[bytes], kind: str, /) -> None: ...

    def getbands(self) -> tuple[str, ...]: ...


ImageSource: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | np.ndarray[Any, Any] | _PillowImage"  # noqa: E501
"""The bytes of an image file, its path, an open binary file, a numpy array, or a Pillow image.

An array is (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8, row 0 at the top, 0 = black.
"""
_Images = TypeVar("_Images")
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
# What Pillow writes into no PNG, and the mode that loses nothing that one can see.
_CLOSEST_MODES = {"I": "I;16", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
# Half of the message that a server takes unless it is told otherwise.
MAX_IMAGE_BYTES = 16 * 1024 * 1024


def several(images: Iterable[_Images]) -> Iterable[_Images]:
    """The images themselves, where they are several.

    Raises:
        TypeError: it is one image, whose parts would otherwise each be taken for one.
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    if (
        isinstance(images, str | bytes | bytearray | memoryview | os.PathLike)
        or hasattr(images, "read")
        or len(shape) == 2
        or (len(shape) == 3 and shape[2] in (1, 3, 4))
    ):
        raise TypeError(f"got {type(images).__name__}, need several images: a list of them, for example")
    return images


def image_bytes(source: ImageSource, limit: int = MAX_IMAGE_BYTES) -> bytes:
    """The bytes of an image file for whatever was handed in.

    Args:
        source: see `ImageSource`.
        limit: largest image file in bytes; a larger one would end the whole call or stream on the server.

    Returns:
        The content of an image file; arrays and Pillow images are written as PNG, without loss.

    Raises:
        InvalidImageError: the file cannot be read or is too large, or the array is no picture.
        TypeError: it is none of the kinds accepted.
    """
    content = _content(source, limit)
    if len(content) > limit:
        raise _unreadable(_too_large(len(content), limit))
    return content


def _content(source: ImageSource, limit: int) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source), limit)
    if isinstance(source, _PillowImage):
        return _pillow_to_png(source)
    if hasattr(source, "__array_interface__") and hasattr(source, "dtype"):
        return _array_to_png(cast("np.ndarray[Any, Any]", source))
    if hasattr(source, "read"):
        content: object = None
        try:
            content = source.read(limit + 1)
        except UnicodeDecodeError:
            pass  # of a file opened as text
        except (OSError, ValueError) as error:  # closed, or no longer to be reached
            raise _unreadable(f"open file: {error}") from error
        if not isinstance(content, bytes):
            raise _unreadable("the open file gives text: open it in binary mode ('rb')")
        return content
    raise TypeError(
        f"got {type(source).__name__}, need bytes, a path, a binary file, an array or a PIL image"
    )


def _unreadable(problem: str) -> InvalidImageError:
    return InvalidImageError(problem, code="INVALID_ARGUMENT")


def _too_large(size: int, limit: int) -> str:
    return f"image file of {size} bytes, at most {limit} are sent (max_image_bytes)"


def _read_path(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise _unreadable(f"{path}: {_too_large(size, limit)}")
        with path.open("rb") as file:
            return file.read(limit + 1)  # a device has no size, and no end perhaps
    except (OSError, ValueError) as error:
        # A missing file, one without permission and a name that cannot be one are the same to the caller: this image
        # cannot be read.
        raise _unreadable(f"{path}: {getattr(error, 'strerror', '') or error}") from error


def _pillow_to_png(image: _PillowImage) -> bytes:
    """A PNG of the picture as a viewer shows it: upright, in colours that PNG knows."""
    import io

    from PIL import ImageOps

    buffer = io.BytesIO()
    try:
        shown = ImageOps.exif_transpose(cast("Any", image))
        if shown.mode not in _PNG_MODES:
            shown = shown.convert(_CLOSEST_MODES.get(shown.mode, "RGB"))
        shown.save(buffer, "PNG")
    except (OSError, ValueError, SyntaxError) as error:
        # Pillow reads files late, and says so in these ways when one is damaged.
        raise _unreadable(f"Pillow image: {error}") from error
    return buffer.getvalue()


def _array_to_png(array: np.ndarray[Any, Any]) -> bytes:
    channels = array.shape[2] if array.ndim == 3 else 1
    if (
        array.ndim not in (2, 3)
        or channels not in (1, 3, 4)
        or array.dtype.name != "uint8"
        or array.size == 0
    ):
        raise _unreadable(
            f"array: got shape {array.shape} and type {array.dtype}, "
            "need (H, W), (H, W, 3) or (H, W, 4) of uint8"
        )
    height, width = array.shape[:2]
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    rows = array.reshape(height, width * channels)
    # Each row of a PNG starts with the number of its filter; 0 = none.
    scanlines = b"".join(b"\0" + rows[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
