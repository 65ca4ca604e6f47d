"""Sound files of every kind come out as a person sees them; Pillow is the independent reader."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from helpers import image_samples as samples
from longhand_server.config import ImageLimits
from longhand_server.errors import InvalidImageError
from longhand_server.image_file import decode_grey

_GREY = samples.line_pixels(61, 37)


def _colour() -> Image.Image:
    return Image.merge(
        "RGB", [Image.fromarray(_GREY), Image.fromarray(_GREY // 2), Image.fromarray(255 - _GREY)]
    )


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """Pillow's view of a picture on white paper, in grey."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("L"))


def _assert_close(got: NDArray[np.uint8], wanted: NDArray[np.uint8], tolerance: int = 2) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= tolerance


@pytest.mark.parametrize("kind", samples.FORMATS)
def test_grey(kind: str) -> None:
    got = decode_grey(samples.encode(Image.fromarray(_GREY), kind))
    _assert_close(got, _GREY, tolerance=30 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", samples.FORMATS)
def test_colour(kind: str) -> None:
    data = samples.encode(_colour(), kind)
    _assert_close(decode_grey(data), _on_white(_colour()), tolerance=40 if kind == "JPEG" else 2)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_shows_white_paper(kind: str) -> None:
    image = Image.fromarray(np.zeros_like(_GREY)).convert("RGB")
    image.putalpha(Image.fromarray(255 - _GREY))
    _assert_close(decode_grey(samples.encode(image, kind)), _GREY)


def test_black_ink_on_a_transparent_page_is_not_black() -> None:
    image = Image.new("RGBA", (50, 30), (0, 0, 0, 0))
    image.putpixel((20, 10), (0, 0, 0, 255))
    got = decode_grey(samples.encode(image, "PNG"))
    assert got[10, 20] == 0
    assert int((got == 255).sum()) == 50 * 30 - 1


def test_grey_with_alpha_and_transparent_levels() -> None:
    with_alpha = Image.merge("LA", [Image.fromarray(_GREY // 2), Image.fromarray(_GREY)])
    _assert_close(decode_grey(samples.encode(with_alpha, "PNG")), _on_white(with_alpha))
    level = int(_GREY[0, 0])
    keyed = decode_grey(samples.encode(Image.fromarray(_GREY), "PNG", transparency=level))
    _assert_close(keyed, np.where(level == _GREY, 255, _GREY).astype(np.uint8), 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_and_two_levels(kind: str) -> None:
    palette = _colour().quantize(32)
    _assert_close(decode_grey(samples.encode(palette, kind)), _on_white(palette))
    levels = Image.fromarray(_GREY > 128)
    wanted = np.where(_GREY > 128, 255, 0).astype(np.uint8)
    _assert_close(decode_grey(samples.encode(levels, kind)), wanted, 0)


def test_palette_with_transparency() -> None:
    palette = _colour().quantize(16)
    data = samples.encode(palette, "PNG", transparency=0)
    palette.info["transparency"] = 0
    _assert_close(decode_grey(data), _on_white(palette))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_samples_of_more_than_eight_bits(bits: int, kind: str) -> None:
    white = 2**bits - 1
    shades = np.round(_GREY * (white / 255)).astype(np.uint16)
    shades[0, 0] = white
    wanted = _GREY.copy()
    wanted[0, 0] = 255
    _assert_close(decode_grey(samples.encode(Image.fromarray(shades), kind)), wanted, 0)


def test_a_picture_of_many_rows_is_converted_as_a_small_one_is() -> None:
    tall = np.tile(_GREY, (4, 1))
    _assert_close(decode_grey(samples.encode(Image.fromarray(tall.astype(np.uint16) * 257), "PNG")), tall, 0)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "tiff_deflate", "packbits"])
def test_tiff_compressions(compression: str) -> None:
    levels = Image.fromarray(_GREY > 128)
    wanted = np.where(_GREY > 128, 255, 0).astype(np.uint8)
    _assert_close(decode_grey(samples.encode(levels, "TIFF", compression=compression)), wanted, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    image = Image.fromarray(_GREY)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    image.getexif()[274] = orientation
    shown = np.asarray(ImageOps.exif_transpose(image))
    got = decode_grey(samples.encode(image, kind, **options))
    _assert_close(got, shown, tolerance=30 if kind == "JPEG" else 0)


def test_progressive_and_cmyk_jpeg() -> None:
    image = Image.fromarray(_GREY)
    data = samples.encode(image, "JPEG", progressive=True)
    _assert_close(decode_grey(data), _GREY, tolerance=30)
    cmyk = _colour().convert("CMYK")
    wanted = np.asarray(cmyk.convert("L"))
    _assert_close(decode_grey(samples.encode(cmyk, "JPEG")), wanted, tolerance=40)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ImageLimits(max_bytes=100), "at most 100 are read"),
        (ImageLimits(max_pixels=61 * 37 - 1), "2257 in all, at most 2256"),
        (ImageLimits(max_side=60), "at most 60 pixels on a side"),
    ],
)
def test_limits_name_what_was_got_and_allowed(limits: ImageLimits, message: str) -> None:
    data = samples.encode(Image.fromarray(_GREY), "PNG")
    with pytest.raises(InvalidImageError, match=message):
        decode_grey(data, limits)


def test_what_keeps_a_limit_exactly_is_read() -> None:
    data = samples.encode(Image.fromarray(_GREY), "PNG")
    limits = ImageLimits(max_bytes=len(data), max_pixels=61 * 37, max_side=61, max_scans=1)
    assert decode_grey(data, limits).shape == _GREY.shape
    smallest = samples.encode(Image.fromarray(_GREY[:3, :3]), "PNG")
    assert decode_grey(smallest).shape == (3, 3)


@pytest.mark.parametrize("error", [cv2.error, MemoryError])
def test_what_opencv_cannot_decode_is_damaged(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(InvalidImageError, match="damaged PNG image: its 61x37 pixels cannot be decoded"):
        decode_grey(samples.encode(Image.fromarray(_GREY), "PNG"))


def test_a_tiff_with_more_sizes_than_strips_is_refused() -> None:
    data = bytearray(samples.encode(Image.fromarray(_GREY), "TIFF"))
    at = data.rindex(struct.pack("<HHI", 279, 4, 1))  # one size, written as LONG
    data[at : at + 12] = struct.pack("<HHII", 279, 4, 2, 8)  # two, which lie at byte 8
    with pytest.raises(InvalidImageError, match="strips or tiles where 1 are needed"):
        decode_grey(bytes(data))


def test_trailing_bytes_are_harmless() -> None:
    for kind in samples.FORMATS:
        data = samples.encode(Image.fromarray(_GREY), kind)
        assert np.array_equal(decode_grey(data + bytes(100)), decode_grey(data)), kind
