from __future__ import annotations

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from longhand_client.errors import InvalidImageError
from longhand_client.images import image_bytes

SHAPES = [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_become_lossless_png(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    # OpenCV is the independent reader: it gives BGR where the PNG holds RGB.
    read = cv2.imdecode(np.frombuffer(image_bytes(array), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    if read.ndim == 3:
        order = [2, 1, 0, 3][: read.shape[2]]
        read = read[:, :, order]
    np.testing.assert_array_equal(read.reshape(shape), array)


def test_views_of_arrays() -> None:
    array = np.arange(40, dtype=np.uint8).reshape(4, 10)
    read = cv2.imdecode(np.frombuffer(image_bytes(array[::2, ::-1]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, array[::2, ::-1])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    with pytest.raises(InvalidImageError, match="array: got shape"):
        image_bytes(array)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pillow_images(mode: str) -> None:
    image = Image.new("RGB", (9, 4), (200, 10, 30)).convert(mode)
    with Image.open(io.BytesIO(image_bytes(image))) as read:
        assert read.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "F", "RGBX", "LA", "I;16"])
def test_pillow_images_in_modes_that_are_not_png_s(mode: str) -> None:
    with Image.open(io.BytesIO(image_bytes(Image.new("L", (9, 4), 200).convert(mode)))) as read:
        assert read.size == (9, 4)


def test_pillow_images_of_whole_numbers_keep_their_shades() -> None:
    shades = Image.new("I", (3, 1))
    for x, shade in enumerate((0, 30_000, 65_535)):
        shades.putpixel((x, 0), shade)
    with Image.open(io.BytesIO(image_bytes(shades))) as read:
        assert [read.getpixel((x, 0)) for x in range(3)] == [0, 30_000, 65_535]


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_pillow_images_stay_transparent(mode: str) -> None:
    with Image.open(io.BytesIO(image_bytes(Image.new(mode, (9, 4))))) as read:
        assert read.getchannel("A").getextrema() == (0, 0)


def test_pillow_images_are_sent_upright() -> None:
    stored = Image.new("L", (9, 4), 255)
    stored.putpixel((0, 3), 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    with Image.open(io.BytesIO(image_bytes(Image.open(file)))) as read:
        assert read.size == (4, 9)
        assert read.getpixel((0, 0)) == 0


def test_damaged_pillow_images_are_named_as_such() -> None:
    file = io.BytesIO()
    Image.effect_noise((99, 40), 60).save(file, "PNG")
    damaged = Image.open(io.BytesIO(file.getvalue()[:1000]))
    with pytest.raises(InvalidImageError, match=r"Pillow image: .*truncated"):
        image_bytes(damaged)


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(InvalidImageError, match="embedded null"):
        image_bytes("a\0b.png")


def test_an_image_may_be_as_large_as_the_limit() -> None:
    assert image_bytes(bytes(1000), 1000) == bytes(1000)
    with pytest.raises(InvalidImageError, match="1001 bytes, at most 1000"):
        image_bytes(bytes(1001), 1000)


def test_what_never_ends_is_read_as_far_as_its_limit() -> None:
    reading, writing = os.pipe()
    os.write(writing, bytes(2000))
    with pytest.raises(InvalidImageError, match="at most 1000 are sent"):
        image_bytes(f"/dev/fd/{reading}", 1000)
    os.close(reading)
    os.close(writing)
