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


_OPACITY = np.where(np.arange(61) % 3 == 0, 0, np.where(np.arange(61) % 3 == 1, 128, 255)).astype(np.uint8)
_OPACITY = np.broadcast_to(_OPACITY, _GREY.shape).copy()
_SHOWN = np.round(255 - _OPACITY * ((255 - _GREY) / 255)).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_the_fourth_sample_of_a_tiff_is_opacity_where_it_is_said_to_be(extra: int, scale: int) -> None:
    colour = np.round(_GREY * (_OPACITY / 255)).astype(np.uint8) if extra == 1 else _GREY
    pixels = np.dstack([colour, colour, colour, _OPACITY]) * np.asarray(
        scale, np.uint8 if scale == 1 else np.uint16
    )
    _assert_close(decode_grey(samples.tiff_of(pixels, 2, extra)), _SHOWN if extra else _GREY)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_0_is_white(bits: int) -> None:
    inverted = (255 - _GREY).astype(np.uint8)
    pixels = inverted if bits == 8 else inverted.astype(np.uint16) * 257
    _assert_close(decode_grey(samples.tiff_of(pixels, 0)), _GREY, 0)


def test_the_stated_size_of_uncompressed_strips_may_be_wrong_where_it_does_not_matter() -> None:
    whole = samples.tiff_of(_GREY, 1)
    for stated in (0, 5, _GREY.nbytes + 1_000):
        data = whole.replace(
            struct.pack("<HHII", 279, 4, 1, _GREY.nbytes), struct.pack("<HHII", 279, 4, 1, stated)
        )
        assert data != whole
        assert np.array_equal(decode_grey(data), _GREY), stated


@pytest.mark.parametrize("width", [61, 7, 16])
@pytest.mark.parametrize(
    ("packing", "fill_order"),
    [("raw", 1), ("tiff_lzw", 1), ("tiff_lzw", 2), ("tiff_deflate", 1), ("packbits", 1)],
)
def test_tiffs_of_odd_widths_and_strips(packing: str, fill_order: int, width: int) -> None:
    levels = _GREY[:, :width] > 128
    for image in (
        Image.fromarray(_GREY[:, :width]),
        Image.fromarray(levels),
        _colour().crop((0, 0, width, 37)),
    ):
        for rows in (1, 5, 37):
            options = {278: rows, 266: fill_order}
            data = samples.encode(image, "TIFF", compression=packing, tiffinfo=options, strip_size=1)
            _assert_close(decode_grey(data), _on_white(image))


def test_packed_tiles() -> None:
    tiles = samples.tiled_tiff(130, 40, 16, 32, samples=1, bits=8)
    assert decode_grey(tiles).shape == (40, 130)
    assert not decode_grey(tiles).any()


_BGRX = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def test_a_bmp_whose_header_states_opacity_shows_white_paper() -> None:
    pixels = np.dstack([_GREY, _GREY, _GREY, _OPACITY])
    _assert_close(decode_grey(samples.bitfield_bmp(pixels, _BGRX)), _SHOWN)
    # Not said to be opacity, or none of it opaque.
    _assert_close(decode_grey(samples.bitfield_bmp(pixels, (*_BGRX[:3], 0))), _GREY)
    pixels[:, :, 3] = 0
    _assert_close(decode_grey(samples.bitfield_bmp(pixels, _BGRX)), _GREY)


def test_exif_that_ends_with_its_last_field_turns_the_picture() -> None:
    exif = b"Exif\x00\x00" + struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 274, 3, 1, 6)
    data = samples.encode(Image.fromarray(_GREY), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    _assert_close(decode_grey(data[:2] + segment + data[2:]), np.rot90(_GREY, -1), tolerance=30)


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
