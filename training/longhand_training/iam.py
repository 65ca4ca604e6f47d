"""The IAM handwriting database in its own layout, and its writer-independent partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from longhand_server.alphabet import fold_text
from longhand_training.packs import LabelledImage, Skipped, report_skipped, table_rows

# The RWTH (Aachen) partition that most papers report: 6,482, 976 and 2,915 lines; no writer is in two parts.
IAM_TRAINING, IAM_VALIDATION, IAM_TEST = "aachen_train", "aachen_validation", "aachen_test"
IAM_PARTITIONS = (IAM_TRAINING, IAM_VALIDATION, IAM_TEST)
EVERY_LINE = "all"
_STATUSES = ("ok", "err")


def iam_ids(name: str) -> frozenset[str] | None:
    """The ids of a part of the database; None for every line.

    Args:
        name: one of :data:`IAM_PARTITIONS`, ``all``, or a file of line or form ids (such as the database's own
            ``trainset.txt``).

    Raises:
        ValueError: neither a known part nor a readable file.
    """
    if name == EVERY_LINE:
        return None
    path = (
        Path(__file__).with_name("iam_partitions") / f"{name}.txt" if name in IAM_PARTITIONS else Path(name)
    )
    try:
        return frozenset(path.read_text("utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join((*IAM_PARTITIONS, EVERY_LINE))
        raise ValueError(
            f"ids of IAM lines: got {name!r}, need {known} or a file of ids ({error})"
        ) from error


def parse_iam_row(row: str, numbers: int = 6) -> tuple[str, str]:
    """Line id and text of a row of IAM's ``lines.txt``.

    A row is ``id status grey-level components x y w h text``, words joined by ``|``. The text may hold
    spaces, so a row can split into more than nine fields; copies without the component count have eight. Every
    ``|`` becomes a space, the one before a punctuation mark too, as is usual.

    Args:
        row: of the file.
        numbers: that stand before the text in this copy, 5 or 6; what else looks like one belongs to the text.

    Raises:
        ValueError: not such a row.
    """
    fields = row.split(" ")
    if len(fields) < 8 or fields[1] not in _STATUSES:
        raise ValueError(f"need ID ok|err 5-6 numbers TEXT, got {row[:60]!r}")
    there = _numbers(fields)
    if there < 5:
        raise ValueError(f"need 5 or 6 numbers after {fields[1]!r}, got {there}: {row[:60]!r}")
    text = fold_text(" ".join(fields[2 + min(there, numbers) :]).replace("|", " "))
    if not text:
        raise ValueError(f"no text: {row[:60]!r}")
    return fields[0], text


def _numbers(fields: Sequence[str]) -> int:
    """How many numbers, six at most, stand between a row's status and its text."""
    count = 0
    while count < min(6, len(fields) - 3) and fields[2 + count].lstrip("-").isdigit():
        count += 1
    return count


def read_iam(root: Path, line_ids: frozenset[str] | None = None) -> list[LabelledImage]:
    """Lines of the IAM database in its own layout, those whose *word segmentation* is marked ``err``, too.

    Args:
        root: holds ``lines.txt`` (or ``ascii/lines.txt``) and ``lines/a01/a01-000u/a01-000u-00.png``.
        line_ids: the lines or forms wanted (such as a partition's list); None takes all.

    Raises:
        ValueError: no ``lines.txt``, or nothing usable.
    """
    table = next((p for p in (root / "lines.txt", root / "ascii" / "lines.txt") if p.is_file()), None)
    if table is None:
        raise ValueError(f"{root}: neither lines.txt nor ascii/lines.txt is there")
    images: list[LabelledImage] = []
    skipped: list[Skipped] = []
    rows, matched = _rows(table), False
    for line_id, text in rows:
        form = line_id.rsplit("-", 1)[0]
        if line_ids is not None and line_id not in line_ids and form not in line_ids:
            continue
        matched = True
        file = root / "lines" / form.split("-")[0] / form / f"{line_id}.png"
        if not file.is_file() or not file.stat().st_size:
            skipped.append(Skipped(line_id, f"{file} is missing or empty"))
        else:
            images.append(LabelledImage(line_id, file.read_bytes(), text))
    if line_ids is not None and not matched:
        raise ValueError(f"{table}: none of its {len(rows)} lines is among the {len(line_ids)} ids wanted")
    report_skipped(table, len(images), skipped)
    return images


@cache
def _rows(table: Path) -> Sequence[tuple[str, str]]:
    """Line id and text of each good row of a ``lines.txt``.

    Read and complained about once; one part of them is trained on, another validated on.
    """
    rows, skipped = [], []
    lines = table_rows(table.read_text("utf-8", errors="replace"))
    # Most texts do not begin with a number, so that most rows show how many stand before it in this copy.
    counts = Counter(_numbers(line.split(" ")) for line in lines)
    numbers = 5 if counts[5] > counts[6] else 6
    for number, row in enumerate(lines, 1):
        if not row.strip() or row.startswith("#"):
            continue
        try:
            if "\ufffd" in row:
                raise ValueError(f"not UTF-8: {row[:60]!r}")
            rows.append(parse_iam_row(row, numbers))
        except ValueError as error:
            skipped.append(Skipped(f"row {number}", str(error)))
    report_skipped(table, len(rows), skipped)
    return rows
