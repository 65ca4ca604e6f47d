"""Line images on disk: the tars of the data folder, folders and TSV files."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longhand_server.alphabet import fold_text

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class LabelledImage:
    """An encoded line image and what is written there.

    Attributes:
        name: for messages and reports.
        data: the file's bytes.
        text: folded (:func:`longhand_server.alphabet.fold_text`).
    """

    name: str
    data: bytes
    text: str


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, and why."""

    name: str
    reason: str


def report_skipped(source: Path, kept: int, skipped: list[Skipped]) -> None:
    """Names up to ten skipped items on stderr.

    Raises:
        ValueError: everything was skipped.
    """
    for item in skipped[:10]:
        print(f"{source}: {item.name} skipped: {item.reason}", file=sys.stderr)
    if len(skipped) > 10:
        print(f"{source}: {len(skipped) - 10} more skipped", file=sys.stderr)
    if not kept:
        first = f"; first: {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"{source}: no usable line image ({len(skipped)} skipped{first})")


def _rows(content: str, source: str) -> tuple[list[tuple[str, str]], list[Skipped]]:
    rows, skipped = [], []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        text = fold_text(text)
        if not tab or not name or not text:
            skipped.append(Skipped(f"row {number}", f"need FILE<tab>TEXT, got {line[:60]!r}"))
            continue
        rows.append((name, text))
    if not rows and not skipped:
        skipped.append(Skipped(source, "is empty"))
    return rows, skipped


def read_tar(path: Path, split: str) -> list[LabelledImage]:
    """Lines of a tar that holds ``<split>.tsv`` and the images that it names.

    Raises:
        ValueError: not such a tar, or nothing in it is usable.
    """
    try:
        with tarfile.open(path) as pack:
            members = {m.name: m for m in pack.getmembers() if m.isfile()}
            if f"{split}.tsv" not in members:
                raise ValueError(f"{path}: holds no {split}.tsv")
            content = pack.extractfile(members[f"{split}.tsv"])
            assert content is not None  # isfile() was checked
            rows, skipped = _rows(content.read().decode("utf-8"), f"{split}.tsv")
            images = []
            for name, text in rows:
                file = pack.extractfile(members[name]) if name in members else None
                if file is None:
                    skipped.append(Skipped(name, "not in the tar"))
                    continue
                images.append(LabelledImage(name, file.read(), text))
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable tar of lines: {error}") from error
    report_skipped(path, len(images), skipped)
    return images


def read_folder(path: Path) -> list[LabelledImage]:
    """Lines of a folder or of a TSV file.

    A TSV has FILE<tab>TEXT rows, paths from the TSV's own folder. A folder holds ``labels.tsv``, or images
    with a ``.txt`` (or ``.gt.txt``) of the same name beside each.

    Raises:
        ValueError: nothing usable there.
    """
    table = path / "labels.tsv" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if table.is_file():
        try:
            rows, skipped = _rows(table.read_text("utf-8-sig"), table.name)
        except UnicodeDecodeError as error:
            raise ValueError(f"{table}: not UTF-8: {error}") from error
        pairs = [(table.parent / name, text) for name, text in rows]
    else:
        pairs, skipped = _beside(path)
    images = []
    for file, text in pairs:
        try:
            images.append(LabelledImage(str(file), file.read_bytes(), text))
        except OSError as error:
            skipped.append(Skipped(str(file), error.strerror or str(error)))
    report_skipped(path, len(images), skipped)
    return images


def _beside(folder: Path) -> tuple[list[tuple[Path, str]], list[Skipped]]:
    pairs, skipped = [], []
    for file in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        labels = [file.with_suffix(".gt.txt"), file.with_suffix(".txt")]
        label = next((p for p in labels if p.is_file()), None)
        if label is None:
            skipped.append(Skipped(str(file), "no .txt or .gt.txt of that name beside it"))
            continue
        text = fold_text(label.read_text("utf-8", errors="replace"))
        if text:
            pairs.append((file, text))
        else:
            skipped.append(Skipped(str(file), f"{label.name} is empty"))
    return pairs, skipped


def held_out(
    images: Sequence[LabelledImage], share: float
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Divides lines into those to train on and an evenly spread ``share`` (0 to 0.5) to validate on."""
    if not share:
        return list(images), []
    step = max(round(1 / share), 2)
    return [image for i, image in enumerate(images) if i % step != step - 1], list(images[step - 1 :: step])
