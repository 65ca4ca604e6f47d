"""Strokes and masks -> grey images that look like scanned handwriting."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_training.strokes import PenText, ends_of_points

Grey = NDArray[np.uint8]
Mask = NDArray[np.float32]
_SUPERSAMPLE = 2
_SHIFT = 3  # fractional bits of the coordinates handed to OpenCV


def draw_plain(pen: PenText, height: int = 100, thickness: int = 3, border: int = 8) -> Grey:
    """A line as a plain drawing: black strokes of one width on white, (height, W) uint8."""
    left, top, right, bottom = pen.box()
    scale = (height - 2 * border) / max(bottom - top, 1.0)
    width = int((right - left) * scale) + 2 * border
    canvas = np.full((height, max(width, 2 * border + 1)), 255, np.uint8)
    origin = np.array([left, top], np.float32)
    points = _fixed((pen.points[:, :2] - origin) * scale + border)
    _draw(canvas, np.split(points, pen.starts[1:]), 0, thickness)
    return canvas


def _fixed(points: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _draw(canvas: NDArray[np.uint8], lines: list[NDArray[np.int32]], value: int, thickness: int) -> None:
    """Draws lines whose points have ``_SHIFT`` fractional bits."""
    cv2.polylines(canvas, lines, False, float(value), max(thickness, 1), cv2.LINE_AA, _SHIFT)


def draw_ink(pen: PenText, rng: np.random.Generator, body: float) -> Mask:
    """Strokes as ink coverage.

    Slant, stretch, wobble, nib and pressure are drawn at random.

    Args:
        pen: the strokes.
        rng: source of all chance.
        body: rows from the top of the tallest to the foot of the lowest stroke, px.

    Returns:
        (H, W) float32 coverage, 0 to 1.
    """
    every = _shaped(pen, rng)
    low, high = every[:, :2].min(0), every[:, :2].max(0)
    scale = body * _SUPERSAMPLE / max(float(high[1] - low[1]), 1.0)
    stretch = float(np.exp(rng.normal(-0.03, 0.2)))
    border = 4 * _SUPERSAMPLE + 8
    width = int((high[0] - low[0]) * scale * stretch) + 2 * border
    canvas = np.zeros((int(body * _SUPERSAMPLE) + 2 * border, min(max(width, 16), 8192)), np.uint8)
    # Pen width in 64 px lines: ballpoint about 1.5 px, felt pen 5 px.
    nib = float(np.exp(rng.uniform(np.log(1.3), np.log(5.2)))) * _SUPERSAMPLE * body / 64.0
    if rng.random() < 0.5:
        nib = float(rng.uniform(1.7, 3.4)) * _SUPERSAMPLE * body / 64.0
    by_speed = float(rng.uniform(0.0, 0.4)) if rng.random() < 0.7 else 0.0
    broad = float(rng.uniform(0.2, 0.7)) if rng.random() < 0.15 else 0.0
    nib_angle = float(rng.uniform(0.3, 1.3))
    typical = float(np.median(every[:, 2])) + 1e-3
    fade = float(rng.uniform(0.0, 0.35))
    points = (every[:, :2] - low) * np.array([scale * stretch, scale], np.float32) + border
    pace = np.clip(every[:, 2] / typical, 0.15, 5.0)
    wide = np.clip(pace**-by_speed, 0.6, 1.5)
    if broad:
        step = np.diff(points, axis=0, prepend=points[:1])
        step[pen.starts] = 0.0
        alone = np.diff(np.append(pen.starts, len(points))) == 1
        angled = 1 - broad * np.abs(np.cos(np.arctan2(step[:, 1], step[:, 0]) + nib_angle))
        angled[pen.starts[alone]] = 1.0
        wide = wide * angled
    thickness = _steady(np.maximum(np.round(wide * nib), 1).astype(int), pen.starts)
    levels = (255 * (1 - fade * rng.random(len(pen.starts)))).astype(int)
    _draw_runs(canvas, points, pen.starts, thickness, levels)
    size = (canvas.shape[1] // _SUPERSAMPLE, canvas.shape[0] // _SUPERSAMPLE)
    small = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255.0


def _steady(values: NDArray[np.int_], starts: NDArray[np.intp]) -> NDArray[np.int_]:
    """The median of each value and the two at either side within its stroke: single odd points go."""
    first, last, lengths = ends_of_points(starts, len(values))
    around = np.arange(len(values)) + np.arange(-2, 3)[:, np.newaxis]
    medians = np.sort(values[np.clip(around, first, last)], axis=0)[2]
    return np.where(lengths > 4, medians, values)


def _draw_runs(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float32],
    starts: NDArray[np.intp],
    thickness: NDArray[np.int_],
    levels: NDArray[np.int_],
) -> None:
    """Draws each run of equal thickness within a stroke; a run reaches the first point of the next."""
    fixed = _fixed(points)
    changes = np.append(True, np.diff(thickness) != 0)
    changes[starts] = True
    begins = np.flatnonzero(changes)
    # The run's last point: the next run's first, but for the last run of a stroke.
    stroke_ends = np.zeros(len(points) + 1, bool)
    stroke_ends[starts[1:]] = stroke_ends[-1] = True
    ends = np.append(begins[1:], len(points))
    stops = np.where(stroke_ends[ends], ends, ends + 1).tolist()
    of_run = levels[np.searchsorted(starts, begins, "right") - 1].tolist()
    pieces: dict[tuple[int, int], list[NDArray[np.int32]]] = {}
    for begin, stop, thick, level in zip(
        begins.tolist(), stops, thickness[begins].tolist(), of_run, strict=True
    ):
        pieces.setdefault((thick, level), []).append(fixed[begin:stop])
    for (thick, level), lines in sorted(pieces.items()):
        _draw(canvas, lines, level, thick)


def _shaped(pen: PenText, rng: np.random.Generator) -> NDArray[np.float32]:
    """The points after slant, slope, baseline wobble and a shaky or smooth hand."""
    left, top, _, bottom = pen.box()
    height = max(bottom - top, 1.0)
    slant = float(rng.normal(0.0, 0.22))
    slope = float(rng.normal(0.0, 0.008))
    wave = float(rng.uniform(0.0, 0.05)) * height
    length = float(rng.uniform(2.0, 8.0)) * height
    phase = float(rng.uniform(0.0, 6.28))
    # Smooth local changes of size: letters grow and shrink along the line.
    size_wave = float(rng.uniform(0.0, 0.12))
    shake = float(rng.uniform(0.0, 0.006)) * height if rng.random() < 0.3 else 0.0
    moved = pen.points.copy()
    x, y = pen.points[:, 0] - left, pen.points[:, 1]
    swell = 1.0 + size_wave * np.sin(x / (1.7 * length) * 6.28 + 2 * phase)
    moved[:, 1] = y * swell + slope * x + wave * np.sin(x / length * 6.28 + phase)
    moved[:, 0] = x - slant * y
    if shake:
        moved[:, :2] += _smoothed(rng.normal(0.0, shake, (len(moved), 2)), pen.starts)
    return moved


def _smoothed(noise: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """The mean of each value and the two at either side; beyond a stroke's ends counts as 0."""
    first, last, lengths = ends_of_points(starts, len(noise))
    around = np.arange(len(noise)) + np.arange(-2, 3)[:, np.newaxis]
    within = ((around >= first) & (around <= last))[..., np.newaxis]
    mean = np.where(within, noise[np.clip(around, first, last)], 0.0).sum(0) / 5
    return np.where((lengths >= 5)[:, np.newaxis], mean, noise)


def smooth_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Mask:
    """(H, W) float32 noise of mean 0 and about unit deviation, smooth over ``cell`` px."""
    rows, columns = max(int(shape[0] / cell), 1) + 2, max(int(shape[1] / cell), 1) + 2
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def on_paper(mask: Mask, rng: np.random.Generator, neighbour: Mask | None = None) -> Grey:
    """Ink coverage to a grey scan: texture, paper, rulings, noise, whitening, compression.

    Args:
        mask: (H, W) coverage, 0 to 1.
        rng: source of all chance.
        neighbour: coverage of another line, of which shreds may show at the upper or lower edge.
    """
    mask = _worn(mask, rng)
    if neighbour is not None:
        mask = _with_shreds(mask, neighbour, rng)
    whitened = rng.random() < 0.5
    shape = mask.shape
    dark = float(rng.uniform(0.35, 1.0))
    paper = np.full(shape, 1.0, np.float32)
    if not whitened or rng.random() < 0.3:
        paper *= float(rng.uniform(0.6, 1.0))
        if rng.random() < 0.5:
            paper += float(rng.uniform(0.0, 0.05)) * smooth_noise((shape[0], shape[1]), 60.0, rng)
        if rng.random() < 0.5:
            paper += float(rng.uniform(0.0, 0.03)) * smooth_noise((shape[0], shape[1]), 2.0, rng)
        _rule(paper, rng)
        if rng.random() < 0.1:
            through = cv2.GaussianBlur(mask[:, ::-1], (0, 0), 1.5)
            paper *= 1.0 - float(rng.uniform(0.05, 0.25)) * through
    grey = paper * (1.0 - dark * mask)
    noise = float(rng.uniform(0.0, 0.04))
    if noise > 0.005:
        grey = grey + noise * rng.standard_normal(shape, dtype=np.float32)
    image = np.clip(grey * 255.0, 0, 255).astype(np.uint8)
    if whitened:
        # Scans whose background was set to white by a threshold, as published line sets are.
        limit = float(np.median(image)) * float(rng.uniform(0.78, 0.96))
        image[image > limit] = 255
    return _compressed(image, rng)


def _worn(mask: Mask, rng: np.random.Generator) -> Mask:
    """Uneven ink: skipping ballpoint, dry felt, blur of the scanner."""
    shape = (mask.shape[0], mask.shape[1])
    kind = rng.random()
    if kind < 0.35:
        mask = mask * np.clip(1.0 + float(rng.uniform(0.1, 0.35)) * smooth_noise(shape, 1.5, rng), 0, 1)
    elif kind < 0.5:
        gaps = smooth_noise(shape, float(rng.uniform(2.0, 5.0)), rng)
        mask = mask * np.clip(1.6 + gaps, 0.15, 1.0)
    if rng.random() < 0.3:
        mask = mask * np.clip(0.85 + 0.2 * smooth_noise(shape, 40.0, rng), 0.35, 1.0)
    if rng.random() < 0.6:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.3, 1.1))), np.float32)
    return np.clip(mask, 0.0, 1.0).astype(np.float32)


def _with_shreds(mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Descenders of the line above or ascenders of the line below, at the edge of the crop."""
    rows, columns = mask.shape
    depth = int(rng.integers(3, max(rows // 5, 4)))
    if other.shape[0] < depth + 4:
        return mask
    above = bool(rng.random() < 0.5)
    piece = other[-depth - 4 : -4] if above else other[4 : depth + 4]
    width = min(piece.shape[1], columns)
    at = int(rng.integers(0, columns - width + 1))
    mask = mask.copy()
    target = mask[:depth] if above else mask[-depth:]
    target[:, at : at + width] = np.maximum(target[:, at : at + width], piece[:, :width])
    return mask


def _rule(paper: Mask, rng: np.random.Generator) -> None:
    """Ruled or squared paper, in place."""
    kind = rng.random()
    if kind > 0.4:
        return
    rows, columns = paper.shape
    strength = float(rng.uniform(0.05, 0.45))
    thick = int(rng.integers(1, 3))
    pitch = float(rng.uniform(0.35, 1.1)) * rows if kind < 0.3 else float(rng.uniform(12, 30))
    y = float(rng.uniform(0, pitch))
    tilt = float(rng.normal(0.0, 0.004))
    while y < rows:
        ends = (0, round(y)), (columns - 1, round(y + tilt * columns))
        cv2.line(paper, ends[0], ends[1], 1.0 - strength, thick)
        y += pitch
    if kind >= 0.3:
        x = float(rng.uniform(0, pitch))
        while x < columns:
            cv2.line(paper, (round(x), 0), (round(x), rows - 1), 1.0 - strength, thick)
            x += pitch


def _compressed(image: Grey, rng: np.random.Generator) -> Grey:
    if rng.random() < 0.25:
        quality = int(rng.integers(25, 90))
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done:
            return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    return image
