"""Makers of training lines: scans, pen strokes, fonts; each line is made when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from longhand_server.alphabet import Alphabet
from longhand_training.augment import augment_scan, elastic
from longhand_training.fonts import FontBank
from longhand_training.hands import another_hand
from longhand_training.ink import Grey, draw_ink, on_paper
from longhand_training.packs import LabelledImage, Skipped, report_skipped
from longhand_training.scan_words import ScanWordBank
from longhand_training.strokes import PenLine, WriterBank
from longhand_training.text import PhraseSource, shown

Maker = Callable[[np.random.Generator], tuple[Grey, str]]


def writable(images: Sequence[LabelledImage], alphabet: Alphabet, source: str) -> list[LabelledImage]:
    """Lines without characters that a network does not write; stderr says how many have such, and which.

    Packed lines stay, and are passed over one by one: that some hold odd signs is nobody's mistake.

    Raises:
        ValueError: no line is left.
    """
    foreign: set[str] = set()
    good = []
    for image in images:
        unknown = set() if image.is_packed else {c for c in image.text if c not in alphabet}
        foreign |= unknown
        if not unknown:
            good.append(image)
    count, signs = len(images), shown(sorted(foreign))
    if not good:
        raise ValueError(
            f"{source}: every line ({count}) has characters that the network does not write: {signs}"
        )
    if foreign:
        print(
            f"{source}: {count - len(good)} of {count} lines have characters that the network does not write, "
            f"and are left out: {signs}",
            file=sys.stderr,
        )
    return good


class ScanSource:
    """Scanned lines, each time with another augmentation; kept encoded in memory.

    With ``cuts`` every second line is made anew from the words of its page.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        source: Path,
        cuts: Mapping[str, Sequence[int] | None] | None = None,
    ) -> None:
        """Keeps the images but those that the cuts mark as wrongly labelled, which are named.

        Args:
            images: lines that can be decoded.
            source: where they are from, for messages.
            cuts: what :func:`longhand_training.scan_words.read_cuts` gave. Own lines of which it knows none are
                named on stderr.

        Raises:
            ValueError: no image is left.
        """
        self._source, self._cuts = source, cuts
        good, skipped = [], []
        for image in images:
            if cuts and cuts.get(image.name, ()) is None:
                skipped.append(Skipped(image.name, "its label does not fit (--word-cuts)"))
            else:
                good.append(image)
        report_skipped(source, len(good), skipped)
        self._keep(good)
        own = [image for image in images if not image.is_packed]
        if own and cuts is not None and not any(image.name in cuts for image in own):
            print(
                f"{source}: none of its {len(own)} lines stands in the file of --word-cuts (this one would be "
                f"{own[0].name!r}); no words of theirs are set anew",
                file=sys.stderr,
            )

    def _keep(self, images: Sequence[LabelledImage]) -> None:
        self._images = images
        self._words = ScanWordBank(images, self._cuts) if self._cuts else None

    def leave_out_foreign(self, alphabet: Alphabet) -> None:
        """Drops what is not :func:`writable`.

        Raises:
            ValueError: no image is left.
        """
        good = writable(self._images, alphabet, str(self._source))
        if len(good) < len(self._images):
            self._keep(good)

    def __call__(self, rng: np.random.Generator) -> tuple[Grey, str]:
        """One line and its text."""
        image = self._images[int(rng.integers(len(self._images)))]
        new = self._words.compose(image, rng) if self._words is not None and rng.random() < 0.5 else None
        grey, text = new or (image.grey(), image.text)
        return augment_scan(grey, rng), text


class PenSource:
    """Pen lines rendered as ink on paper."""

    def __init__(self, lines: Sequence[PenLine], recompose: bool = True, other_hands: bool = True) -> None:
        self._lines = list(lines)
        self._other_hands = other_hands
        self._bank = WriterBank(self._lines) if recompose else None

    def __call__(self, rng: np.random.Generator) -> tuple[Grey, str]:
        """One line and its text."""
        if self._bank is not None:
            pen = self._bank.compose(rng)
        else:
            pen = self._lines[int(rng.integers(len(self._lines)))].line
        if self._other_hands:
            pen = another_hand(pen, rng)
        body = float(rng.uniform(48, 84))
        mask = draw_ink(pen, rng, body)
        neighbour = None
        if rng.random() < 0.2:
            other = self._lines[int(rng.integers(len(self._lines)))].line
            neighbour = draw_ink(other, rng, body)
        grey = on_paper(mask, rng, neighbour)
        if rng.random() < 0.3:
            grey = elastic(grey, rng)
        return grey, pen.text


class FontSource:
    """Phrases set in handwriting fonts."""

    def __init__(self, fonts: FontBank, phrases: PhraseSource) -> None:
        self._fonts, self._phrases = fonts, phrases

    def __call__(self, rng: np.random.Generator) -> tuple[Grey, str]:
        """One line and its text."""
        text = ""
        while not text:
            text, mask = self._fonts.draw(self._phrases.phrase(rng), rng)
        grey = on_paper(mask, rng)
        return (elastic(grey, rng) if rng.random() < 0.7 else grey), text
