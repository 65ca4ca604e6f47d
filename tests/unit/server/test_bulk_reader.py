"""Images of a chunk: exactly as many as were planned, whatever has become of their files since."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from helpers.toy_model import draw_image, write_bundle
from longhand_server import bulk_reader
from longhand_server.bulk_plan import Chunk, make_plan, read_chunk, write_whole
from longhand_server.bulk_reader import ChunkReader, images_of
from longhand_server.config import BatchingConfig, ModelsConfig, ServerConfig
from longhand_server.errors import InvalidImageError, LonghandError
from longhand_server.options import RecognitionOptions
from longhand_server.pipeline import RecognitionPipeline


def _write_tar(path: Path, contents: Sequence[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


def _planned(source: Path, size: int) -> list[Chunk]:
    plan = make_plan(source.parent / "out", [str(source)], {"format": "jsonl"}, size, "image")
    return [read_chunk(plan.folder, offset) for _, offset, _ in plan.offsets()]


def _found(chunk: Chunk) -> list[tuple[str, bytes | str]]:
    """Names without their folder, and content or what is wrong, likewise."""
    folder = f"{Path(chunk.path).parent}/"
    return [
        (name.removeprefix(folder), image if isinstance(image, bytes) else image.message.removeprefix(folder))
        for name, image in images_of(chunk, 1000, "image")
    ]


def test_files_that_are_too_large_or_cannot_be_opened(tmp_path: Path) -> None:
    for size in (1000, 1001, 5):
        (tmp_path / f"{size}.png").write_bytes(bytes(size))
    (tmp_path / "loop.png").symlink_to("loop.png")
    manifest = tmp_path / "list.txt"
    manifest.write_text("loop.png\n1000.png\n1001.png\n5.png\n")
    (chunk,) = _planned(manifest, 4)
    (tmp_path / "5.png").unlink()
    images = [image for _, image in images_of(chunk, 1000, "image")]
    assert [image if isinstance(image, bytes) else image.message for image in images] == [
        f"{tmp_path}/loop.png: Too many levels of symbolic links",
        bytes(1000),
        "image file of 1001 bytes, at most 1000 are read (--max-image-bytes)",
        f"{tmp_path}/5.png: No such file or directory",
    ]


def test_a_name_that_no_file_can_have_here_costs_no_other_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with LC_ALL=C and PYTHONUTF8=0, where a manifest names what is not ASCII."""
    (tmp_path / "a.png").write_bytes(b"a")
    manifest = tmp_path / "list.txt"
    manifest.write_text("é.png\na.png\n", encoding="utf-8")
    (chunk,) = _planned(manifest, 4)
    stat = Path.stat

    def ascii_stat(path: Path) -> os.stat_result:
        str(path).encode("ascii")
        return stat(path)

    monkeypatch.setattr(Path, "stat", ascii_stat)
    (name, problem), (_, image) = images_of(chunk, 1000, "image")
    assert name == f"{tmp_path}/é.png"
    assert isinstance(problem, InvalidImageError)
    assert "no name of a file here: 'ascii' codec" in problem.message
    assert image == b"a"


def test_a_tar_that_was_changed_after_it_was_planned(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    _write_tar(path, [b"0", b"1", b"2", b"3", b"4"])
    first, second = _planned(path, 3)
    assert _found(first) == [("a.tar/0.png", b"0"), ("a.tar/1.png", b"1"), ("a.tar/2.png", b"2")]
    assert _found(second) == [("a.tar/3.png", b"3"), ("a.tar/4.png", b"4")]
    _write_tar(path, [b"0", b"1", b"2", b"3"])
    held = "a.tar: it held more images when the run began"
    assert _found(second) == [("a.tar/3.png", b"3"), ("a.tar#4", held)]
    _write_tar(path, [b"0", b"1", b"2", b"3", b"4", b"5"])
    assert len(_found(second)) == 2
    path.write_bytes(path.read_bytes()[: second.start + 512])
    assert [name for name, _ in _found(second)] == ["a.tar#3", "a.tar#4"]
    assert "ends in the middle of 3.png" in str(_found(second)[0][1])
    path.unlink()
    assert all("No such file" in str(problem) for _, problem in _found(first))


def test_a_parquet_file_that_was_changed_after_it_was_planned(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip(
        "pyarrow", reason="pyarrow is not installed here: make test-scale brings it"
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"

    def write(images: list[bytes], column: str = "image") -> None:
        parquet.write_table(pyarrow.table({column: images}), path, row_group_size=3)

    write([b"0", b"1", b"2", b"3", b"4"])
    _, second = _planned(path, 3)
    assert _found(second) == [("a.parquet#3", b"3"), ("a.parquet#4", b"4")]
    write([b"0", b"1", b"2", bytes(1001), b"4"])
    assert "image file of 1001 bytes" in str(_found(second)[0][1])
    held = "a.parquet: it held more images when the run began"
    write([b"0", b"1", b"2", b"3"])
    assert _found(second) == [("a.parquet#3", b"3"), ("a.parquet#4", held)]
    write([b"0"])  # one row group
    assert _found(second) == [("a.parquet#3", held), ("a.parquet#4", held)]
    write([b"0", b"1", b"2", b"3", b"4"], "scan")
    lacks = "a.parquet: it had a column 'image' when the run began"
    assert _found(second) == [("a.parquet#3", lacks), ("a.parquet#4", lacks)]
    path.write_bytes(b"PAR1")
    assert [name for name, _ in _found(second)] == ["a.parquet#3", "a.parquet#4"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def _read(source: Path, config: ServerConfig) -> list[dict[str, Any]]:
    plan = make_plan(source.parent / "out", [str(source)], {"format": "jsonl", "column": ""}, 100, "")
    reader = ChunkReader(plan, config, RecognitionOptions())
    try:
        reader.read(0)
    finally:
        reader.close()
    return [json.loads(line) for line in plan.output(0).read_text().splitlines()]


def test_rows_keep_their_order_and_few_images_are_held(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = most = 0
    seconds = itertools.cycle((0.01, 0.0))

    def images(*given: Any) -> Iterator[tuple[str, bytes | LonghandError]]:
        nonlocal held, most
        for image in images_of(*given):
            held += 1
            most = max(most, held)
            yield image

    async def fail(*_: object, wait: bool) -> None:
        nonlocal held
        await asyncio.sleep(next(seconds))
        held -= 1
        raise InvalidImageError("odd")

    monkeypatch.setattr(bulk_reader, "images_of", images)
    monkeypatch.setattr(RecognitionPipeline, "recognize", fail)
    _write_tar(tmp_path / "a.tar", [b"image"] * 40)
    rows = _read(tmp_path / "a.tar", ServerConfig(models=ModelsConfig(model=str(bundle))))
    assert [(row["number"], row["error"]) for row in rows] == [(number, "odd") for number in range(40)]
    assert most <= 9  # eight, and the one that waits for its place


def test_no_image_is_refused_because_others_wait(tmp_path: Path, bundle: Path) -> None:
    _write_tar(tmp_path / "a.tar", [draw_image("abc")] * 40)
    config = ServerConfig(models=ModelsConfig(model=str(bundle)), batching=BatchingConfig(max_queue=1))
    assert [row["text"] for row in _read(tmp_path / "a.tar", config)] == ["abc"] * 40


def test_names_that_are_not_utf_8_go_into_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here: make test-scale brings it")
    parquet = pytest.importorskip("pyarrow.parquet")
    name = os.fsdecode(b"caf\xe9.png")
    content = bulk_reader.encode_rows([bulk_reader.Row(0, name, "abc", 0.5, None)], ".parquet")
    assert parquet.read_table(BytesIO(content)).column("name").to_pylist() == ["caf\\udce9.png"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "rows"
    write_whole(path, b"before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
