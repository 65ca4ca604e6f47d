"""Strokes, words and lines: what is cut and joined, and where it is drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.pen_packs import write_pack
from longhand_training import augment, ink
from longhand_training.strokes import PenLine, PenText, WriterBank, _split_words, load_pen_lines


def written(text: str, *strokes: tuple[float, float], height: float = 100.0) -> PenText:
    """Each stroke rises from its left end to its right one."""
    points = [
        (left + (right - left) * k / 4, height * k / 4, 1.0) for left, right in strokes for k in range(5)
    ]
    return PenText(text, np.array(points, np.float32), np.arange(0, 5 * len(strokes), 5))


def pen_line(line_id: str, text: str, left: float = 0.0) -> PenLine:
    """Letters of 100 units, 20 apart; no words."""
    strokes = [(left + 120 * i, left + 120 * i + 100) for i in range(len(text))]
    return PenLine(line_id, written(text, *strokes), (), 100.0, 60.0)


def test_a_line_begins_a_stroke_though_the_pen_stayed_down(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "one"), ("f-1-02", "two")])
    with np.load(path) as pack:
        arrays = dict(pack)
    np.savez(path, **{**arrays, "pen_up": np.zeros_like(arrays["pen_up"])})
    training, validation = load_pen_lines(path)
    assert [line.line.starts.tolist() for line in training + validation] == [[0], [0]]


def test_a_stroke_begins_as_fast_as_it_goes_on_and_not_as_the_pen_came(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "one two"), ("f-1-02", "two")])
    with np.load(path) as pack:
        arrays = dict(pack)
    speeds = []
    for time in (0, 1, 4):  # centiseconds; 0 is a clock's rounding
        np.savez(path, **{**arrays, "dt_centiseconds": np.full_like(arrays["dt_centiseconds"], time)})
        (line,), _ = load_pen_lines(path)
        starts, speed = line.line.starts, line.line.points[:, 2]
        np.testing.assert_array_equal(speed[starts], speed[starts + 1])
        speeds.append(speed)
    assert speeds[1][1] == pytest.approx(np.hypot(40, 100))
    np.testing.assert_array_equal(speeds[0], speeds[1])
    np.testing.assert_allclose(speeds[2], speeds[1] / 4)


def test_pen_lines_are_labelled_as_others_are_and_none_has_no_label(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "it's"), ("f-1-02", "x"), ("f-1-03", "empty")])
    with np.load(path) as pack:
        arrays = dict(pack)
    np.savez(path, **{**arrays, "text": np.array(["it\u2019s", "x", " "])})
    assert [line.line.text for line in load_pen_lines(path)[0]] == ["it's"]


def test_a_stroke_that_was_written_late_belongs_to_the_word_that_it_stands_in() -> None:
    line = written("ab cd", (0, 100), (120, 220), (400, 500), (520, 620), (30, 60))
    words, gap = _split_words(line)
    assert [(word.text, len(word.starts), word.box()[2]) for word in words] == [
        ("ab", 3, 220),
        ("cd", 2, 220),
    ]
    assert gap == 180


def test_words_are_told_apart_behind_a_stroke_that_reaches_over_others() -> None:
    words, _ = _split_words(written("abc de", (0, 300), (20, 60), (200, 240), (400, 500), (510, 600)))
    assert [(word.text, len(word.starts)) for word in words] == [("abc", 3), ("de", 2)]


@pytest.mark.parametrize(
    "strokes",
    [
        ((0, 100), (270, 370), (560, 660), (680, 780)),  # as wide a gap within a word
        ((0, 40), (50, 90), (400, 900), (910, 1400)),  # one word five times as wide as the other
        ((0, 400), (100, 500), (200, 600), (300, 700)),  # no gap at all
    ],
)
def test_words_that_cannot_be_told_apart_are_none(strokes: tuple[tuple[float, float], ...]) -> None:
    words, gap = _split_words(written("abc def", *strokes))
    assert words == ()
    assert gap >= 20  # what is joined to the line stands apart all the same


def test_a_composed_line_is_one_hand_s_and_often_two_lines_that_follow_each_other() -> None:
    texts = ("aa", "bb", "cc", "dd")
    lines = [pen_line(f"f1-{i}", text, left=5000.0) for i, text in enumerate(texts)]
    lines += [pen_line(f"f2-{i}", text.upper()) for i, text in enumerate(texts)]
    bank, rng = WriterBank(lines), np.random.default_rng(0)
    pairs, widths = [], []
    for _ in range(600):
        pen = bank.compose(rng)
        assert pen.text in (pen.text.upper(), pen.text.lower())
        left, _, right, _ = pen.box()
        assert 220 * (1 + pen.text.count(" ")) <= right - left < 1000  # the pages' margins are no gaps
        if " " in pen.text:
            pairs.append(pen.text.lower())
            widths.append(right - left)
    following = {f"{a} {b}" for a, b in zip(texts, texts[1:] + texts[:1], strict=True)}
    assert 0.5 < sum(pair in following for pair in pairs) / len(pairs) < 0.75
    assert np.std(widths) > 10  # nor are all gaps as wide


def test_composed_lines_are_as_written_two_joined_or_words_in_a_new_order_often_phrases(
    tmp_path: Path,
) -> None:
    path, texts = tmp_path / "strokes.npz", ("a b c", "d e f", "g h i", "j k l")
    write_pack(path, [pair for text in texts for pair in (("f-1", text), ("f-2", "x"))])
    bank, rng = WriterBank(load_pen_lines(path)[0]), np.random.default_rng(0)
    made = [bank.compose(rng).text for _ in range(600)]
    joined = [text for text in made if text[:5] in texts and len(text) == 11]
    others = [text for text in made if text[:5] not in texts and len(text) > 3]
    letters = "abcdefghijkl"
    phrases = [text for text in others if text.replace(" ", "") in letters * 2]
    shares = [made.count(text) for text in texts], len(joined), len(others)
    assert sum(shares[0]) / 600 == pytest.approx(0.4, abs=0.06)
    assert shares[1] / 600 == pytest.approx(0.3, abs=0.06)
    assert len(phrases) / shares[2] == pytest.approx(0.45, abs=0.1)


def test_a_plain_drawing_has_its_border_and_fills_the_rest() -> None:
    grey = ink.draw_plain(written("a", (300, 700)), height=100, thickness=3, border=8)
    rows, columns = np.flatnonzero((grey < 128).any(1)), np.flatnonzero((grey < 128).any(0))
    assert (rows[0], 99 - rows[-1]) == pytest.approx((8, 8), abs=3)
    assert (columns[0], grey.shape[1] - 1 - columns[-1]) == pytest.approx((8, 8), abs=3)


def test_ink_lies_where_it_was_written() -> None:
    pen = written("Ml", *((100 * i / 8, 100 * i / 8 + 60) for i in range(8)), (600, 610))
    for seed in range(20):
        mask = ink.draw_ink(pen, np.random.default_rng(seed), 64.0)
        half = mask.shape[1] // 2
        assert mask[:, :half].sum() > 3 * mask[:, half:].sum() > 0


def test_a_line_is_drawn_with_another_slant_width_and_nib_each_time() -> None:
    stem, line = written("l", (0.0, 0.0)), written("llllllll", *((120.0 * i, 120.0 * i) for i in range(8)))
    slants, widths, nibs = [], [], []
    for seed in range(60):
        mask = ink.draw_ink(stem, np.random.default_rng(seed), 64.0)
        rows = np.flatnonzero(mask.any(1))
        quarter = len(rows) // 4
        upper, lower = mask[rows[:quarter]].sum(0), mask[rows[-quarter:]].sum(0)
        x = np.arange(mask.shape[1])
        slants.append((np.average(x, weights=lower) - np.average(x, weights=upper)) / (3 * quarter))
        nibs.append(mask.sum() / len(rows))
        widths.append(ink.draw_ink(line, np.random.default_rng(seed), 64.0).shape[1])
    assert np.std(slants) > 0.12
    assert np.std(widths) > 0.12 * np.mean(widths)
    assert max(nibs) > 3 * min(nibs)


def test_a_quick_stroke_is_thinner_than_a_slow_one() -> None:
    pen = written("ll", (0.0, 0.0), (400.0, 400.0))
    pen.points[5:, 2] = 4.0
    quick = slow = 0.0
    for seed in range(30):
        mask = ink.draw_ink(pen, np.random.default_rng(seed), 64.0)
        half = mask.shape[1] // 2
        slow, quick = slow + mask[:, :half].sum(), quick + mask[:, half:].sum()
    assert quick < 0.9 * slow


def test_shreds_are_the_foot_of_the_line_above_or_the_top_of_the_line_below() -> None:
    other = np.repeat(np.array([[0.25], [0.75]], np.float32), 32, axis=0).repeat(50, axis=1)
    seen = set()
    for seed in range(10):
        mask = ink._with_shreds(np.zeros((64, 80), np.float32), other, np.random.default_rng(seed))
        seen.add((float(mask[:13].max()), float(mask[13:-13].max()), float(mask[-13:].max())))
    assert seen == {(0.75, 0.0, 0.0), (0.0, 0.0, 0.25)}
    edges = []
    for neighbour in (None, np.ones((64, 80), np.float32)):
        rngs = map(np.random.default_rng, range(20))
        greys = [ink.on_paper(np.zeros((64, 80), np.float32), rng, neighbour) for rng in rngs]
        edges.append(np.mean([[grey[:3], grey[-3:]] for grey in greys]))
    assert edges[1] < edges[0] - 40


def test_strokes_are_drawn_whole_apart_and_each_in_its_own_shade() -> None:
    canvas = np.zeros((100, 120), np.uint8)
    points = [(x, y) for y in (20, 80) for x in range(10, 111, 20)]
    thickness = np.array([3, 3, 3, 7, 7, 7] * 2)
    ink._draw_runs(canvas, np.array(points, np.float32), np.array([0, 6]), thickness, np.array([100, 200]))
    assert (canvas[20, 10:110] > 90).all()
    assert (canvas[80, 10:110] > 190).all()
    assert (canvas[:50].max(), canvas[50:].max()) == (100, 200)
    assert not canvas[30:70].any()


def test_ink_is_darker_than_paper() -> None:
    mask = np.zeros((64, 200), np.float32)
    mask[20:44, 40:160:8] = mask[20:44, 41:160:8] = mask[20:44, 42:160:8] = 1.0
    for seed in range(30):
        grey = ink.on_paper(mask, np.random.default_rng(seed))
        assert grey[mask > 0].mean() < grey[mask == 0].mean() - 10


def test_half_of_the_papers_are_white_as_published_lines_are() -> None:
    mask = np.zeros((48, 96), np.float32)
    mask[20:30, 40:60] = 1.0
    white = sum(np.median(ink.on_paper(mask, np.random.default_rng(seed))) == 255 for seed in range(200))
    assert white / 200 == pytest.approx(0.5, abs=0.1)


def test_noise_is_as_smooth_along_a_line_as_across_it() -> None:
    noise = ink.smooth_noise((60, 900), 20.0, np.random.default_rng(0))
    down, along = (float(np.abs(np.diff(noise, axis=axis)).mean()) for axis in (0, 1))
    assert along == pytest.approx(down, rel=0.4)
    assert noise.std() == pytest.approx(1.0, abs=0.3)


def test_shaking_is_evened_out_within_long_strokes() -> None:
    smoothed = ink._smoothed(np.ones((10, 2)), np.array([0, 3]))
    np.testing.assert_allclose(smoothed[:, 0], [1, 1, 1, 0.6, 0.8, 1, 1, 1, 0.8, 0.6])


def _spots(pixels: np.ndarray) -> int:
    return cv2.connectedComponents(pixels.astype(np.uint8))[0] - 1


def test_slanting_and_stretching_cut_nothing_off() -> None:
    grey = np.full((60, 300), 255, np.uint8)
    for y, x in ((0, 0), (0, 292), (52, 0), (52, 292)):
        grey[y : y + 8, x : x + 8] = 0
    shapes: list[list[tuple[float, float, float]]] = [[], []]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        turned = augment._affine(grey, 255, rng)
        assert _spots(turned < 100) == 4
        warped = augment.warp_pixels((grey == 0).astype(np.float32), rng)
        assert warped.shape[0] == 60
        assert _spots(warped > 0.6) == 4
        for found, ink_of in zip(shapes, (turned < 100, warped > 0.6), strict=True):
            rows, columns = np.nonzero(ink_of)
            middle = rows.mean()
            slant = columns[rows > middle].min() - columns[rows < middle].min()
            found.append((slant / 60, np.ptp(columns[rows < middle]) / 300, np.ptp(rows) / 60))
    # Every time another slant, width and height; what is normalised keeps its height.
    scan, normalised = (np.std(found, axis=0) for found in shapes)
    assert (scan > (0.1, 0.1, 0.07)).all()
    assert (normalised > (0.08, 0.06, -1)).all()


def test_a_normalised_line_stays_upright() -> None:
    pixels = np.zeros((64, 400), np.float32)
    pixels[5:15] = 1.0
    pixels[5:15, ::2] = 0.5
    same = dark = 0
    for seed in range(200):
        changed = augment.augment_pixels(pixels, np.random.default_rng(seed))
        assert np.average(np.arange(64), weights=changed.sum(1)) < 32
        same += np.array_equal(changed, pixels)
        dark += augment.augment_pixels(np.zeros_like(pixels), np.random.default_rng(seed)).max() > 0
    assert same / 200 == pytest.approx(0.65 * 0.8 * 0.7, abs=0.06)  # neither squeezed, nor cut, nor shaded
    assert 0 < dark / 200 < 0.1  # what is cut is paper mostly, and seldom a blot


def test_a_close_crop_leaves_the_writing_whole_and_waves_are_small() -> None:
    grey = np.full((100, 400), 255, np.uint8)
    grey[30:70, 198:202] = 0
    heights, places = set(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        heights.add(augment._recrop(grey, rng).shape[0])
        bent = 255 - augment.elastic(grey, rng).astype(float)
        places.append(np.average(np.arange(400), weights=bent.sum(0)))
    assert 185 < min(places) < 198 < 202 < max(places) < 215
    assert 92 <= min(heights) < 100 < max(heights)
