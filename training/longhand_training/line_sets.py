"""Which lines are trained on and which are validated on: of the packs, of own folders, of the IAM database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidImageError
from longhand_server.image import LineImage, normalise_line
from longhand_server.network import frame_count
from longhand_training.command_line import refuse_parts_of_nothing
from longhand_training.dataset import Sample, fits, frames_needed
from longhand_training.fonts import FontBank
from longhand_training.iam import EVERY_LINE, IAM_TRAINING, IAM_VALIDATION, iam_ids, read_iam
from longhand_training.ink import draw_ink, draw_plain, on_paper
from longhand_training.packs import (
    SCAN_PACKS,
    LabelledImage,
    Skipped,
    held_out,
    read_folder,
    read_tar,
    refuse_shared_names,
    report_skipped,
    set_names,
)
from longhand_training.progress import counted
from longhand_training.scan_words import read_cuts
from longhand_training.source_config import SourceConfig
from longhand_training.sources import FontSource, Maker, PenSource, ScanSource, writable
from longhand_training.strokes import PenLine, load_pen_lines
from longhand_training.text import PhraseSource

# The sets of validation lines: of the data folder, and of the IAM database.
VALIDATION_SETS = ("pen", "ink", "copiste", "hooker")
IAM_SET = "iam"

Item = TypeVar("Item")
Made = TypeVar("Made")


def make_sources(config: SourceConfig) -> list[tuple[str, float, Maker]]:
    """Opens every source asked for: name, weight, maker.

    Raises:
        ValueError: no source at all, or a damaged one (named).
    """
    sources: list[tuple[str, float, Maker]] = []
    extra: list[str] = []
    data = config.data
    cuts = read_cuts(config.cuts) if config.cuts is not None else None
    validated = _validated(config)
    if data is not None and config.copiste > 0:
        lines = _packed_lines(data / SCAN_PACKS[0], validated)
        extra += [line.text for line in lines]
        sources.append(("copiste", config.copiste, ScanSource(lines, data / SCAN_PACKS[0], cuts)))
    if data is not None and config.historical > 0:
        lines = _packed_lines(data / SCAN_PACKS[1], validated)
        sources.append(("historical", config.historical, ScanSource(lines, data / SCAN_PACKS[1], cuts)))
    if data is not None and config.pen > 0:
        pen, _ = pen_lines(data)
        sources.append(("pen", config.pen, PenSource(pen, config.recompose, config.other_hands)))
    if data is not None and config.fonts is not None and config.font > 0:
        phrases = PhraseSource.from_folder(data / "text", extra=extra)
        sources.append(("font", config.font, FontSource(FontBank(config.fonts), phrases)))
    own: list[LabelledImage] = []
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
        sets[IAM_SET] = iam_lines(config.iam, config.validate_iam_ids)
    elif config.iam is not None and config.iam_ids == IAM_TRAINING:
        try:
            sets[IAM_SET] = iam_lines(config.iam, IAM_VALIDATION)
        except ValueError as error:
            print(f"the IAM database is not validated on: {error}", file=sys.stderr)
    return sets


def chosen_sets(options: argparse.Namespace, line: LineFormat) -> dict[str, list[Sample]]:
    """The normalised lines of ``--data``, ``--folder`` with ``--hold-out``, and ``--iam``, by set.

    Raises:
        ValueError: nothing usable in one of them, or an option without what it is of.
    """
    refuse_parts_of_nothing(options)
    sets = {} if options.data is None else validation_sets(options.data, line)
    names = set_names(options.folder, [*VALIDATION_SETS, IAM_SET])
    for name, folder in zip(names, options.folder, strict=True):
        share = options.hold_out
        sets[name] = held_out_samples(folder, line, share) if share else folder_samples(folder, line)
        if not sets[name]:
            raise ValueError(f"{folder}: none of its lines is held out (--hold-out {share})")
    if options.iam is not None:
        sets[IAM_SET] = iam_samples(options.iam, line, options.iam_ids)
    return sets


def held_out_samples(path: Path, line: LineFormat, share: float) -> list[Sample]:
    """Normalised lines of a folder that :func:`make_sources` leaves out.

    None, which is said on stderr, where there are too few to keep a share of them back.
    """
    images = _held_out_lines(path, share)
    return _normalised(images, line, path) if images else []


def folder_samples(path: Path, line: LineFormat) -> list[Sample]:
    """Normalised lines of a folder or TSV (:func:`longhand_training.packs.read_folder`)."""
    return _normalised(read_folder(path), line, path)


def iam_lines(root: Path, part: str) -> list[LabelledImage]:
    """:func:`inked` lines of a part of the IAM database."""
    return [image for image, _ in inked(read_iam(root, iam_ids(part)), root)]


def iam_samples(root: Path, line: LineFormat, part: str = EVERY_LINE) -> list[Sample]:
    """Normalised lines of a part of the IAM database (:mod:`longhand_training.iam`)."""
    return _normalised(read_iam(root, iam_ids(part)), line, root)


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


@lru_cache(maxsize=1)
def pen_lines(data: Path) -> tuple[list[PenLine], list[PenLine]]:
    """Training and validation lines of the data folder's strokes, read once (it takes some seconds)."""
    return load_pen_lines(data / "iamondb_strokes.npz")


def evenly_spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """``count`` of the items from all over the sequence; all of them for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def _validated(config: SourceConfig) -> Set[bytes]:
    """Hashes of the scans that are validated on: own ones and, where own ones may be the same, the packs'."""
    images = [image for images in kept_back(config).values() for image in images]
    if config.data is not None and (config.folders or config.iam is not None):
        for name in SCAN_PACKS:
            images += read_tar(config.data / name, "validation")
    return {image.digest() for image in images}


def _unseen(
    lines: Sequence[tuple[LabelledImage, Made]], validated: Set[bytes], source: Path, expected: int = 0
) -> list[tuple[LabelledImage, Made]]:
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


def _packed_lines(path: Path, validated: Set[bytes]) -> list[LabelledImage]:
    """Training lines of a pack that can be decoded and are not validated on; the others are named or counted."""
    lines = _checked(read_tar(path, "train"), path, lambda image: image.grey().shape)
    return [image for image, _ in _unseen(lines, validated, path)]


@cache
def _held_out_lines(path: Path, share: float) -> list[LabelledImage]:
    """:func:`longhand_training.packs.held_out` of :func:`own_lines`; where there are too few, that is said once."""
    images = held_out([image for image, _ in own_lines(path)], share)
    if not images and share:
        print(f"{path}: too few lines to hold any out; it is not validated on", file=sys.stderr)
    return images


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
    for image in counted(images, f"lines of {source} read"):
        try:
            good.append((image, make(image)))
        except InvalidImageError as error:
            skipped.append(Skipped(image.name, str(error)))
    report_skipped(source, len(good), skipped)
    return good
