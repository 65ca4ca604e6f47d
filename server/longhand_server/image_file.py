"""The bytes of an image file -> a grey picture, safely: nothing is decoded that was not checked first."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_server.config import DEFAULT_IMAGE_LIMITS, ImageLimits
from longhand_server.errors import InvalidImageError
from longhand_server.image_formats import ImageHeader, read_header

MIN_SIDE = 3
# Rows converted at a time, so that the conversion of a large picture needs little memory beside it.
_STRIP_ROWS = 64
_WHITE = 255
# White in samples of 10, 12, 14 and 16 bits: scanners and cameras store the narrower ones in 16 as they are.
_DEEP_WHITES = (1023, 4095, 16383, 65535)
_Pixels = NDArray[np.integer[Any] | np.floating[Any]]


def decode_grey(data: bytes, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> NDArray[np.uint8]:
    """Decodes an image file the way a person sees it on white paper.

    Transparency shows white, EXIF orientation is applied, palettes and samples of 10 to 16 bits are converted.

    Args:
        data: A PNG, JPEG, WebP, TIFF (one page) or BMP file.
        limits: What the file may be at most.

    Returns:
        (H, W) uint8, 255 white. H and W are as a viewer shows the picture.

    Raises:
        InvalidImageError: No such file, damaged, beyond a limit, or smaller than 3 px on a side.
    """
    check_file_size(data, limits)
    header = read_header(data)
    _check_size(header, limits)
    plain = header.channels < 4 and header.bits == 8
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if plain else cv2.IMREAD_UNCHANGED
    is_whole = header.proof is None or _decode(header.proof, cv2.IMREAD_UNCHANGED) is not None
    pixels = _decode(header.payload, flags) if is_whole else None
    # A TIFF comes turned already.
    as_told = (header.height, header.width), (header.width, header.height)
    if pixels is None or pixels.shape[:2] not in as_told:
        raise InvalidImageError(
            f"damaged {header.kind} image: its {header.width}x{header.height} pixels cannot be decoded"
        )
    return _orient(_to_grey(pixels, header), header.orientation)


def _decode(data: bytes, flags: int) -> _Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        return None


def check_file_size(data: bytes, limits: ImageLimits) -> None:
    """Raises InvalidImageError where a file is larger than is read."""
    if len(data) > limits.max_bytes:
        raise InvalidImageError(f"image file of {len(data)} bytes, at most {limits.max_bytes} are read")


def _check_size(header: ImageHeader, limits: ImageLimits) -> None:
    size = f"{header.kind} image of {header.width}x{header.height} pixels"
    if min(header.width, header.height) < MIN_SIDE:
        raise InvalidImageError(f"{size}: a text line needs at least {MIN_SIDE} pixels on either side")
    if max(header.width, header.height) > limits.max_side:
        raise InvalidImageError(f"{size}: at most {limits.max_side} pixels on a side are read")
    if header.width * header.height > limits.max_pixels:
        raise InvalidImageError(
            f"{size}: {header.width * header.height} in all, at most {limits.max_pixels} are read; "
            "crop it to one line or scale it down"
        )
    if header.passes > limits.max_scans:
        raise InvalidImageError(f"{size} in {header.passes} scans, at most {limits.max_scans} are read")


def _to_grey(pixels: _Pixels, header: ImageHeader) -> NDArray[np.uint8]:
    if pixels.ndim == 2 and pixels.dtype == np.uint8 and header.transparent_grey is None:
        return pixels.astype(np.uint8, copy=False)
    grey = np.empty(pixels.shape[:2], np.uint8)
    is_deep = pixels.dtype == np.uint16
    white = next(white for white in _DEEP_WHITES if white >= pixels.max()) if is_deep else _WHITE
    for top in range(0, len(pixels), _STRIP_ROWS):
        grey[top : top + _STRIP_ROWS] = _strip_to_grey(pixels[top : top + _STRIP_ROWS], header, white)
    return grey


def _strip_to_grey(strip: _Pixels, header: ImageHeader, white: int) -> NDArray[np.uint8]:
    """Grey values of some rows: ``white`` to 255, transparent parts to white, colour to luma."""
    if header.inverted:
        strip = white - strip
    clear = None if header.transparent_grey is None else strip == header.transparent_grey
    if white != _WHITE:
        strip = ((strip.astype(np.uint32) * _WHITE + white // 2) // white).astype(np.uint8)
    if strip.ndim == 2:
        grey = strip.astype(np.uint8)
        if clear is not None:
            grey[clear] = _WHITE
        return grey
    luma: NDArray[np.uint8] = cv2.cvtColor(strip[:, :, :3], cv2.COLOR_BGR2GRAY).astype(np.uint8)
    if min(header.channels, strip.shape[2]) < 4:
        return luma
    opacity = strip[:, :, 3].astype(np.uint16)
    ink = luma.astype(np.uint16)
    if not header.premultiplied:
        ink = (ink * opacity + 127) // _WHITE
    shown: NDArray[np.uint8] = np.minimum(ink + (_WHITE - opacity), _WHITE).astype(np.uint8)
    return shown


def _orient(grey: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns the stored picture the way EXIF orientation 1 to 8 says it is to be shown."""
    if orientation >= 5:
        grey = grey.T
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1]
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1]
    return np.ascontiguousarray(grey)
