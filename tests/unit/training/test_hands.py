from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_training import hands
from longhand_training.hands import another_hand
from longhand_training.strokes import PenText


def written(*strokes: list[tuple[float, float]], text: str = "ab") -> PenText:
    points = np.array([(x, y, 1.0) for stroke in strokes for x, y in stroke], np.float32)
    lengths = np.array([len(stroke) for stroke in strokes])
    return PenText(text, points, np.cumsum(lengths) - lengths)


def letters(count: int, gap: float) -> PenText:
    """Arches of 100 units, ``gap`` apart, and a dot above the last."""
    angles = np.linspace(0, np.pi, 20)
    strokes = [
        [(100 * i + gap * i + 50 - 50 * np.cos(a), 100 - 100 * np.sin(a)) for a in angles]
        for i in range(count)
    ]
    strokes.append([(count * (100 + gap) - gap - 50, -30.0), (count * (100 + gap) - gap - 48, -28.0)])
    return written(*strokes, text="n" * count)


def test_another_hand_writes_the_same_text_and_leaves_the_original_alone() -> None:
    pen = letters(12, 20.0)
    before = pen.points.copy()
    seen = set()
    for seed in range(60):
        other = another_hand(pen, np.random.default_rng(seed))
        assert other.text == pen.text
        assert other.points.shape == pen.points.shape
        assert other.starts[0] == 0
        assert set(other.starts) <= set(pen.starts)
        assert np.isfinite(other.points).all()
        # Every arch is still to the right of the one before it.
        middles = [other.points[start : start + 20, 0].mean() for start in pen.starts[:-1]]
        assert np.all(np.diff(middles) > 0)
        seen.add(other.points.tobytes())
    assert len(seen) > 40
    assert np.array_equal(pen.points, before)


def test_the_same_seed_gives_the_same_hand() -> None:
    pen = letters(8, 20.0)
    one, other = (another_hand(pen, np.random.default_rng(9)) for _ in "12")
    assert np.array_equal(one.points, other.points)
    assert np.array_equal(one.starts, other.starts)


def test_neighbouring_letters_are_joined_and_words_and_dots_are_not() -> None:
    rng = np.random.default_rng(1)
    near, far = letters(5, 20.0), letters(5, 200.0)
    assert hands._joined(near.points, near.starts, 1.0, rng).tolist() == [0, 100]  # the arches, and the dot
    assert hands._joined(far.points, far.starts, 1.0, rng).tolist() == far.starts.tolist()
    stop = written([(0, 0), (10, 50), (20, 80), (30, 100)], [(40, 100), (42, 100)], text="l.")
    assert hands._joined(stop.points, stop.starts, 1.0, rng).tolist() == [0, 4]


def test_long_parts_are_scaled_and_small_letters_are_not() -> None:
    y = np.concatenate([np.linspace(0, 100, 101), [-80.0, 180.0]]).astype(np.float32)
    scaled = hands._long_parts(y, 0.5, 2.0)
    inside = (y >= 20) & (y <= 80)
    assert np.allclose(scaled[inside], y[inside], atol=2)
    assert scaled[-2] > -80 + 40
    assert scaled[-1] > 180 + 80


def test_rounding_stays_within_a_stroke() -> None:
    pen = written([(0, 0), (0, 100), (0, 0), (0, 100)], [(500, 0), (500, 1)])
    rounded = hands._rounded(pen.points[:, :2], pen.starts, 2)
    assert np.all(rounded[:4, 0] == 0)
    assert np.all(rounded[4:, 0] == 500)
    assert np.ptp(rounded[:4, 1]) < 100
