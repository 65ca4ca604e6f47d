"""Line images on disk: the tars of the data folder, folders and TSV files."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from longhand_server.alphabet import fold_text
from longhand_server.config import IMAGE_SUFFIXES, ImageLimits
from longhand_server.errors import InvalidImageError
from longhand_server.image_file import decode_grey
from longhand_training.ink import Grey
from longhand_training.text import escaped

# The packs of scanned lines in the data folder.
SCAN_PACKS = ("copiste_lines.tar", "historical_lines.tar")
# Own files come from nobody but the user: as large as the server could be told to read.
_OWN_LIMITS = ImageLimits(max_bytes=1 << 28, max_pixels=1 << 26, max_side=65_535, max_scans=100)


@dataclass(frozen=True)
class LabelledImage:
    """An encoded line image and what is written there.

    Attributes:
        name: for messages, reports and word cuts. An own line's begins with its folder's name, however the path to
            the folder was spelled.
        data: the file's bytes.
        text: folded (:func:`longhand_server.alphabet.fold_text`).
        is_packed: of the packs, whose images are known to be plain; every other is decoded as the server does it.
    """

    name: str
    data: bytes
    text: str
    is_packed: bool = False

    def grey(self) -> Grey:
        """(H, W) uint8, dark ink on light paper.

        Raises:
            InvalidImageError: damaged, not an image, or an own line that the server would not take.
        """
        return decode_trusted(self.data) if self.is_packed else decode_grey(self.data, _OWN_LIMITS)

    def digest(self) -> bytes:
        """The same for the same file, whatever it is called."""
        return hashlib.sha256(self.data).digest()


def decode_trusted(data: bytes) -> Grey:
    """Grey pixels of a file of the packs; a damaged one raises InvalidImageError."""
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if grey is None:
        raise InvalidImageError("not a readable image")
    return np.asarray(grey, np.uint8)


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


def table_rows(content: str) -> list[str]:
    """The rows of a table: ``str.splitlines`` would also cut labels at rarer signs, such as U+2028."""
    return re.split("\r\n|\n|\r", content)


def _rows(content: str, source: str) -> tuple[list[tuple[str, str]], list[Skipped]]:
    rows, skipped = [], []
    for number, line in enumerate(table_rows(content), 1):
        if not line.strip():
            continue
        name, *texts = line.split("\t")
        text = fold_text(texts[0]) if len(texts) == 1 else ""
        if not name or not text:
            found = f"{len(texts) + 1} column{'s' if texts else ''}: {line[:60]!r}"
            skipped.append(Skipped(f"row {number}", f"need FILE<tab>TEXT, got {found}"))
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
                images.append(LabelledImage(name, file.read(), text, is_packed=True))
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable tar of lines: {error}") from error
    report_skipped(path, len(images), skipped)
    return images


def read_folder(path: Path) -> list[LabelledImage]:
    """Lines of a folder or of a TSV file.

    A TSV has FILE<tab>TEXT rows and no third column, paths from the TSV's own folder. A folder holds
    ``labels.tsv``, or images with a ``.txt`` (or ``.gt.txt``) of the same name beside each. All text is UTF-8.

    Raises:
        ValueError: nothing usable there.
    """
    table = path / "labels.tsv" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: is an image; need a folder or a TSV file")
    if table.is_file():
        try:
            rows, skipped = _rows(table.read_text("utf-8-sig"), table.name)
        except UnicodeDecodeError as error:
            raise ValueError(f"{table}: not UTF-8: {error}") from error
        pairs = [(table.parent / name, text) for name, text in rows]
    else:
        pairs, skipped = _beside(path)
        if not pairs and not skipped:
            raise ValueError(f"{path}: holds neither labels.tsv nor images")
    images = []
    seen: set[str] = set()
    for file, text in pairs:
        name = _own_name(file, table.parent)
        if name in seen:  # it could be trained on and validated on
            skipped.append(Skipped(str(file), "its file stands further up already"))
            continue
        seen.add(name)
        try:
            images.append(LabelledImage(name, file.read_bytes(), text))
        except (OSError, ValueError) as error:  # the latter for a name that no file can have
            skipped.append(Skipped(str(file), getattr(error, "strerror", None) or str(error)))
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
        try:
            text = fold_text(label.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            skipped.append(Skipped(str(file), f"{label.name} is not readable UTF-8: {error}"))
            continue
        if text:
            pairs.append((file, text))
        else:
            skipped.append(Skipped(str(file), f"{label.name} is empty"))
    return pairs, skipped


def _own_name(file: Path, folder: Path) -> str:
    return (Path(folder.resolve().name) / os.path.relpath(file, folder)).as_posix()


def set_names(paths: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """Distinct names for sets of own lines, in reports and in the names of files.

    Args:
        paths: folders and TSV files. Each gives its own name, ``labels.tsv`` its folder's; where that is taken,
            ``-2``, ``-3`` ... follows.
        taken: names that other sets have.
    """
    names: list[str] = []
    used = set(taken)
    for path in paths:
        whole = path.resolve()
        stem = escaped((whole.parent if whole.name == "labels.tsv" else whole).name) or "root"
        name, number = stem, 1
        while name in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name)
        names.append(name)
    return names


def refuse_shared_names(images: Iterable[LabelledImage]) -> None:
    """Word cuts go by name: two different images must not share one.

    Raises:
        ValueError: two do.
    """
    seen: dict[str, bytes] = {}
    for image in images:
        if seen.setdefault(image.name, image.data) != image.data:
            raise ValueError(
                f"two different images are called {image.name}, and word cuts could not tell them apart; "
                "rename the folder of one"
            )


def held_out(images: Sequence[LabelledImage], share: float) -> list[LabelledImage]:
    """The ``share`` of the lines (0 to 0.5, on average) that is not trained on, but validated on.

    A line's name decides, so that it stays on its side when others come or go. Of two lines or more there is at
    least one on either side.
    """
    if not share or len(images) < 2:
        return []
    places = {image.name: _place(image.name) for image in images}
    in_order = sorted(places.values())
    limit = min(max(share, in_order[1]), in_order[-1])
    return [image for image in images if places[image.name] < limit]


def _place(name: str) -> float:
    """Where between 0 and 1 a name falls by its hash, like a random number that is always the same."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
