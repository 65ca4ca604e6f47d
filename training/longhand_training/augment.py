"""Random changes of a scanned line, before normalisation, and of the normalised line."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_server.image_file import MIN_SIDE
from longhand_training.ink import Grey, smooth_noise

# OpenCV warps nothing of more than 32,767 px on a side; no slant, stretch and tilt make more than that of these.
_LONGEST_SIDE = 12_000


def augment_scan(grey: Grey, rng: np.random.Generator) -> Grey:
    """Another look at a real scan: slant, stretch, waves, pen, paper, scanner, crop.

    Args:
        grey: (H, W) uint8, dark ink on light paper.
        rng: source of all chance.

    Returns:
        (H', W') uint8, at least 3 px on either side, as the server takes it.
    """
    if max(grey.shape) > _LONGEST_SIDE:
        scale = _LONGEST_SIDE / max(grey.shape)
        size = (max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    paper = int(np.percentile(grey, 85))
    grey = _affine(grey, paper, rng)
    if rng.random() < 0.5:
        grey = elastic(grey, rng)
    kind = rng.random()
    if kind < 0.08:
        grey = np.asarray(cv2.erode(grey, np.ones((2, 2), np.uint8)), np.uint8)
    elif kind < 0.16:
        grey = np.asarray(cv2.dilate(grey, np.ones((2, 2), np.uint8)), np.uint8)
    if rng.random() < 0.4:
        grey = _contrast(grey, rng)
    if rng.random() < 0.25:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.4, 1.2))), np.uint8)
    if rng.random() < 0.3:
        strength = float(rng.uniform(1, 8))
        noisy = grey + strength * rng.standard_normal(grey.shape, dtype=np.float32)
        grey = np.clip(noisy, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        grey = grey.copy()
        ink, sheet = np.percentile(grey, (2, 80))
        grey[grey > ink + (sheet - ink) * float(rng.uniform(0.55, 0.9))] = 255
    return np.ascontiguousarray(_recrop(grey, rng), np.uint8)


def _affine(grey: Grey, paper: int, rng: np.random.Generator) -> Grey:
    height, width = grey.shape
    slant = float(rng.normal(0.0, 0.18))
    stretch = float(np.exp(rng.normal(0.0, 0.17)))
    size = float(rng.uniform(0.75, 1.1))
    tilt = float(rng.normal(0.0, 0.006))
    reach = abs(slant) * height
    out = (
        max(int((width + reach) * stretch * size) + 1, MIN_SIDE),
        max(int((height + abs(tilt) * width) * size) + 1, MIN_SIDE),
    )
    a = stretch * size
    matrix = np.array(
        [
            [a, -slant * a, (slant * height if slant > 0 else 0.0) * a],
            [tilt * size, size, (-tilt * width if tilt < 0 else 0.0) * size],
        ]
    )
    return np.asarray(
        cv2.warpAffine(
            grey, matrix, out, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=float(paper)
        ),
        np.uint8,
    )


def elastic(grey: Grey, rng: np.random.Generator) -> Grey:
    """Smooth displacement of every pixel (elastic grid), a few px at most."""
    shape = (grey.shape[0], grey.shape[1])
    cell = float(rng.uniform(0.25, 0.9)) * shape[0]
    strength = float(rng.uniform(0.01, 0.035)) * shape[0]
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x += 1.2 * strength * smooth_noise(shape, cell, rng)
    y += strength * smooth_noise(shape, cell, rng)
    return np.asarray(cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _contrast(grey: Grey, rng: np.random.Generator) -> Grey:
    gamma = float(np.exp(rng.normal(0.0, 0.35)))
    low = float(rng.uniform(0, 90))
    table = low + (255.0 - low) * (np.arange(256) / 255.0) ** gamma
    return np.asarray(cv2.LUT(grey, table.astype(np.uint8)), np.uint8)


def _recrop(grey: Grey, rng: np.random.Generator) -> Grey:
    height = grey.shape[0]
    paper = int(np.percentile(grey, 85))
    if rng.random() < 0.25:  # cut close: up to 4 % of the rows at either edge
        most = min(max(height // 25, 1), (height - MIN_SIDE) // 2)
        top, bottom = (int(rng.integers(0, most + 1)) for _ in range(2))
        return grey[top : height - bottom]
    if rng.random() < 0.25:
        rows = max(height // 4, 1)
        top, bottom, left, right = rng.integers(0, (rows, rows, height, height)).tolist()
        wide = cv2.copyMakeBorder(grey, top, bottom, left, right, cv2.BORDER_CONSTANT, value=paper)
        return np.asarray(wide, np.uint8)
    return grey


def warp_pixels(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another slant and width of a normalised (H, W) line; (H, W') with ink towards 1."""
    height, width = pixels.shape
    slant = float(rng.normal(0.0, 0.12))
    stretch = float(np.exp(rng.normal(0.0, 0.1)))
    matrix = np.array([[stretch, -slant, max(slant, 0.0) * height], [0.0, 1.0, 0.0]])
    size = (round(width * stretch + abs(slant) * height), height)
    return np.asarray(cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR), np.float32)


def augment_pixels(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Height jitter and cut-outs on a normalised (H, W) line; ink towards 1."""
    height, width = pixels.shape
    if rng.random() < 0.35:
        rows = round(height * float(rng.uniform(0.7, 0.97)))
        small = cv2.resize(pixels, (width, rows), interpolation=cv2.INTER_AREA)
        top = int(rng.integers(0, height - rows + 1))
        pixels = np.zeros_like(pixels)
        pixels[top : top + rows] = small
    if rng.random() < 0.2:
        pixels = pixels.copy()
        for _ in range(int(rng.integers(1, 5))):
            w, h = int(rng.integers(2, 10)), int(rng.integers(4, height // 2))
            x, y = int(rng.integers(0, max(width - w, 1))), int(rng.integers(0, height - h))
            pixels[y : y + h, x : x + w] = float(rng.random() < 0.15) * 0.8
    if rng.random() < 0.3:
        pixels = pixels ** np.float32(np.exp(rng.normal(0.0, 0.3)))
    return pixels
