"""New lines from the words of scanned ones.

A network that sees the same few thousand scans again and again learns their sentences by heart. Runs of words cut
out of several lines of a page and set side by side are sentences that it has not seen, in the same hand and on
the same paper.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_training.ink import Grey
from longhand_training.packs import LabelledImage

# Words of a run, at most.
_LONGEST_RUN = 4
# Writing that differs more in size is not set beside each other; less than the second is left as it is.
_MOST_SCALE, _LEAST_SCALE = 2.0, 1.08
# Attempts at finding another line of the page that goes with the first.
_ATTEMPTS = 12


class ScanWordBank:
    """Lines whose words' places are known, by page.

    Args:
        images: labelled lines. Those of a page share their name up to its last figures.
        cuts: by name, x in px between each two words.
    """

    def __init__(self, images: Sequence[LabelledImage], cuts: Mapping[str, Sequence[int] | None]) -> None:
        self._cuts = cuts
        self._pages: dict[str, list[LabelledImage]] = defaultdict(list)
        for image in images:
            places = cuts.get(image.name)
            if places is not None and len(places) == image.text.count(" "):
                self._pages[_page(image.name)].append(image)

    def compose(self, image: LabelledImage, rng: np.random.Generator) -> tuple[Grey, str] | None:
        """Words of the page that an image is from, as many as it has letters; None where its page has no other line.

        Returns:
            (H, W) uint8 and the text.
        """
        page = self._pages.get(_page(image.name), [])
        if len(page) < 2:
            return None
        first = _Line(image)
        parts: list[NDArray[np.float32]] = []
        tops: list[int] = []
        texts: list[str] = []
        for _ in range(_ATTEMPTS):
            other = page[int(rng.integers(len(page)))]
            line = first if other is image else _Line(other)
            scale = first.pitch / line.pitch
            if not 1 / _MOST_SCALE < scale < _MOST_SCALE:
                continue
            if 1 / _LEAST_SCALE < scale < _LEAST_SCALE:
                scale = 1.0
            words = other.text.split(" ")
            places = [0, *(self._cuts[other.name] or ()), line.grey.shape[1]]
            start = int(rng.integers(len(words)))
            end = min(start + int(rng.integers(1, _LONGEST_RUN + 1)), len(words))
            part = line.ink[:, places[start] : places[end]]
            if part.shape[1] < 2:
                continue
            size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
            parts.append(np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.float32))
            tops.append(_shift(first.profile, line.profile, scale))
            texts += words[start:end]
            if sum(map(len, texts)) + len(texts) > len(image.text):
                break
        if not parts:
            return None
        top = min(tops)
        height = max(t + p.shape[0] for t, p in zip(tops, parts, strict=True)) - top
        ink = np.zeros((height, sum(p.shape[1] for p in parts)), np.float32)
        x = 0
        for t, p in zip(tops, parts, strict=True):
            ink[t - top : t - top + p.shape[0], x : x + p.shape[1]] = p
            x += p.shape[1]
        grey = np.clip(first.paper * (1.0 - ink), 0, 255).astype(np.uint8)
        return grey, " ".join(texts)


def read_cuts(path: Path) -> Mapping[str, Sequence[int] | None]:
    """What :mod:`longhand_training.word_cuts` wrote: by line, x in px between each two words; None: a wrong label.

    Raises:
        ValueError: not such a file.
    """
    try:
        cuts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable file of word cuts: {error}") from error
    if not isinstance(cuts, dict) or not all(
        value is None or (isinstance(value, list) and all(type(x) is int for x in value))
        for value in cuts.values()
    ):
        raise ValueError(
            f"{path}: not word cuts: need an object of lists of whole numbers (or null), by line"
        )
    return cuts


class _Line:
    """A scan with what is needed to set parts of it beside parts of another."""

    def __init__(self, image: LabelledImage) -> None:
        self.grey = grey = image.grey()
        self.paper = max(float(np.percentile(grey, 85)), 1.0)
        self.ink = 1.0 - grey.astype(np.float32) / np.float32(self.paper)
        # px a letter: how large the writing is.
        self.pitch = grey.shape[1] / len(image.text)
        rows = np.maximum(self.ink - 0.1, 0.0).mean(1)
        self.profile = np.convolve(rows, np.ones(5) / 5, "same")


def _shift(first: NDArray[np.float32], other: NDArray[np.float32], scale: float) -> int:
    """Rows by which the other line is to be moved down for its ink to lie where the first one's lies."""
    rows = max(round(len(other) * scale), 1)
    other = np.interp((np.arange(rows) + 0.5) / scale - 0.5, np.arange(len(other)), other).astype(np.float32)
    match = np.correlate(first, other, "full")
    shifts = np.arange(len(match)) - (rows - 1)
    # No further than half a line, whatever the ink looks like.
    match[np.abs(shifts + (rows - len(first)) / 2) > len(first) / 2] = -np.inf
    return int(shifts[int(match.argmax())])


def _page(name: str) -> str:
    return re.sub(r"\d+(\.\w+)?$", "", name)
