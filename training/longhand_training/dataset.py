"""Training lines without end, from every source, in batches of like width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidImageError
from longhand_server.image import normalise_line
from longhand_server.network import frame_count
from longhand_training.augment import augment_pixels, warp_pixels
from longhand_training.sources import Maker, ScanSource
from longhand_training.text import shown

# Widths of a batch are rounded up to a multiple of this: a GPU looks for its way of computing anew for every shape.
_WIDTH_STEP = 64
# So many lines in a row that cannot be used mean that hardly any can.
_MOST_UNUSABLE = 1000
# Lines that wait to be shown again.
_LATER = 256


@dataclass(frozen=True)
class Sample:
    """A normalised line, (H, W) float32, its text, and the name of the line that it is; "" for one made up."""

    pixels: NDArray[np.float32]
    text: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class Batch:
    """Lines of like width.

    Attributes:
        images: (N, 1, H, W) uint8, ink 255, paper 0; 0 beyond an image's width.
        widths: (N,) int64, px.
        targets: (S,) int64, all labels one after the other.
        target_lengths: (N,) int64.
    """

    images: Tensor
    widths: Tensor
    targets: Tensor
    target_lengths: Tensor

    def pin_memory(self) -> Batch:
        """A copy in memory that a GPU fetches from by itself; the loader asks for it."""
        return Batch(*(getattr(self, item.name).pin_memory() for item in fields(self)))


@dataclass
class LineDataset(IterableDataset[Batch]):
    """Endless batches, drawn and augmented as they are asked for; one random stream per loader worker.

    Attributes:
        sources: what :func:`longhand_training.line_sets.make_sources` gave.
        alphabet: characters. Own lines with others are left out from the start, which is said on stderr; any other
            such line is drawn again.
        line: normalised shape.
        pixels_per_batch: N times the widest image of a batch, px of width; bounds memory.
        seed: of everything.
        round: further part of the seed: a resumed run draws new lines.
        replica: further part of the seed: processes that train together draw different lines.
        repeats: times each line that was made is shown, slanted and stretched anew each time: for a GPU that
            learns faster than the processors make lines.
    """

    sources: Sequence[tuple[str, float, Maker]]
    alphabet: Alphabet
    line: LineFormat
    pixels_per_batch: int
    seed: int = 0
    round: int = 0
    replica: int = 0
    repeats: int = 1
    _probabilities: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        weights = np.array([weight for _, weight, _ in self.sources])
        self._probabilities = weights / weights.sum()
        for _, _, make in self.sources:
            if isinstance(make, ScanSource):
                make.leave_out_foreign(self.alphabet)

    def sample(self, rng: np.random.Generator) -> Sample:
        """One training line, normalised; what cannot be used is passed over.

        Raises:
            ValueError: very many in a row cannot be used (the reasons are named).
        """
        foreign: set[str] = set()
        problems: set[str] = set()
        for _ in range(_MOST_UNUSABLE):
            _, _, make = self.sources[int(rng.choice(len(self.sources), p=self._probabilities))]
            grey, text = make(rng)
            if unknown := {character for character in text if character not in self.alphabet}:
                foreign |= unknown
                continue
            try:
                image = normalise_line(grey, self.line)
            except InvalidImageError as error:
                problems.add(str(error))
                continue
            if not image.is_blank and fits(image.pixels.shape[1], text):
                return Sample(image.pixels, text)
            problems.add("an image is blank" if image.is_blank else "an image is too narrow for its text")
        reasons = sorted(problems)[:5]
        if foreign:
            signs = shown(sorted(foreign))
            reasons.append(f"texts have characters that the network does not write: {signs}")
        raise ValueError(
            f"no usable line among {_MOST_UNUSABLE} drawn from the sources: {'; '.join(reasons)}"
        )

    def samples(self, rng: np.random.Generator) -> Iterator[Sample]:
        """Training lines without end; a line comes again some hundreds of lines later."""
        later: list[Sample] = []
        while True:
            if self.repeats == 1 or len(later) < _LATER:
                sample = self.sample(rng)
                later += [sample] * (self.repeats - 1)
            else:
                at = int(rng.integers(len(later)))
                later[at], later[-1] = later[-1], later[at]
                old = later.pop()
                sample = Sample(warp_pixels(old.pixels, rng), old.text)
                if not fits(sample.pixels.shape[1], sample.text):
                    continue
            yield Sample(augment_pixels(sample.pixels, rng), sample.text)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, self.round, worker.id if worker else 0, self.replica])
        for batch in by_width(self.samples(rng), self.pixels_per_batch):
            yield collate(batch, self.alphabet)


def fits(width: int, text: str) -> bool:
    """Whether CTC can write the text in the frames there are."""
    return frames_needed(text) <= frame_count(width)


def frames_needed(text: str) -> int:
    """The least frames in which CTC can write the text (a repeat needs a blank between)."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def by_width(samples: Iterable[Sample], pixels_per_batch: int) -> Iterator[list[Sample]]:
    """Groups samples of like width, as many as N x width is within the bound; what is left comes last."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        width = _rounded(sample.pixels.shape[1])
        group = groups.setdefault(width, [])
        group.append(sample)
        if (len(group) + 1) * width > pixels_per_batch:
            yield groups.pop(width)
    yield from groups.values()


def pad(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Pads samples with paper to the widest, rounded up: images and widths as in :class:`Batch`."""
    widths = [sample.pixels.shape[1] for sample in samples]
    height = samples[0].pixels.shape[0]
    images = np.zeros((len(samples), 1, height, _rounded(max(widths))), np.uint8)
    for image, sample in zip(images, samples, strict=True):
        image[0, :, : sample.pixels.shape[1]] = np.round(sample.pixels * 255.0)
    return torch.from_numpy(images), torch.tensor(widths)


def collate(samples: Sequence[Sample], alphabet: Alphabet) -> Batch:
    """A batch of the samples.

    Raises:
        ValueError: a text has a character that the alphabet lacks.
    """
    targets = [alphabet.encode(sample.text) for sample in samples]
    return Batch(
        *pad(samples),
        torch.tensor([label for target in targets for label in target]),
        torch.tensor([len(target) for target in targets]),
    )


def _rounded(width: int) -> int:
    return -(-width // _WIDTH_STEP) * _WIDTH_STEP
