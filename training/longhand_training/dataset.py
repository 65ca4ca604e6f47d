"""Training lines without end, from every source, in batches of like width."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidImageError
from longhand_server.image import LineImage, normalise_line
from longhand_server.network import frame_count
from longhand_training.augment import augment_pixels, warp_pixels
from longhand_training.config import hold_out
from longhand_training.fonts import FontBank
from longhand_training.iam import EVERY_LINE, iam_ids, read_iam
from longhand_training.ink import draw_ink, draw_plain, on_paper
from longhand_training.packs import (
    LabelledImage,
    Skipped,
    held_out,
    read_folder,
    read_tar,
    refuse_shared_names,
    report_skipped,
    set_names,
)
from longhand_training.scan_words import read_cuts
from longhand_training.sources import FontSource, Maker, PenSource, ScanSource, writable
from longhand_training.strokes import PenLine, load_pen_lines
from longhand_training.text import PhraseSource

# Printable ASCII, then the accented letters and signs of the data.
DEFAULT_CHARACTERS = (
    "".join(chr(i) for i in range(32, 127)) + "£€§°½àáâäæçèéêëìíîïñóôöùúûüœÀÁÂÄÇÈÉÊËÎÏÑÓÔÖÙÛÜŒ"
)

# The packs of scanned lines in the data folder.
SCAN_PACKS = ("copiste_lines.tar", "historical_lines.tar")
# The sets of validation lines: of the data folder, and of the IAM database.
VALIDATION_SETS = ("pen", "ink", "copiste", "hooker")
IAM_SET = "iam"

# Widths of a batch are rounded up to a multiple of this: a GPU looks for its way of computing anew for every shape.
_WIDTH_STEP = 64
# So many lines in a row that cannot be used mean that hardly any can.
_MOST_UNUSABLE = 1000
# Lines that wait to be shown again.
_LATER = 256

Item = TypeVar("Item")
Made = TypeVar("Made")


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


@dataclass(frozen=True)
class SourceConfig:
    """Where training lines come from; a weight of 0, or a path that is None, leaves a source out.

    Attributes:
        data: folder with the packs (``iamondb_strokes.npz``, ``copiste_lines.tar``,
            ``historical_lines.tar``, ``text/``).
        fonts: folder of handwriting fonts.
        folders: a user's own folders or TSV files of line images.
        iam: root of the IAM database in its own layout.
        iam_ids: its lines to train on (:func:`longhand_training.iam.iam_ids`).
        hold_out: share of the lines of each folder that are not trained on, but validated on.
        validate: folders or TSV files of own lines to validate on.
        validate_iam_ids: IAM's lines to validate on; None for its validation part beside its training part.
        pen, font, copiste, historical, folder: share of each kind, relative to their sum.
        recompose: whether pen lines are joined and recomposed, or taken as written only.
        other_hands: whether pen lines are changed as if others had written them (:mod:`longhand_training.hands`).
        cuts: file of word places (:mod:`longhand_training.word_cuts`): scans are recomposed, too, and those
            whose label does not fit are left out.
    """

    data: Path | None = None
    fonts: Path | None = None
    folders: tuple[Path, ...] = ()
    iam: Path | None = None
    iam_ids: str = "aachen_train"
    hold_out: float = 0.0
    validate: tuple[Path, ...] = ()
    validate_iam_ids: str | None = None
    pen: float = 0.52
    font: float = 0.13
    copiste: float = 0.22
    historical: float = 0.13
    folder: float = 1.0
    recompose: bool = True
    other_hands: bool = True
    cuts: Path | None = None

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> SourceConfig:
        """The options of :func:`longhand_training.config.add_source_options`."""
        return cls(
            data=options.data,
            fonts=options.fonts,
            folders=tuple(options.folder),
            iam=options.iam,
            iam_ids=options.iam_ids,
            hold_out=hold_out(options),
            validate=tuple(options.validate),
            validate_iam_ids=options.validate_iam_ids,
            pen=options.pen_share,
            font=options.font_share,
            copiste=options.copiste_share,
            historical=options.historical_share,
            folder=options.folder_share,
            recompose=not options.no_recompose,
            other_hands=not options.no_other_hands,
            cuts=options.word_cuts,
        )


def make_sources(config: SourceConfig) -> list[tuple[str, float, Maker]]:
    """Opens every source asked for: name, weight, maker.

    Raises:
        ValueError: no source at all, or a damaged one (named).
    """
    sources: list[tuple[str, float, Maker]] = []
    extra: list[str] = []
    data = config.data
    cuts = read_cuts(config.cuts) if config.cuts is not None else None
    if data is not None and config.copiste > 0:
        lines = _packed_lines(data / SCAN_PACKS[0], "train")
        extra += [line.text for line in lines]
        sources.append(("copiste", config.copiste, ScanSource(lines, data / SCAN_PACKS[0], cuts)))
    if data is not None and config.historical > 0:
        lines = _packed_lines(data / SCAN_PACKS[1], "train")
        sources.append(("historical", config.historical, ScanSource(lines, data / SCAN_PACKS[1], cuts)))
    if data is not None and config.pen > 0:
        pen, _ = pen_lines(data)
        sources.append(("pen", config.pen, PenSource(pen, config.recompose, config.other_hands)))
    if data is not None and config.fonts is not None and config.font > 0:
        phrases = PhraseSource.from_folder(data / "text", extra=extra)
        sources.append(("font", config.font, FontSource(FontBank(config.fonts), phrases)))
    own: list[LabelledImage] = []
    validated = {image.digest() for images in kept_back(config).values() for image in images}
    for folder in config.folders:
        expected = 0 if config.validate else len(_held_out_lines(folder, config.hold_out))
        lines = wide_enough(_unseen(own_lines(folder), validated, folder, expected), folder)
        own += lines
        sources.append(("folder", config.folder, ScanSource(lines, folder, cuts)))
    if config.iam is not None:
        inked_lines = inked(read_iam(config.iam, iam_ids(config.iam_ids)), config.iam)
        lines = wide_enough(_unseen(inked_lines, validated, config.iam), config.iam)
        own += lines
        sources.append(("iam", config.folder, ScanSource(lines, config.iam, cuts)))
    if not sources:
        raise ValueError("no training lines: name --data, --folder or --iam")
    if cuts is not None:
        refuse_shared_names(own)
    return sources


def _unseen(
    lines: Sequence[tuple[LabelledImage, int]], validated: Set[bytes], source: Path, expected: int = 0
) -> list[tuple[LabelledImage, int]]:
    """The lines whose image is none that is validated on; how many are, beside those expected, stderr says.

    Raises:
        ValueError: no line is left.
    """
    left = [line for line in lines if line[0].digest() not in validated]
    if not left:
        raise ValueError(f"{source}: every line is validated on, and none is left to train on")
    if shared := len(lines) - len(left) - expected:
        print(f"{source}: {shared} lines are validated on elsewhere, and so not trained on", file=sys.stderr)
    return left


@cache
def kept_back(config: SourceConfig) -> Mapping[str, Sequence[LabelledImage]]:
    """Own lines that are validated on, and so not trained on, by set; whose images can be decoded and are not blank.

    Raises:
        ValueError: a folder has nothing usable.
    """
    paths = config.validate or config.folders
    read = [
        [image for image, _ in own_lines(path)] if config.validate else _held_out_lines(path, config.hold_out)
        for path in paths
    ]
    sets = dict(zip(set_names(paths, [*VALIDATION_SETS, IAM_SET]), read, strict=True))
    if config.iam is not None and config.validate_iam_ids is not None:
        sets[IAM_SET] = _iam_lines(config.iam, config.validate_iam_ids)
    elif config.iam is not None and config.iam_ids == "aachen_train":
        try:
            sets[IAM_SET] = _iam_lines(config.iam, "aachen_validation")
        except ValueError as error:
            print(f"the IAM database is not validated on: {error}", file=sys.stderr)
    return sets


@dataclass
class LineDataset(IterableDataset[Batch]):
    """Endless batches, drawn and augmented as they are asked for; one random stream per loader worker.

    Attributes:
        sources: what :func:`make_sources` gave.
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
            shown = " ".join(sorted(foreign)[:20])
            reasons.append(f"texts have characters that the network does not write: {shown}")
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


def _packed_lines(path: Path, split: str) -> list[LabelledImage]:
    """Lines of a pack (:func:`longhand_training.packs.read_tar`) that can be decoded; the others are named."""
    return [image for image, _ in _checked(read_tar(path, split), path, lambda image: image.grey().shape)]


@cache
def own_lines(path: Path) -> Sequence[tuple[LabelledImage, int]]:
    """:func:`inked` lines of a folder or TSV (:func:`longhand_training.packs.read_folder`).

    Read and complained about once; one part of them is trained on, another validated on.
    """
    return inked(read_folder(path), path)


def inked(images: Sequence[LabelledImage], source: Path) -> list[tuple[LabelledImage, int]]:
    """Own lines that can be decoded and are not blank, with their normalised width in px; the others are named.

    Raises:
        ValueError: nothing is left.
    """
    line = LineFormat()
    return _checked(images, source, lambda image: _line_image(image, line).pixels.shape[1])


def wide_enough(lines: Sequence[tuple[LabelledImage, int]], source: Path) -> list[LabelledImage]:
    """Those of :func:`inked` lines in whose width CTC can write the label; the others are named.

    Raises:
        ValueError: nothing is left.
    """
    good, skipped = [], []
    for image, width in lines:
        if fits(width, image.text):
            good.append(image)
        else:
            frames = f"{frame_count(width)} frames, and {frames_needed(image.text)} are needed"
            skipped.append(Skipped(image.name, f"too narrow for its text ({frames})"))
    report_skipped(source, len(good), skipped)
    return good


def folder_samples(path: Path, line: LineFormat) -> list[Sample]:
    """Normalised lines of a folder or TSV (:func:`longhand_training.packs.read_folder`)."""
    return _normalised(read_folder(path), line, path)


def iam_samples(root: Path, line: LineFormat, part: str = EVERY_LINE) -> list[Sample]:
    """Normalised lines of a part of the IAM database (:mod:`longhand_training.iam`)."""
    return _normalised(read_iam(root, iam_ids(part)), line, root)


def held_out_samples(path: Path, line: LineFormat, share: float) -> list[Sample]:
    """Normalised lines of a folder that :func:`make_sources` leaves out.

    None, which is said on stderr, where there are too few to keep a share of them back.
    """
    images = _held_out_lines(path, share)
    return _normalised(images, line, path) if images else []


def own_validation_sets(
    config: SourceConfig, alphabet: Alphabet, line: LineFormat, count: int
) -> dict[str, list[Sample]]:
    """``count`` normalised lines of each set of :func:`kept_back`, evenly spread.

    Lines with characters that the alphabet lacks are left out, which is said on stderr: they would only be read
    wrongly, whatever the network learns.
    """
    sets = {}
    for name, images in kept_back(config).items():
        try:
            images = writable(images, alphabet, f"{name} (validation)") if images else []
        except ValueError as error:
            print(f"{error}; they are not validated on", file=sys.stderr)
            images = []
        sets[name] = _normalised(evenly_spread(images, count), line, Path(name)) if images else []
    return sets


@cache
def _held_out_lines(path: Path, share: float) -> list[LabelledImage]:
    """:func:`longhand_training.packs.held_out` of :func:`own_lines`; where there are too few, that is said once."""
    images = held_out([image for image, _ in own_lines(path)], share)
    if not images and share:
        print(f"{path}: too few lines to hold any out; it is not validated on", file=sys.stderr)
    return images


def _iam_lines(root: Path, part: str) -> list[LabelledImage]:
    return [image for image, _ in inked(read_iam(root, iam_ids(part)), root)]


def _normalised(images: Sequence[LabelledImage], line: LineFormat, source: Path) -> list[Sample]:
    lines = _checked(images, source, lambda image: _line_image(image, line).pixels)
    return [Sample(pixels, image.text, image.name) for image, pixels in lines]


def _line_image(image: LabelledImage, line: LineFormat) -> LineImage:
    normalised = normalise_line(image.grey(), line)
    if normalised.is_blank:
        raise InvalidImageError("blank: no ink is found in it")
    return normalised


def _checked(
    images: Sequence[LabelledImage], source: Path, make: Callable[[LabelledImage], Made]
) -> list[tuple[LabelledImage, Made]]:
    """Images with what is made of each; those of which nothing can be made are named (none left: ValueError)."""
    good, skipped = [], []
    for image in images:
        try:
            good.append((image, make(image)))
        except InvalidImageError as error:
            skipped.append(Skipped(image.name, str(error)))
    report_skipped(source, len(good), skipped)
    return good


def evenly_spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """``count`` of the items from all over the sequence; all of them for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def validation_sets(data: Path, line: LineFormat, count: int | None = None) -> dict[str, list[Sample]]:
    """The validation lines of the packs, normalised: all, or ``count`` of each set, evenly spread.

    ``pen`` (drawn plainly), ``ink`` (the same lines as worn ink on paper, one fixed random look each),
    ``copiste`` and ``hooker``.
    """
    _, pen = pen_lines(data)
    sets: dict[str, list[Sample]] = {name: [] for name in VALIDATION_SETS[:2]}
    for i, p in evenly_spread(list(enumerate(pen)), count):
        rng = np.random.default_rng([7, i])
        worn = on_paper(draw_ink(p.line, rng, 64.0), rng)
        for name, grey in (("pen", draw_plain(p.line)), ("ink", worn)):
            sets[name].append(Sample(normalise_line(grey, line).pixels, p.line.text, p.line_id))
    for name, tar in zip(VALIDATION_SETS[2:], SCAN_PACKS, strict=True):
        images = evenly_spread(read_tar(data / tar, "validation"), count)
        sets[name] = _normalised(images, line, data / tar)
    return sets


@lru_cache(maxsize=1)
def pen_lines(data: Path) -> tuple[list[PenLine], list[PenLine]]:
    """Training and validation lines of the data folder's strokes, read once (it takes some seconds)."""
    return load_pen_lines(data / "iamondb_strokes.npz")
