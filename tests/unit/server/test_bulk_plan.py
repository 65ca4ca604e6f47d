"""Which images `longhand batch` finds in its inputs, in which order, and what it says of the rest."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from longhand_server.bulk_plan import Chunk, make_plan, read_chunk
from longhand_server.errors import InvalidRequestError


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _chunks(*inputs: str, size: int = 100) -> list[Chunk]:
    plan = make_plan(Path("out"), inputs, {"format": "jsonl"}, size, "image")
    return [read_chunk(plan.folder, offset) for _, offset, _ in plan.offsets()]


def _names(*inputs: str) -> list[str]:
    return [name for chunk in _chunks(*inputs) for name, _, _ in chunk.entries]


def _make(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()


def test_a_folder_is_searched_by_name_for_images_only() -> None:
    _make("in/b/2.PNG", "in/b/1.png", "in/a/3.jpeg", "in/list.tsv", "in/notes.doc", "in/z.tif")
    assert _names("in") == ["in/z.tif", "in/a/3.jpeg", "in/b/1.png", "in/b/2.PNG"]


def test_another_working_folder_finds_the_same_files(tmp_path: Path) -> None:
    _make("in/a.png")
    (chunk,) = _chunks("in")
    assert chunk.entries == (("in/a.png", str(tmp_path / "in" / "a.png"), ""),)


def test_rows_of_a_manifest() -> None:
    Path("lists").mkdir()
    rows = ["\ufefffirst.png\tits text", "", "  ", "sub/second.png", "\tonly a text", "a\0b.png", "third.png"]
    Path("lists/a.tsv").write_bytes("\n".join(rows).encode() + b"\n\xff.png")
    (chunk,) = _chunks("lists/a.tsv")
    assert [(name, problem) for name, _, problem in chunk.entries] == [
        ("lists/first.png", ""),
        ("lists/sub/second.png", ""),
        ("lists/a.tsv line 5", "the row names no file"),
        ("lists/a.tsv line 6", "the row names no file"),
        ("lists/third.png", ""),
        ("lists/a.tsv line 8", "the row is not UTF-8 text"),
    ]


def test_files_beside_tars_keep_their_order_and_count_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make("1.png", "2.png", "x.PNG", "y.png", "note.txt", "5.png")
    with tarfile.open("a.tar", "w") as tar:
        for name in ("x.PNG", "note.txt", "y.png"):
            tar.add(name)
    tarfile.open("empty.tar", "w").close()
    chunks = _chunks("1.png", "a.tar", "empty.tar", "2.png", "5.png", size=2)
    assert [(chunk.number, chunk.first, chunk.count, chunk.kind) for chunk in chunks] == [
        (0, 0, 1, "files"),
        (1, 1, 2, "tar"),
        (2, 3, 2, "files"),
    ]
    assert [entry[0] for chunk in chunks for entry in chunk.entries] == ["1.png", "2.png", "5.png"]
    assert capsys.readouterr().err == "longhand batch: empty.tar: holds no image\n"


def test_what_is_no_parquet_file_is_named() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here: make test-scale brings it")
    Path("a.parquet").write_bytes(b"no such file")
    with pytest.raises(InvalidRequestError, match=r"a\.parquet: no Parquet file: "):
        _chunks("a.parquet")


def test_a_folder_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _make("in/a.png", "in/secret/b.png")
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InvalidRequestError, match="in/secret: cannot be read: Permission denied"):
        _chunks("in")
