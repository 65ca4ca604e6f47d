"""Which images a command line means: files, folders, patterns, standard input and manifests."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from longhand_client.images import MAX_IMAGE_BYTES

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
_KINDS = ", ".join(sorted(SUFFIXES))
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One image to read, or one thing on the command line that names none.

    Attributes:
        name: what the output calls it.
        source: its path or its bytes; None where there is nothing to read.
        problem: why there is nothing to read.
    """

    name: str
    source: str | bytes | None
    problem: str = ""


def find_items(arguments: Sequence[str], manifest: str | None = None) -> Iterator[Item]:
    """Goes through everything that a command line names, in its order, without holding it all in memory.

    Args:
        arguments: files, folders (searched for images, recursively, also where links lead, but not for hidden ones),
            patterns such as "scans/*.png", or "-".
        manifest: a file of `image path TAB anything` rows, relative to its own folder; "-" = standard input, whose
            rows, like those of any pipe, are relative to the current folder.

    Yields:
        One item for each image, and one with a `problem` for each argument or row that names none.
    """
    for argument in arguments:
        try:
            yield from _expand(argument)
        except OSError as error:  # a folder on its way that may not be searched, a name that is too long
            yield Item(argument, None, error.strerror or str(error))
    if manifest is not None:
        yield from _manifest_items(manifest)


def _expand(argument: str) -> Iterator[Item]:
    if argument == STANDARD_INPUT:
        with _standard_input() as file:
            yield Item("standard input", file.read(MAX_IMAGE_BYTES + 1))  # where it ends too late, or never
    elif "://" in argument and not Path(argument).exists():
        yield Item(argument, None, "addresses of the web are not fetched: curl -s ADDRESS | longhand -")
    elif not argument:
        yield Item("''", None, "no name of a file")
    elif Path(argument).is_dir():
        yield from _first_or_problem(
            _folder(argument), Item(argument, None, f"no image in this folder ({_KINDS})")
        )
    elif not Path(argument).exists() and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 -- Path.glob knows no absolute ones
        files = (Item(match, match) for match in matches if not Path(match).is_dir())
        yield from _first_or_problem(files, Item(argument, None, "no file matches"))
    else:
        yield Item(argument, argument)


def _standard_input() -> IO[bytes]:
    # A reader of its own: images are looked up in a thread, and where Ctrl-C ends the program while that waits in
    # sys.stdin, Python dies of the lock that it holds.
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _folder(folder: str) -> Iterator[Item]:
    closed: list[OSError] = []  # folders that may not be searched
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        place = Path(parent).stat()
        if (place.st_dev, place.st_ino) in seen:  # a link to where it has been
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        # Hidden ones are thumbnails, or what macOS adds to each file (`._a.png`), and no scans.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                path = str(Path(parent) / name)
                yield Item(path, path)
    for error in closed:
        yield Item(str(error.filename), None, error.strerror or str(error))


def _first_or_problem(items: Iterable[Item], problem: Item) -> Iterator[Item]:
    found = False
    for item in items:
        found = True
        yield item
    if not found:
        yield problem


def is_read_once(manifest: str) -> bool:
    """Whether its rows can be read only once, as from standard input or a shell's <(...)."""
    return manifest == STANDARD_INPUT or (Path(manifest).exists() and not Path(manifest).is_file())


def _manifest_items(manifest: str) -> Iterator[Item]:
    if manifest == STANDARD_INPUT:
        with _standard_input() as file:
            yield from _rows(file, "standard input", Path())
        return
    try:
        with Path(manifest).open("rb") as file:
            yield from _rows(file, manifest, Path() if is_read_once(manifest) else Path(manifest).parent)
    except OSError as error:
        yield Item(manifest, None, error.strerror or str(error))


def _rows(file: IO[bytes], name: str, folder: Path) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        place = f"{name} line {number}"
        try:
            path = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")[0].strip()
        except UnicodeDecodeError:
            yield Item(place, None, "the row is not UTF-8 text")
            continue
        if "\0" in path:
            yield Item(place, None, "the row holds a zero byte")
        elif path:
            yield Item(path, str(folder / path))
        elif line.strip():
            yield Item(place, None, "the row names no file")


def text_rows(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, each with its number, from 1.

    Raises:
        ValueError: the file is no UTF-8 text.
        OSError: it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path} line {row}: the row is not UTF-8 text") from error
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def read_references(path: str) -> dict[str, str]:
    """Reads a file of `image TAB text` rows.

    Args:
        path: UTF-8 text; where a row has more than two columns, the second one counts.

    Returns:
        The texts by image name, and by the name without its folder where that is unambiguous.

    Raises:
        ValueError: a row has no text, or is no UTF-8 text (which one is named).
        OSError: the file cannot be read.
    """
    references: dict[str, str] = {}
    bases: dict[str, list[str]] = {}
    for number, line in text_rows(path):
        columns = line.split("\t")
        if len(columns) < 2:
            raise ValueError(f"{path} line {number}: need `image TAB text`, got {line!r}")
        references[columns[0]] = columns[1]
        bases.setdefault(Path(columns[0]).name, []).append(columns[1])
    return {name: texts[0] for name, texts in bases.items() if len(texts) == 1} | references


def reference_of(name: str, references: dict[str, str]) -> str | None:
    """The reference text of an image, by its whole name or by the name without its folder."""
    return references.get(name, references.get(Path(name).name))
