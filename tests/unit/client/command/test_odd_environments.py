"""The command line with other encodings, full disks, long paths and odd line ends."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longhand.v1 import recognition_pb2 as pb
from longhand_client import benchmark, cli
from longhand_client.command.arguments import read_hotwords
from longhand_client.command.inputs import read_references
from longhand_client.command.outputs import Details, JsonWriter
from longhand_client.command.progress import Progress
from longhand_client.command.read import ArchiveWriter
from longhand_client.results import transcription_from_proto

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

READING = transcription_from_proto(pb.RecognitionResult(text="à 漢", image_width_px=60, image_height_px=20))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str) -> None:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, errors="backslashreplace")
    JsonWriter(stream, Details()).write("odd\udcff.png", READING, {})
    record = json.loads(content.getvalue().decode("utf-8"))
    assert (record["file"], record["text"]) == ("odd\udcff.png", "à 漢")
    assert ("à".encode() in content.getvalue()) == (encoding == "utf-8")


@pytest.mark.parametrize("program", [cli.main, benchmark.main])
def test_every_name_can_be_printed(
    program: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit):
        program(["--help"])
    assert sys.stdout.errors == "backslashreplace"


def test_a_full_disk_is_named(fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.png").write_bytes(b"text:one")
    image = str(tmp_path / "one.png")
    assert cli.main([image, "--json", "--out", "/dev/full", "--address", fake.address]) == 1
    assert "longhand: /dev/full: No space left on device" in capsys.readouterr().err


def test_paths_that_are_too_long_for_one_name(tmp_path: Path) -> None:
    writer = ArchiveWriter("alto", tmp_path)
    for name in ("a/" + "é" * 200 + "/x.png", "b/" + "é" * 200 + "/x.png"):
        writer.write(name, READING, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert all(name.endswith(("_x.png.xml", "_x.png-2.xml")) for name in names)


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_bytes("a.png\tone\u2028two\x0cthree\x85\r\nb.png\tfour\n".encode())
    assert read_references(str(path)) == {"a.png": "one\u2028two\x0cthree\x85", "b.png": "four"}
    path.write_text("one\u2028two\t3\nfour\n", encoding="utf-8")
    assert read_hotwords(str(path)) == {"one\u2028two": 3.0, "four": None}


class _Unwritable(io.StringIO):
    """Standard error on a full disk, or of which nobody reads any more."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_complaints_that_nobody_reads_end_no_run(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.png").write_bytes(b"text:one")
    images = [str(tmp_path / name) for name in ("missing.png", "lost.png", "one.png")]
    monkeypatch.setattr(sys, "stderr", _Unwritable())
    out = tmp_path / "out.txt"
    assert cli.main([*images, "--out", str(out), "--address", fake.address]) == 1
    assert out.read_text() == f"{images[2]}: one\n"


def test_a_terminal_that_was_closed_ends_no_run() -> None:
    progress = Progress(_Unwritable(), 2, enabled=True)
    progress.INTERVAL_S = -1
    progress.step()
    progress.clear()


def test_a_path_that_cannot_even_be_looked_up_costs_no_other_image(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(b"text:one")
    arguments = [f"{'long' * 75}.png", str(tmp_path / "one.png")]
    assert cli.main([*arguments, "--json", "--address", fake.address]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["text"] == "one"
    assert printed.err == f"longhand: {arguments[0]}: File name too long\n"


def test_a_pipe_does_not_tell_what_was_read(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    arguments = ["one.png", "--json", "--out", str(tmp_path / "pipe"), "--resume"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--address", fake.address])
    assert "pipe is no regular file, which alone tells --resume what was read" in capsys.readouterr().err
