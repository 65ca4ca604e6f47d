"""`longhand batch`: tars, Parquet files, links and odd names as inputs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from helpers.bulk_runs import check_rows, rows_in, run, some_text, write_tar
from helpers.toy_model import draw_image


def test_webdataset_tars(toy_bundle: Path, tmp_path: Path) -> None:
    texts = [some_text(n) for n in range(11)]
    # The long names need headers of their own, which is where a chunk may begin.
    names = [f"{'long' * 40}/{n}" for n in range(11)]
    write_tar(tmp_path / "a.tar", {n: draw_image(text) for n, text in zip(names, texts, strict=True)})
    write_tar(tmp_path / "b.tar", {"big": b"\x89PNG" + bytes(1 << 20), "good": draw_image("abc")})
    out = tmp_path / "out"
    options = ("--format", "jsonl", "--chunk", 3, "--max-image-bytes", 1 << 20)
    outcome = run(tmp_path / "a.tar", tmp_path / "b.tar", "--out", out, "--model", toy_bundle, *options)
    assert outcome.returncode == 1, outcome.stderr
    rows = rows_in(out)
    expected = [(f"a.tar/{n}.png", text) for n, text in zip(names, texts, strict=True)]
    check_rows(rows, [*expected, ("b.tar/big.png", None), ("b.tar/good.png", "abc")])
    assert "image file of 1048580 bytes, at most 1048576" in rows[11]["error"]


@pytest.mark.parametrize("damage", ["header", "zeros", "cut between members", "cut in a header"])
def test_a_tar_with_a_damaged_middle_is_refused(damage: str, toy_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {str(n): draw_image(some_text(n)) for n in range(6)})
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[6].offset
    if damage == "header":
        content[middle : middle + 8] = b"\xff" * 8
    elif damage == "zeros":
        content[middle : middle + 512] = bytes(512)
    else:
        del content[middle + (100 if damage == "cut in a header" else 0) :]
    path.write_bytes(content)
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 2
    assert "no webdataset tar, or a damaged one" in outcome.stderr


def test_links_in_a_tar_are_told(toy_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        image = draw_image("abc")
        info = tarfile.TarInfo("a.png")
        info.size = len(image)
        tar.addfile(info, io.BytesIO(image))
        for name, kind in (("b.png", tarfile.LNKTYPE), ("c.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.png"
            tar.addfile(link)
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 1
    rows = rows_in(tmp_path / "out")
    check_rows(rows, [("a.tar/a.png", "abc"), ("a.tar/b.png", None), ("a.tar/c.png", None)])
    for row in rows[1:]:
        assert "a link to a.png, which is not followed" in row["error"]


def test_folders_behind_links_and_odd_and_hidden_files(toy_bundle: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.mkdir()
    (shard / "a.png").write_bytes(draw_image("abc"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(shard)
    (shard / "round").symlink_to(folder)  # and round again
    os.mkfifo(folder / "pipe.png")
    (folder / "._a.png").touch()  # macOS adds such to each file
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.png").write_bytes(draw_image("abc"))
    (tmp_path / "empty").mkdir()
    outcome = run(
        folder, tmp_path / "empty", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle
    )
    assert outcome.returncode == 1
    assert "empty: holds no image" in outcome.stderr
    rows = rows_in(tmp_path / "out")
    check_rows(rows, [("pipe.png", None), ("link/a.png", "abc")])
    assert "no regular file" in rows[0]["error"]


def test_names_that_are_not_utf_8(toy_bundle: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(path).write_bytes(draw_image("abc"))
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 0, outcome.stderr
    check_rows(rows_in(tmp_path / "out"), [("caf\\udce9.png", "abc")])


def test_parquet_in_and_out(toy_bundle: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip(
        "pyarrow", reason="pyarrow is not installed here: make test-scale brings it"
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [some_text(n) for n in range(150)]
    drawn = [draw_image(text) for text in texts]
    plain = pyarrow.table({"label": texts, "picture": [*drawn[:-1], None]})
    parquet.write_table(plain, tmp_path / "plain.parquet", row_group_size=80)
    structs = [{"bytes": image, "path": "x.png"} for image in drawn[:3]]
    parquet.write_table(pyarrow.table({"picture": structs}), tmp_path / "structs.parquet")
    inputs = [tmp_path / "plain.parquet", tmp_path / "structs.parquet"]
    wrong = run(*inputs, "--out", tmp_path / "wrong", "--model", toy_bundle)
    assert wrong.returncode == 2
    assert "no column 'image'; there is: label, picture (--column)" in wrong.stderr
    out = tmp_path / "out"
    outcome = run(*inputs, "--out", out, "--model", toy_bundle, "--chunk", 70, "--column", "picture")
    assert outcome.returncode == 1, outcome.stderr
    expected = [(f"plain.parquet#{n}", text) for n, text in enumerate(texts[:-1])]
    expected_rows: list[tuple[str, str | None]] = [*expected, ("plain.parquet#149", None)]
    expected_rows += [(f"structs.parquet#{n}", text) for n, text in enumerate(texts[:3])]
    rows = rows_in(out)
    check_rows(rows, expected_rows)
    assert "column 'picture': got NoneType" in rows[149]["error"]
    assert sorted(path.suffix for path in out.glob("part-*")) == [".parquet"] * 4
