"""How readings are written: text, JSON lines or TSV. One record is one line, flushed as soon as it stands."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from longhand_client.results import Span, Transcription

TSV_COLUMNS = ("file", "rank", "confidence", "text")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})


@dataclass(frozen=True)
class Details:
    """What is written beside the text.

    Attributes:
        names: whether text output starts with the file's name.
        alternatives: whether to write the further readings.
        words: whether to write the words.
        characters: whether to write the characters.
    """

    names: bool = False
    alternatives: bool = False
    words: bool = False
    characters: bool = False


class Writer(Protocol):
    """Writes one reading."""

    def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
        """Writes one reading; `extra` holds further facts about it, such as its error rate."""


class TextWriter:
    """The text; with details, these follow in indented lines."""

    def __init__(self, stream: IO[str], details: Details) -> None:
        self._stream = stream
        self._details = details

    def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
        """Writes one reading."""
        prefix = f"{name}: " if self._details.names else ""
        lines = [f"{prefix}{transcription.text}"]
        if self._details.alternatives:
            lines += [f"    {one.confidence:.2f}  {one.text}" for one in transcription.alternatives]
        if self._details.words:
            lines += [_span_line(word) for word in transcription.words]
        if self._details.characters:
            lines += [_span_line(character) for character in transcription.characters]
        print("\n".join(map(printable, lines)), file=self._stream, flush=True)


class JsonWriter:
    """One JSON object a line."""

    def __init__(self, stream: IO[str], details: Details) -> None:
        self._stream = stream
        self._details = details
        # JSON is UTF-8; a terminal with another encoding gets escapes, which are the same everywhere.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._escaped = codecs.lookup(encoding).name != "utf-8"

    def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
        """Writes one reading."""
        record: dict[str, Any] = {
            "file": name,
            "text": transcription.text,
            "confidence": transcription.confidence,
        }
        for part in ("alternatives", "words", "characters"):
            if getattr(self._details, part):
                record[part] = [asdict(one) for one in getattr(transcription, part)]
        if self._details.words or self._details.characters:
            record["rotation"] = transcription.rotation  # which their places are to be understood with
        text = json.dumps(record | extra, ensure_ascii=self._escaped)
        # Bytes of a file name that are not UTF-8 stand for themselves as lone surrogates, which JSON can escape.
        text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        print(text, file=self._stream, flush=True)


class TsvWriter:
    """Rows of file, rank (1 = best), confidence, text; tabs and line ends inside a field are escaped."""

    def __init__(self, stream: IO[str], details: Details, *, header: bool = True) -> None:
        self._stream = stream
        self._details = details
        if header:
            print("\t".join(TSV_COLUMNS), file=stream, flush=True)

    def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
        """Writes one reading."""
        readings = [(transcription.confidence, transcription.text)]
        if self._details.alternatives:
            readings += [(one.confidence, one.text) for one in transcription.alternatives[1:]]
        for rank, (confidence, text) in enumerate(readings, 1):
            fields = (name.translate(_ESCAPES), str(rank), f"{confidence:.4f}", text.translate(_ESCAPES))
            print("\t".join(fields), file=self._stream)
        self._stream.flush()


def printable(line: str) -> str:
    """A line for people: terminals obey control characters, and a line's end looks like a new record.

    A file may be called anything, and a server may send anything.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def finished_names(path: Path, kind: str) -> set[str]:
    """The files whose readings stand in an output already, so that a run can go on.

    Args:
        path: the output of an earlier run; it need not exist. A half-written last line is cut off.
        kind: "json" or "tsv".

    Returns:
        Their names as they were written.

    Raises:
        ValueError: a line is no record of that kind.
    """
    if not path.exists():
        return set()
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no regular file, which alone tells --resume what was read")
    names: set[str] = set()
    complete = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            complete += len(line)
            try:
                names.add(_record_name(line.decode(errors="surrogateescape"), kind))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path} line {number} is no {kind} record of this program: {error}"
                ) from error
    # What was cut short by a crash is read again.
    with path.open("rb+") as file:
        file.truncate(complete)
    names.discard(TSV_COLUMNS[0])
    return names


def _record_name(line: str, kind: str) -> str:
    if kind == "json":
        name = json.loads(line)["file"]
        if not isinstance(name, str):
            raise ValueError(f"file: got {name!r}")
        return name
    columns = line.rstrip("\n").split("\t")
    if len(columns) != len(TSV_COLUMNS):
        raise ValueError(f"got {len(columns)} columns, need {len(TSV_COLUMNS)}")
    return _unescape(columns[0])


def _unescape(field: str) -> str:
    meanings = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    characters = iter(field)
    return "".join(meanings.get(next(characters, ""), "") if one == "\\" else one for one in characters)


def _span_line(span: Span) -> str:
    return f"    {span.x_start:7.1f} {span.x_end:7.1f}  {span.confidence:.2f}  {span.text}"
