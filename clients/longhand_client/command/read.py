"""`longhand IMAGE ...`: reads everything that was named, in order, and writes each reading at once."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longhand_client.client import RecognizerClient
from longhand_client.command.archive import to_alto, to_hocr, to_page
from longhand_client.command.drawing import draw_reading
from longhand_client.command.inputs import Item, reference_of
from longhand_client.command.outputs import Writer, printable
from longhand_client.command.progress import Progress
from longhand_client.command.scoring import Score, paint
from longhand_client.command.standard_streams import tell
from longhand_client.errors import InvalidImageError, LonghandError
from longhand_client.images import ImageSource, image_bytes
from longhand_client.options import RecognitionOptions
from longhand_client.results import Outcome, Transcription

# Readings less sure than this are no plain matter.
_SURE = 0.9
# Bytes of a file's name, which may have 255, so that a number and a suffix find room.
_LONGEST_NAME = 240


@dataclass(frozen=True)
class ReadJob:
    """What to do with each image.

    Attributes:
        options: how to read.
        writer: where readings go.
        finished: names that were read in an earlier run.
        references: reference texts by name; None = do not score.
        drawings: where the drawings go; None = none.
        align: whether scored readings go out as a marked alignment, too.
        colour: whether that alignment is coloured.
        look_ahead: images on their way at once.
        alone: whether a person reads the text of one image, and sees nothing where it is blank.
    """

    options: RecognitionOptions
    writer: Writer
    finished: frozenset[str] = frozenset()
    references: dict[str, str] | None = None
    drawings: Drawings | None = None
    align: bool = False
    colour: bool = False
    look_ahead: int = 64
    alone: bool = False


@dataclass
class Report:
    """What became of a run.

    Attributes:
        read: images read.
        skipped: images that an earlier run had read.
        failures: images that were not read.
        score: error rates.
    """

    read: int = 0
    skipped: int = 0
    failures: int = 0
    score: Score = field(default_factory=Score)


class _Unreadable(io.BytesIO):
    """Stands in the stream for something that names no image: fails on its turn, and order is kept."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self._problem = problem

    def read(self, size: int | None = -1, /) -> bytes:
        raise InvalidImageError(self._problem)


class ArchiveWriter:
    """Writes one ALTO, hOCR or PAGE document an image, into a folder or to one stream."""

    def __init__(self, kind: str, folder: Path | None) -> None:
        self._kind = kind
        self._folder = folder
        self._names = _FileNames()

    def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
        """Writes one reading."""
        if self._kind == "page":
            document = to_page(name, transcription, datetime.datetime.now(datetime.UTC))
        else:
            document = (to_hocr if self._kind == "hocr" else to_alto)(name, transcription)
        # A file name need not be UTF-8, XML must be.
        content = document.encode(errors="replace")
        if self._folder is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        suffix = "hocr" if self._kind == "hocr" else "xml"
        (self._folder / f"{self._names.take(_flat_name(name))}.{suffix}").write_bytes(content)


def _flat_name(name: str) -> str:
    """A file name made of the whole path, so that two folders may each have a 001.png; of a very long one its end."""
    flat = "_".join(part for part in Path(name).parts if part not in ("/", "..", "."))
    return os.fsdecode(os.fsencode(flat)[-_LONGEST_NAME:])


class _FileNames:
    """File names without a suffix, none of them twice, not even where capitals are the only difference."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, *wanted: str) -> str:
        """The first of the names that is free; if none is, the last one with a number."""
        numbered = (f"{wanted[-1]}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain(wanted, numbered) if name.lower() not in self._taken)
        self._taken.add(name.lower())
        return name


class Drawings:
    """Writes pictures of what was read: to one PNG file, or into a folder a file for each image.

    The names that they get depend on all images in their order, not on which of them are read in this run.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._files: dict[str, str] = {}
        self._names = _FileNames()

    def announce(self, name: str) -> None:
        """Finds the drawing of an image a name: its own, or its whole path where that is another's already."""
        self._files[name] = f"{self._names.take(Path(name).stem, _flat_name(name))}.png"

    def file_of(self, name: str) -> str:
        """The name of an image's drawing in the folder."""
        return self._files[name]

    def write(self, item: Item, transcription: Transcription) -> None:
        """Writes one drawing.

        Raises:
            LonghandError: it cannot be written, or would replace the image itself.
        """
        if item.source is None:
            return
        target = self._target
        try:
            if target.suffix.lower() != ".png":
                target.mkdir(parents=True, exist_ok=True)
                target /= self.file_of(item.name)
            if not isinstance(item.source, bytes) and target.exists() and target.samefile(item.source):
                raise LonghandError(
                    f"its drawing would replace it: name another place than {target} with --show"
                )
            target.write_bytes(draw_reading(image_bytes(item.source), transcription))
        except OSError as error:
            raise LonghandError(f"cannot write {target}: {error.strerror}") from error


def read_items(
    client: RecognizerClient, items: Iterator[Item], job: ReadJob, progress: Progress, report: Report
) -> None:
    """Reads every item and fills the report, which stays right if an exception ends the run.

    Raises:
        LonghandError: the service as a whole failed; single images do not raise.
        KeyboardInterrupt: the person stopped it.
    """
    sent: deque[Item] = deque()

    def sources() -> Iterator[ImageSource]:
        for item in items:
            if job.drawings is not None:
                job.drawings.announce(item.name)
            if item.name in job.finished:
                report.skipped += 1
                continue
            sent.append(item)
            yield _Unreadable(item.problem) if item.source is None else item.source

    # Outcomes come in the order of the images, so the names wait in a queue.
    for outcome in client.recognize_stream(sources(), job.options, look_ahead=job.look_ahead):
        item = sent.popleft()
        progress.step()
        problem = _finish(item, outcome, job, report)
        if problem:
            report.failures += 1
        elif outcome.transcription is not None:
            problem = _doubt(outcome.transcription, alone=job.alone)
        if problem:
            progress.clear()
            tell(f"longhand: {printable(item.name)}: {problem}")


def _doubt(transcription: Transcription, *, alone: bool) -> str:
    """What a person should know of a reading without text, or ""; a blank line among many is nothing strange."""
    if transcription.text:
        return ""
    # There is ink, as on a whole page; of a blank line the model is sure.
    if transcription.confidence < _SURE:
        return "nothing could be read: is it one line? (cut a page into its lines first)"
    return "nothing is written on it" if alone else ""


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets Ctrl-C take effect at the end of the block only (signals reach the main thread alone)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _finish(item: Item, outcome: Outcome, job: ReadJob, report: Report) -> str:
    """Writes one outcome; returns what is wrong with it, or ""."""
    try:
        transcription = outcome.result()
        extra, alignment = _score(item.name, transcription.text, job, report)
        # A reading is written and counted, or neither: Ctrl-C waits that long.
        with interrupts_held():
            job.writer.write(item.name, transcription, extra)
            if alignment and job.align:
                print(alignment)
            report.read += 1
        if job.drawings is not None:
            job.drawings.write(item, transcription)
    except InvalidImageError as error:
        return str(error).removeprefix(f"{item.source!s}: ")
    except LonghandError as error:
        return str(error)
    return ""


def _score(name: str, text: str, job: ReadJob, report: Report) -> tuple[dict[str, Any], str]:
    """Scores one reading: further facts for its record, and its alignment for people."""
    if job.references is None:
        return {}, ""
    expected = reference_of(name, job.references)
    if expected is None:
        report.score.without_reference.append(name)
        return {}, ""
    steps, rate = report.score.add(expected, text)
    alignment = f"    {100 * rate:5.1f} %  {paint(steps, colour=job.colour)}"
    return {"reference": expected, "cer": round(rate, 4)}, alignment
