"""Line images on disk: the tars of the data folder, folders and TSV files, and the IAM database."""

from __future__ import annotations

import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from longhand_server.alphabet import fold_text

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
# Files of the IAM database that are known to be damaged (0 or truncated bytes) in every copy.
IAM_DAMAGED = frozenset({"a01-117-05", "r06-022-03"})


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
    except (tarfile.TarError, UnicodeDecodeError) as error:
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


def parse_iam_row(row: str) -> tuple[str, str, str]:
    """Line id, ``ok`` or ``err``, and text of a row of IAM's ``lines.txt``.

    A row is ``id status grey-level components x y w h text``, words joined by ``|``. The text may hold
    spaces, so a row can split into more than nine fields; copies without the component count have eight.

    Raises:
        ValueError: not such a row.
    """
    fields = row.split(" ")
    if len(fields) < 8 or fields[1] not in ("ok", "err"):
        raise ValueError(f"need ID ok|err 5-6 numbers TEXT, got {row[:60]!r}")
    start = 2
    while start < len(fields) - 1 and start < 8 and fields[start].lstrip("-").isdigit():
        start += 1
    if start < 7:
        raise ValueError(f"need 5 or 6 numbers after {fields[1]!r}, got {start - 2}: {row[:60]!r}")
    text = fold_text(" ".join(fields[start:]).replace("|", " "))
    if not text:
        raise ValueError(f"no text: {row[:60]!r}")
    return fields[0], fields[1], text


def read_iam(
    root: Path, line_ids: frozenset[str] | None = None, keep_err: bool = True
) -> list[LabelledImage]:
    """Lines of the IAM database in its own layout.

    Args:
        root: holds ``lines.txt`` (or ``ascii/lines.txt``) and ``lines/a01/a01-000u/a01-000u-00.png``.
        line_ids: the lines or forms wanted (such as a partition's list); None takes all.
        keep_err: whether lines whose *word segmentation* is marked ``err`` are kept (their text is right).

    Raises:
        ValueError: no ``lines.txt``, or nothing usable.
    """
    table = next((p for p in (root / "lines.txt", root / "ascii" / "lines.txt") if p.is_file()), None)
    if table is None:
        raise ValueError(f"{root}: neither lines.txt nor ascii/lines.txt is there")
    images: list[LabelledImage] = []
    skipped: list[Skipped] = []
    for number, row in enumerate(table.read_text("utf-8", errors="replace").splitlines(), 1):
        if not row.strip() or row.startswith("#"):
            continue
        try:
            line_id, status, text = parse_iam_row(row)
        except ValueError as error:
            skipped.append(Skipped(f"row {number}", str(error)))
            continue
        form = line_id.rsplit("-", 1)[0]
        if line_ids is not None and line_id not in line_ids and form not in line_ids:
            continue
        file = root / "lines" / form.split("-")[0] / form / f"{line_id}.png"
        if line_id in IAM_DAMAGED:
            skipped.append(Skipped(line_id, "known to be damaged"))
        elif status == "err" and not keep_err:
            skipped.append(Skipped(line_id, "marked err"))
        elif not file.is_file() or not file.stat().st_size:
            skipped.append(Skipped(line_id, f"{file} is missing or empty"))
        else:
            images.append(LabelledImage(line_id, file.read_bytes(), text))
    report_skipped(table, len(images), skipped)
    return images
