"""Which images a bulk run reads, cut into chunks.

A chunk is what is done or not done: its rows are one file, which appears whole or not at all. The plan lies beside
the output, so that a run that goes on later, perhaps on other machines, cuts the same images into the same chunks.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from longhand_server.config import IMAGE_SUFFIXES
from longhand_server.errors import ConfigurationError, InvalidRequestError
from longhand_server.standard_streams import tell

_MANIFEST_SUFFIXES = frozenset({".tsv", ".txt"})
# Plans are large and written a line at a time.
_CHUNKS, _HEAD = "chunks.jsonl", "plan.json"
FOLDER = "_longhand"


@dataclass(frozen=True)
class Chunk:
    """A run of images whose rows are one output file.

    Attributes:
        number: Its place among the chunks.
        first: The number of its first image, counted over the whole run.
        count: Its images.
        kind: ``"files"``, ``"parquet"`` or ``"tar"``.
        path: The Parquet file or the tar; empty for files.
        start: Parquet: the first row within the row group. Tar: the offset of the first member, bytes.
        place: The first image's place among those of the file.
        row_group: Parquet: the row group.
        entries: Files: each image's name and path, and what is wrong with the row where it names none.
    """

    number: int
    first: int
    count: int
    kind: str
    path: str = ""
    start: int = 0
    place: int = 0
    row_group: int = 0
    entries: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        folder: Where output and plan lie.
        settings: What must be the same for a run to go on.
        chunks: How many there are.
        images: How many there are.
    """

    folder: Path
    settings: Mapping[str, Any]
    chunks: int
    images: int

    def offsets(self) -> Iterator[tuple[int, int, int]]:
        """Number, place in the file of chunks (bytes) and images of every chunk.

        Raises:
            ConfigurationError: The file is damaged, or lacks some.
        """
        path = self.folder / FOLDER / _CHUNKS
        with path.open("rb") as file:
            offset = found = 0
            for line in file:
                head = _chunk_fields(line, path)
                yield head["number"], offset, head["count"]
                offset, found = offset + len(line), found + 1
        if found != self.chunks:
            raise _damaged(path, f"{found} chunks of {self.chunks}")

    def output(self, number: int) -> Path:
        """The file that holds a chunk's rows."""
        return self.folder / f"part-{number:08d}.{self.settings['format']}"

    def note_errors(self, number: int, errors: int) -> None:
        """Remembers how many images of a chunk were not read, for a run that goes on later."""
        note = self.folder / FOLDER / f"errors-{number:08d}"
        if errors:
            write_whole(note, str(errors).encode())
        else:
            note.unlink(missing_ok=True)

    def errors(self) -> int:
        """Images of the chunks done so far that were not read."""
        notes = (self.folder / FOLDER).glob("errors-????????")
        return sum(int(note.read_text()) for note in notes if self.output(int(note.name[7:])).exists())


def read_chunk(folder: Path, offset: int) -> Chunk:
    """The chunk at that place in the plan of an output folder."""
    path = folder / FOLDER / _CHUNKS
    with path.open("rb") as file:
        file.seek(offset)
        fields = _chunk_fields(file.readline(), path)
    fields["entries"] = tuple(tuple(entry) for entry in fields["entries"])
    return Chunk(**fields)


def _chunk_fields(line: bytes, path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise _damaged(path, error) from error
    return fields


def _damaged(path: Path, problem: object) -> ConfigurationError:
    return ConfigurationError(f"{path}: damaged ({problem}); begin again in another folder")


def make_plan(
    folder: Path, inputs: Sequence[str], settings: Mapping[str, Any], size: int, column: str
) -> Plan:
    """Looks through the inputs and writes the plan.

    Args:
        folder: Output folder, empty so far.
        inputs: Images, folders, manifests, Parquet files, webdataset tars.
        settings: What must be the same for a run to go on.
        size: Most images in a chunk.
        column: The Parquet files' column with the images.

    Raises:
        InvalidRequestError: An input is missing, or is of no known kind, or there is no image at all.
    """
    inner = folder / FOLDER
    inner.mkdir(parents=True, exist_ok=True)
    chunks = images = 0
    with (inner / _CHUNKS).open("w", encoding="utf-8") as file:
        for chunk in _chunks(inputs, size, column):
            file.write(json.dumps(asdict(chunk)) + "\n")  # in ASCII: file names need not be UTF-8
            chunks, images = chunk.number + 1, chunk.first + chunk.count
        _to_disk(file)
    if not images:
        raise InvalidRequestError(f"no image in {', '.join(inputs)}")
    head = {"settings": dict(settings), "chunks": chunks, "images": images}
    write_whole(inner / _HEAD, json.dumps(head, indent=1).encode())
    return Plan(folder, settings, chunks, images)


def read_plan(folder: Path) -> Plan | None:
    """The plan that lies in an output folder; None where there is none, or none that was finished.

    Raises:
        ConfigurationError: It is damaged.
    """
    path = folder / FOLDER / _HEAD
    try:
        head = json.loads(path.read_bytes())
        return Plan(folder, head["settings"], head["chunks"], head["images"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, also where the machine loses power."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        _to_disk(file)
    temporary.replace(path)


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _chunks(inputs: Sequence[str], size: int, column: str) -> Iterator[Chunk]:
    """Chunks of all inputs; images that lie alone are gathered across inputs."""
    number = first = 0
    waiting: list[tuple[str, str, str]] = []

    def files() -> Chunk:
        entries = tuple(waiting)
        waiting.clear()
        return Chunk(number, first, len(entries), "files", entries=entries)

    for kind, name, path, problem in _sources(inputs):
        path = str(Path(path).absolute()) if path else ""
        if kind == "image":
            waiting.append((name, path, problem))
            if len(waiting) < size:
                continue
        if waiting:
            yield (chunk := files())
            number, first = number + 1, first + chunk.count
        if kind == "image":
            continue
        place = 0
        for start, group, count in (_parquet if kind == "parquet" else _tar)(path, size, column):
            yield Chunk(number, first, count, kind, path, start, place, group)
            number, first, place = number + 1, first + count, place + count
        if not place:
            _warn(f"{name}: holds no image")
    if waiting:
        yield files()


def _sources(inputs: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Kind, name, path and problem of everything that the inputs name."""
    for argument in inputs:
        path = Path(argument)
        if path.is_dir():
            empty = True
            for found in _files_below(argument):
                kind = _kind(found)
                if kind not in ("", "manifest"):
                    empty = False
                    yield kind, found, found, ""
            if empty:
                _warn(f"{argument}: holds no image")
        elif not path.exists():
            raise InvalidRequestError(f"{argument}: there is no such file or folder")
        elif _kind(argument) == "manifest":
            yield from _manifest(path)
        elif kind := _kind(argument):
            yield kind, argument, argument, ""
        else:
            known = ", ".join(sorted(IMAGE_SUFFIXES | _MANIFEST_SUFFIXES | {".parquet", ".tar"}))
            raise InvalidRequestError(
                f"{argument}: got a file of unknown kind {path.suffix!r}, need a folder or one of {known}"
            )


def _files_below(folder: str) -> Iterator[str]:
    """The files in a folder and in those below it, also where links lead, by name; hidden ones are left out.

    Raises:
        InvalidRequestError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InvalidRequestError(f"{error.filename}: cannot be read: {error.strerror}")

    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        place = os.stat(parent)  # noqa: PTH116 -- of every folder
        if (place.st_dev, place.st_ino) in seen:  # a link to where it has been
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        # Hidden ones are thumbnails, or what macOS adds to each file (`._a.png`), and no scans.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield str(Path(parent) / name)


def _warn(text: str) -> None:
    tell(f"longhand batch: {text}")


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in _MANIFEST_SUFFIXES:
        return "manifest"
    return {".parquet": "parquet", ".tar": "tar"}.get(suffix, "")


def _manifest(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Rows of `image path TAB anything`, relative to the manifest's own folder."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path} line {number}"
            try:
                name = line.decode("utf-8-sig" if number == 1 else "utf-8").split("\t")[0].strip()
            except UnicodeDecodeError:
                yield "image", place, "", "the row is not UTF-8 text"
                continue
            if name and "\0" not in name:
                found = str(path.parent / name)
                yield "image", found, found, ""
            elif line.strip():
                yield "image", place, "", "the row names no file"


def _parquet(path: str, size: int, column: str) -> Iterator[tuple[int, int, int]]:
    pyarrow, parquet = import_parquet()
    try:
        metadata = parquet.ParquetFile(path)
        columns = metadata.schema_arrow.names
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InvalidRequestError(f"{path}: no Parquet file: {error}") from error
    if column not in columns:
        names = ", ".join(columns)
        raise InvalidRequestError(f"{path}: no column {column!r}; there is: {names} (--column)")
    for group in range(metadata.num_row_groups):
        rows = metadata.metadata.row_group(group).num_rows
        for start in range(0, rows, size):
            yield start, group, min(size, rows - start)


def _tar(path: str, size: int, column: str) -> Iterator[tuple[int, int, int]]:
    first = count = 0
    for member in tar_images(path, 0):
        if count == size:
            yield first, 0, count
            count = 0
        if count == 0:
            first = member.offset
        count += 1
    if count:
        yield first, 0, count


def tar_images(path: str, offset: int) -> Iterator[tarfile.TarInfo]:
    """The images of a tar from an offset of a member on, in its order; links to images count.

    Raises:
        InvalidRequestError: It is no tar, or ends early.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- tarfile wants the file
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # otherwise it remembers every one
                    there = member.isfile() or member.islnk() or member.issym()
                    if there and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                        yield member
                # A damaged header, and a file that was cut off between two members, look like the end.
                file.seek(tar.offset)
                if file.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
                    raise tarfile.ReadError(
                        f"no end of the archive where its last member ends, byte {tar.offset}"
                    )
    except (tarfile.TarError, OSError) as error:
        raise InvalidRequestError(f"{path}: no webdataset tar, or a damaged one: {error}") from error


def import_parquet() -> tuple[Any, Any]:
    """Imports pyarrow and its Parquet part.

    Raises:
        ConfigurationError: They are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install '.[bulk]' in Longhand's folder (or write --format jsonl)"
        ) from error
    return pyarrow, pyarrow.parquet
