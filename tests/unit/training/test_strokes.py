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
    (line,), _ = load_pen_lines(path)
    starts = line.line.starts
    np.testing.assert_array_equal(line.line.points[starts, 2], line.line.points[starts + 1, 2])


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
    assert _split_words(written("abc def", *strokes))[0] == ()


def test_a_composed_line_is_one_hand_s_and_often_two_lines_that_follow_each_other() -> None:
    texts = ("aa", "bb", "cc", "dd")
    lines = [pen_line(f"f1-{i}", text, left=5000.0) for i, text in enumerate(texts)]
    lines += [pen_line(f"f2-{i}", text.upper()) for i, text in enumerate(texts)]
    bank, rng = WriterBank(lines), np.random.default_rng(0)
    pairs = []
    for _ in range(600):
        pen = bank.compose(rng)
        assert pen.text in (pen.text.upper(), pen.text.lower())
        left, _, right, _ = pen.box()
        assert 220 * (1 + pen.text.count(" ")) <= right - left < 1000  # the pages' margins are no gaps
        if " " in pen.text:
            pairs.append(pen.text.lower())
    following = {f"{a} {b}" for a, b in zip(texts, texts[1:] + texts[:1], strict=True)}
    assert 0.5 < sum(pair in following for pair in pairs) / len(pairs) < 0.75


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


def _spots(pixels: np.ndarray) -> int:
    return cv2.connectedComponents(pixels.astype(np.uint8))[0] - 1


def test_slanting_and_stretching_cut_nothing_off() -> None:
    grey = np.full((60, 300), 255, np.uint8)
    for y, x in ((0, 0), (0, 292), (52, 0), (52, 292)):
        grey[y : y + 8, x : x + 8] = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        assert _spots(augment._affine(grey, 255, rng) < 100) == 4
        warped = augment.warp_pixels((grey == 0).astype(np.float32), rng)
        assert warped.shape[0] == 60
        assert _spots(warped > 0.6) == 4


def test_a_normalised_line_stays_upright() -> None:
    pixels = np.zeros((64, 400), np.float32)
    pixels[5:15] = 1.0
    for seed in range(60):
        changed = augment.augment_pixels(pixels, np.random.default_rng(seed))
        assert np.average(np.arange(64), weights=changed.sum(1)) < 32


def test_a_close_crop_leaves_the_writing_whole_and_waves_are_small() -> None:
    grey = np.full((100, 400), 255, np.uint8)
    grey[30:70, 198:202] = 0
    heights = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        heights.add(augment._recrop(grey, rng).shape[0])
        bent = 255 - augment.elastic(grey, rng).astype(float)
        assert abs(np.average(np.arange(400), weights=bent.sum(0)) - 200) < 15
    assert 92 <= min(heights) < 100 < max(heights)
