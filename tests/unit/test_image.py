from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from longhand_server import ink as ink_module
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidImageError
from longhand_server.image import LineImage, load_line_image, normalise_line
from longhand_server.looks import other_looks, upside_down

LINE = LineFormat()


def written(
    height: int = 80, width: int = 600, paper: int = 230, ink: int = 60, rise: float = 0.0
) -> NDArray[np.uint8]:
    """Bars like letters on paper; ``rise`` rows per column."""
    grey = np.full((height, width), paper, np.uint8)
    for x in range(60, width - 60, 22):
        top = round(height * 0.35 - rise * (x - width / 2))
        grey[top : top + round(height * 0.3), x : x + 8] = ink
    return grey


def test_a_line_comes_out_at_the_height_asked_for_with_ink_near_one() -> None:
    image = normalise_line(written(), LINE)
    assert image.pixels.shape[0] == LINE.height
    assert image.pixels.shape[1] % LINE.frame_stride == 0
    assert image.pixels.dtype == np.float32
    assert 0.0 <= image.pixels.min() <= image.pixels.max() <= 1.0
    assert image.pixels.max() > 0.8
    assert not image.is_blank
    assert (image.source_width, image.source_height) == (600, 80)
    assert image.pixels[:, : LINE.margin].max() == 0.0


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (200, 150), (90, 20), (250, 225)])
def test_contrast_and_brightness_do_not_matter(paper: int, ink: int) -> None:
    reference = normalise_line(written(paper=230, ink=60), LINE).pixels
    other = normalise_line(written(paper=paper, ink=ink), LINE).pixels
    assert other.shape == reference.shape
    assert np.abs(other - reference).mean() < 0.03


def test_light_ink_on_dark_paper_is_turned_round() -> None:
    reference = normalise_line(written(paper=255, ink=0), LINE).pixels
    inverted = normalise_line(255 - written(paper=255, ink=0), LINE).pixels
    np.testing.assert_allclose(inverted, reference, atol=0.02)


def bars(distance: float) -> NDArray[np.uint8]:
    """Strokes 60 px high in an image 100 px high, so many heights from each other."""
    step = round(60 * distance)
    grey = np.full((100, 40 * step), 230, np.uint8)
    for x in range(step, 39 * step, step):
        grey[20:80, x : x + max(step // 3, 2)] = 40
    return grey


def rows_with_ink(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.flatnonzero(pixels.max(axis=1) > 0.5)


def columns_a_bar(pixels: NDArray[np.float32]) -> float:
    """Mean distance of strokes, px."""
    middle = pixels[LINE.height // 2] > 0.5
    starts = np.flatnonzero(middle[1:] & ~middle[:-1])
    return float(np.diff(starts).mean())


def test_ordinary_writing_fills_the_height_and_keeps_its_shape() -> None:
    pixels = normalise_line(bars(0.3), LINE).pixels
    assert len(rows_with_ink(pixels)) > 0.85 * LINE.height
    assert columns_a_bar(pixels) == pytest.approx(0.3 * LINE.height, rel=0.08)


def test_letters_whose_long_ones_are_cut_off_come_out_smaller_in_the_middle() -> None:
    pixels = normalise_line(bars(0.8), LINE).pixels
    rows = rows_with_ink(pixels)
    assert 0.5 * LINE.height < len(rows) < 0.7 * LINE.height
    assert rows[0] + rows[-1] == pytest.approx(LINE.height - 1, abs=2)
    assert columns_a_bar(pixels) / len(rows) == pytest.approx(0.8, rel=0.08)  # their shape is kept
    smallest = rows_with_ink(normalise_line(bars(3.0), LINE).pixels)
    assert 0.4 * LINE.height < len(smallest) < len(rows)


def test_narrow_letters_come_out_wider_at_full_height() -> None:
    pixels = normalise_line(bars(0.15), LINE).pixels
    assert len(rows_with_ink(pixels)) > 0.85 * LINE.height
    assert 1.2 * 0.15 * LINE.height < columns_a_bar(pixels) < 1.5 * 0.15 * LINE.height


@pytest.mark.parametrize("size", [(2, 100), (100, 2), (1, 1)])
def test_an_image_too_small_for_a_line_is_refused_with_its_size(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImageError, match=f"{size[1]} x {size[0]} px"):
        normalise_line(np.full(size, 255, np.uint8), LINE)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_page_is_blank(value: int) -> None:
    image = normalise_line(np.full((60, 400), value, np.uint8), LINE)
    assert image.is_blank
    assert not image.pixels.any()


def test_faint_noise_is_a_blank_page() -> None:
    noise = np.random.default_rng(0).normal(240, 3, (70, 500))
    assert normalise_line(np.clip(noise, 0, 255).astype(np.uint8), LINE).is_blank


@pytest.mark.parametrize("scale", [1, 3])
def test_columns_map_back_to_pixels_of_the_sent_image(scale: int) -> None:
    grey = written()
    big = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    image = normalise_line(np.asarray(big, np.uint8), LINE)
    dark = np.flatnonzero(image.pixels.max(0) > 0.5)
    assert image.to_source_x(float(dark[0])) == pytest.approx(60 * scale, abs=3 * scale)
    last = 60 + 22 * ((600 - 120 - 1) // 22) + 8
    assert image.to_source_x(float(dark[-1] + 1)) == pytest.approx(last * scale, abs=3 * scale)
    assert image.to_source_x(-1e6) == 0.0
    assert image.to_source_x(1e6) == 600.0 * scale


def middles(image: LineImage) -> list[float]:
    """Where the strokes stand in the sent image, by the row halfway up."""
    dark = image.pixels[image.pixels.shape[0] // 2] > 0.5
    edges = np.flatnonzero(np.diff(dark.astype(int)))
    return [image.to_source_x((a + b) / 2 + 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_other_looks_show_the_same_line_smaller_and_more_upright() -> None:
    image = normalise_line(bars(0.3), LINE)
    smaller, upright = other_looks(image, LINE)
    for look in (smaller, upright):
        assert look.pixels.shape[0] == LINE.height
        assert look.pixels.shape[1] % LINE.frame_stride == 0
        assert look.pixels.dtype == np.float32
        assert middles(look) == pytest.approx(middles(image), abs=2.0)
    assert len(rows_with_ink(smaller.pixels)) == pytest.approx(0.75 * len(rows_with_ink(image.pixels)), abs=2)
    assert upright.pixels.sum() == pytest.approx(image.pixels.sum(), rel=0.02)  # nothing is cut off
    # What leaned to the right by as much stands upright now: upright strokes lean to the left.
    top, bottom = (np.flatnonzero(upright.pixels[row] > 0.5)[0] for row in (8, LINE.height - 9))
    assert bottom - top == pytest.approx(0.25 * (LINE.height - 17), abs=2)


def test_a_line_upside_down_is_the_line_turned() -> None:
    grey = bars(0.3)
    grey[40:60, 60:90] = 20  # so that it has a left and a right
    image = normalise_line(grey, LINE)
    (turned,) = upside_down(normalise_line(np.ascontiguousarray(grey[::-1, ::-1]), LINE), LINE)
    assert turned.rotation == 180
    assert turned.pixels.shape == image.pixels.shape
    assert middles(turned) == pytest.approx(middles(image), abs=2.0)
    # But for what the half of a frame's width moves.
    assert float(np.abs(turned.pixels.sum(axis=1) - image.pixels.sum(axis=1)).max()) < 3
    (back,) = upside_down(turned, LINE)
    assert back.rotation == 0


def encoded(grey: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", grey)
    assert done
    return data.tobytes()


def test_a_line_on_its_side_is_laid_down() -> None:
    upright = load_line_image(encoded(bars(0.3)), LINE)
    turned = load_line_image(encoded(np.ascontiguousarray(np.rot90(bars(0.3), -1))), LINE)
    assert (upright.rotation, turned.rotation) == (0, 270)
    assert (turned.source_width, turned.source_height) == (upright.source_width, upright.source_height)
    assert np.array_equal(turned.pixels, upright.pixels)


@pytest.mark.parametrize("kind", ["a letter", "a line on a tall page", "a page", "blank"])
def test_a_tall_picture_of_anything_else_is_taken_as_it_is(kind: str) -> None:
    if kind == "a letter":
        grey = np.ascontiguousarray(bars(0.3)[:, 55:85])
    else:
        grey = np.full((1300, 640), 230, np.uint8)
        for top in {"a line on a tall page": [300], "a page": range(0, 1200, 100), "blank": []}[kind]:
            line = bars(0.3)
            grey[top : top + len(line), : line.shape[1]] = line[:, :640]
    image = load_line_image(encoded(grey), LINE)
    assert image.rotation == 0
    assert (image.source_width, image.source_height) == (grey.shape[1], grey.shape[0])


@pytest.mark.parametrize(
    ("height", "margin", "rows"), [(80, 0, [80]), (300, 0, [96]), (300, 250, [96, 160]), (110, 40, [110])]
)
def test_a_large_scan_is_looked_at_closely_only_where_its_text_is_small(
    height: int, margin: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = (height - margin) / 70
    grey = cv2.resize(bars(0.3)[15:85], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = cv2.copyMakeBorder(grey, margin // 2, margin - margin // 2, 0, 0, cv2.BORDER_REPLICATE)
    looks = []
    find_ink = ink_module.find_ink

    def noted(work: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        looks.append(work.shape[0])
        return find_ink(work)

    monkeypatch.setattr(ink_module, "find_ink", noted)
    image = normalise_line(np.asarray(grey, np.uint8), LINE)
    assert looks == rows
    assert len(rows_with_ink(image.pixels)) > 0.85 * LINE.height


@pytest.mark.parametrize("rise", [0.05, -0.08])
def test_a_sloping_line_is_levelled(rise: float) -> None:
    level = normalise_line(written(), LINE)
    sloping = normalise_line(written(height=160, rise=rise), LINE)
    rows = (sloping.pixels > 0.5).mean(1)
    # Levelled bars fill the height nearly evenly; on a slope only some of them reach any one row.
    assert rows.max() > 0.75 * (level.pixels > 0.5).mean(1).max()


def test_a_very_long_line_is_squeezed_to_the_widest_allowed() -> None:
    image = normalise_line(written(height=40, width=9000), LINE)
    assert image.pixels.shape[1] <= LINE.max_width


def test_encoded_bytes_and_pixels_give_the_same_line() -> None:
    grey = written()
    done, data = cv2.imencode(".png", grey)
    assert done
    np.testing.assert_array_equal(
        load_line_image(data.tobytes(), LINE).pixels, normalise_line(grey, LINE).pixels
    )


def test_writing_far_wider_than_a_line_is_refused_and_a_rule_is_not() -> None:
    line = cv2.imread(str(Path(__file__).parents[2] / "examples" / "sample_line.png"), cv2.IMREAD_GRAYSCALE)
    assert line is not None
    grey = line.astype(np.uint8)
    assert normalise_line(np.hstack([grey] * 4), LineFormat()).pixels.shape[1] <= LineFormat().max_width
    with pytest.raises(InvalidImageError, match=r"is \d+ times as wide as high, more than .* cut the line"):
        normalise_line(np.hstack([grey] * 8), LineFormat())
    rule = np.full((40, 3_000), 255, np.uint8)
    rule[20:23, 50:2_950] = 0
    assert not normalise_line(rule, LineFormat()).is_blank


def shadows() -> dict[str, NDArray[np.float64]]:
    """What falls on a page: brightness by column or row of an 80 x 600 image, or a dark frame."""
    frame = np.ones((80, 600))
    frame[:8], frame[-8:], frame[:, :8], frame[:, -8:] = 0.05, 0.05, 0.05, 0.05
    half = np.where(np.arange(600) < 290, 1.0, 0.5)[np.newaxis]
    return {"slow": np.linspace(1.0, 0.45, 600)[np.newaxis], "edge": half, "frame": frame}


@pytest.mark.parametrize("shadow", sorted(shadows()))
@pytest.mark.parametrize("is_inverted", [False, True])
def test_neither_a_shadow_nor_a_dark_frame_is_taken_for_the_paper(shadow: str, is_inverted: bool) -> None:
    grey = (written(paper=200, ink=60) * shadows()[shadow]).astype(np.uint8)
    pixels = normalise_line(255 - grey if is_inverted else grey, LINE).pixels
    # Bars take a third of their rows; were paper taken for ink, it would be two thirds.
    letters = pixels[LINE.height // 2, 100:200]
    assert 0.2 < (letters > 0.5).mean() < 0.5


def with_neighbours(rise: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A line, and the same with the lower ends of one above it and the upper ends of one below it."""
    alone = written(height=200, rise=rise)
    crowded = alone.copy()
    for x in range(80, 540, 37):
        crowded[:10, x : x + 6] = 60
        crowded[-14:, x + 9 : x + 15] = 60
    return alone, crowded


@pytest.mark.parametrize("rise", [0.0, 0.06])
def test_what_neighbouring_lines_have_left_at_the_edges_is_taken_away(rise: float) -> None:
    alone, crowded = with_neighbours(rise)
    reference = normalise_line(alone, LINE).pixels
    pixels = normalise_line(crowded, LINE).pixels
    assert pixels.shape == reference.shape
    assert np.abs(pixels - reference).mean() < 0.01


def test_a_crop_that_cuts_its_own_long_letters_keeps_their_dots() -> None:
    grey = np.full((90, 600), 230, np.uint8)
    for x in range(60, 540, 22):
        grey[45:75, x : x + 8] = 60
    for x in range(60, 540, 66):
        grey[0:75, x : x + 8] = 60  # a long letter, cut off by the edge
    for x in range(82, 540, 132):
        grey[0:6, x : x + 8] = 60  # the dot of a letter, cut off as well
    image = normalise_line(grey, LINE)
    dots = (image.pixels[: LINE.height // 12] > 0.5).any(0)
    runs = np.count_nonzero(np.diff(dots.astype(int)) == 1)
    assert runs == len(range(60, 540, 66)) + len(range(82, 540, 132))
