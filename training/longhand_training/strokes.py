"""Pen lines: the strokes of IAM-OnDB, cut into words and put together anew."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longhand_server.alphabet import fold_text

Points = NDArray[np.float32]
"""(P, 3): x and y in tablet units (y down) and pen speed in units per centisecond."""


@dataclass(frozen=True, eq=False)
class PenText:
    """Some text as pen strokes.

    Attributes:
        text: what is written.
        points: of all strokes, one after the other.
        starts: (S,) index of the first point of each stroke (a pen-down movement); the first is 0.
    """

    text: str
    points: Points
    starts: NDArray[np.intp]

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in tablet units."""
        (left, top), (right, bottom) = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(left), float(top), float(right), float(bottom)


def ends_of_points(
    starts: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """For each of ``count`` points the first and last point and the length of its stroke."""
    lengths = np.diff(np.append(starts, count))
    first = np.repeat(starts, lengths)
    of_each = np.repeat(lengths, lengths)
    return first, first + of_each - 1, of_each


@dataclass(frozen=True, eq=False)
class PenLine:
    """A written line, and its words where the strokes could be told apart (else empty).

    Attributes:
        line_id: such as ``a01-000u-01``; what stands before the last hyphen is the form, by one writer.
        words: with x from the word's own left edge and y from the line's baseline.
        height: of the whole line, tablet units.
        word_gap: median gap between words, tablet units.
    """

    line_id: str
    line: PenText
    words: tuple[PenText, ...]
    height: float
    word_gap: float

    @property
    def form(self) -> str:
        """Id of the page; its lines follow one another and have one writer."""
        return self.line_id.rsplit("-", 1)[0]


_ARRAYS = (
    "point_deltas",
    "dt_centiseconds",
    "pen_up",
    "line_start",
    "text",
    "line_id",
    "is_validation",
)


def load_pen_lines(path: Path) -> tuple[list[PenLine], list[PenLine]]:
    """Reads the stroke pack.

    Args:
        path: ``iamondb_strokes.npz`` as the data README describes it.

    Returns:
        Training and validation lines, their baselines levelled.

    Raises:
        ValueError: not a readable archive, an array is missing, or its length does not fit the others.
    """
    arrays = _read_pack(path)
    starts = arrays["line_start"]
    deltas = arrays["point_deltas"].astype(np.int32)
    positions = np.cumsum(deltas, axis=0)
    elapsed = np.maximum(arrays["dt_centiseconds"].astype(np.float32), 1.0)
    speed = np.hypot(deltas[:, 0], deltas[:, 1]).astype(np.float32) / elapsed
    points = np.column_stack([positions, speed]).astype(np.float32)
    # A line begins a stroke, too.
    begins = np.append(True, arrays["pen_up"].astype(bool))
    begins[starts] = True
    begins = begins[:-1]
    first = np.flatnonzero(begins)
    # The speed at a stroke's first point belongs to the flight of the raised pen.
    longer = first[~np.append(begins, True)[first + 1]]
    points[longer, 2] = points[longer + 1, 2]

    training: list[PenLine] = []
    validation: list[PenLine] = []
    for i in range(len(arrays["text"])):
        begin, end = int(starts[i]), int(starts[i + 1])
        text = fold_text(str(arrays["text"][i]))
        if end - begin < 2 or not text:
            continue
        strokes = first[np.searchsorted(first, begin) : np.searchsorted(first, end)] - begin
        line = _pen_line(
            str(arrays["line_id"][i]), PenText(text, _levelled(points[begin:end], len(strokes)), strokes)
        )
        (validation if arrays["is_validation"][i] else training).append(line)
    return training, validation


def _read_pack(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the stroke pack, of lengths that fit each other; raises as :func:`load_pen_lines`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as pack:
            missing = [name for name in _ARRAYS if name not in pack]
            if missing:
                raise ValueError(f"{path}: lacks the arrays {', '.join(missing)}")
            arrays = {name: pack[name] for name in _ARRAYS}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable pack of strokes: {error}") from error
    starts = arrays["line_start"]
    if starts[-1] != len(arrays["point_deltas"]) or len(starts) != len(arrays["text"]) + 1:
        raise ValueError(f"{path}: line_start does not fit the points and the texts")
    for name in ("dt_centiseconds", "pen_up"):
        if len(arrays[name]) != len(arrays["point_deltas"]):
            raise ValueError(
                f"{path}: {name} has {len(arrays[name])} values for {len(arrays['point_deltas'])} points"
            )
    return arrays


def _pen_line(line_id: str, line: PenText) -> PenLine:
    _, top, _, bottom = line.box()
    words, gap = _split_words(line)
    return PenLine(line_id, line, words, max(bottom - top, 1.0), gap)


def _levelled(points: Points, strokes: int) -> Points:
    """Turns the writing level (the board's lines rise and fall) and sets its median height to y = 0."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    slope = 0.0
    if np.ptp(x) > 3.0 * (np.ptp(y) + 1.0) or strokes > 12:
        away = x - x.mean()
        slope = float(away @ y) / max(float(away @ away), 1e-9)
    if abs(slope) > 0.2:
        slope = 0.0
    y -= slope * x
    level = points.copy()
    level[:, 1] = y - np.median(y)
    return level


def _split_words(line: PenText) -> tuple[tuple[PenText, ...], float]:
    """Cuts a line at its widest gaps, one less than it has words; () where that is doubtful."""
    names = line.text.split(" ")
    _, top, _, bottom = line.box()
    height = bottom - top + 1.0
    count = len(line.starts)
    if len(names) < 2 or count < len(names):
        return (), 0.35 * height
    left = np.minimum.reduceat(line.points[:, 0], line.starts)
    from_left = np.argsort(left, kind="stable")
    left = left[from_left]
    right = np.maximum.accumulate(np.maximum.reduceat(line.points[:, 0], line.starts)[from_left])
    gaps = left[1:] - right[:-1]
    cuts = np.sort(np.argsort(gaps)[::-1][: len(names) - 1])
    least = float(gaps[cuts].min())
    inner = np.delete(gaps, cuts)
    typical = float(np.median(gaps[cuts]))
    if least <= 0 or (len(inner) and least < 1.25 * float(inner.max())):
        return (), max(typical, 0.2 * height)
    edges = [0, *(cuts + 1).tolist(), count]
    widths = np.array([right[end - 1] - left[begin] for begin, end in pairwise(edges)])
    if not _plausible(names, widths):
        return (), typical
    ends = np.append(line.starts[1:], len(line.points))
    words = []
    for name, begin, end in zip(names, edges, edges[1:], strict=False):
        chosen = from_left[begin:end]
        points = np.concatenate([line.points[line.starts[i] : ends[i]] for i in chosen])
        points[:, 0] -= left[begin]
        lengths = ends[chosen] - line.starts[chosen]
        words.append(PenText(name, points, np.cumsum(lengths) - lengths))
    return tuple(words), typical


def _plausible(names: list[str], widths: NDArray[np.floating]) -> bool:
    """Whether each word is about as wide as its letters ask for."""
    letters = np.array([len(name) for name in names], float)
    per_letter = widths.sum() / letters.sum()
    long = letters >= 3
    ratio = widths[long] / (letters[long] * per_letter)
    return bool(np.all((ratio > 0.5) & (ratio < 1.8)))


class WriterBank:
    """The lines and words of each form, for composing new lines in one hand."""

    def __init__(self, lines: list[PenLine]) -> None:
        self.lines = lines
        self._forms: dict[str, list[PenLine]] = defaultdict(list)
        for line in sorted(lines, key=lambda item: item.line_id):
            self._forms[line.form].append(line)

    def compose(self, rng: np.random.Generator, longest: int = 75) -> PenText:
        """One training line: as written (40 %), two joined (30 %), or words in a new order (30 %)."""
        line = self.lines[int(rng.integers(len(self.lines)))]
        fellows = self._forms[line.form]
        kind = rng.random()
        if kind < 0.4:
            return line.line
        if kind < 0.7 or len(fellows) < 2:
            other = fellows[int(rng.integers(len(fellows)))]
            if rng.random() < 0.5:
                at = fellows.index(line)
                other = fellows[(at + 1) % len(fellows)]
            parts: list[PenText] = [line.line, *(other.words or (other.line,))]
            return _join(parts, line.word_gap, longest, rng)
        bank = [word for fellow in fellows for word in fellow.words]
        if len(bank) < 4:
            return line.line
        count = int(rng.integers(2, 12))
        start = int(rng.integers(len(bank)))
        if rng.random() < 0.5:
            chosen = [bank[int(i)] for i in rng.integers(len(bank), size=count)]
        else:  # runs of words in their own order keep phrases whole
            chosen = [bank[(start + i) % len(bank)] for i in range(count)]
        return _join(chosen, line.word_gap, longest, rng)


def _join(parts: list[PenText], gap: float, longest: int, rng: np.random.Generator) -> PenText:
    texts: list[str] = []
    points: list[Points] = []
    starts: list[NDArray[np.intp]] = []
    x, count = 0.0, 0
    spread = float(np.exp(rng.normal(0.0, 0.25)))
    for part in parts:
        if texts and len(" ".join([*texts, part.text])) > longest:
            break
        left, _, right, _ = part.box()
        points.append(part.points + np.array([x - left, 0.0, 0.0], np.float32))
        starts.append(part.starts + count)
        texts.append(part.text)
        count += len(part.points)
        x += right - left + gap * spread * float(np.exp(rng.normal(0.0, 0.2)))
    return PenText(" ".join(texts), np.concatenate(points), np.concatenate(starts))
