from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from longhand_client.command.inputs import Item, find_items, read_references, reference_of


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", "deep/er/c.tiff", "deep/d.webp"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, manifest: str | None = None) -> list[str]:
    return [item.name for item in find_items(arguments, manifest)]


def test_a_folder_is_searched_for_images_in_order(scans: Path) -> None:
    assert names("scans") == ["scans/a.JPG", "scans/b.png", "scans/deep/d.webp", "scans/deep/er/c.tiff"]


def test_what_is_hidden_in_a_folder_is_no_image(scans: Path) -> None:
    (scans / "scans" / "._a.png").touch()
    (scans / "scans" / ".thumbnails").mkdir()
    (scans / "scans" / ".thumbnails" / "b.png").touch()
    assert names("scans") == ["scans/a.JPG", "scans/b.png", "scans/deep/d.webp", "scans/deep/er/c.tiff"]
    assert names("scans/._a.png", "scans/.thumbnails") == ["scans/._a.png", "scans/.thumbnails/b.png"]


def test_folders_within_are_searched_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (5, 2, 7, 0, 3, 6, 1, 4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "x.png").touch()
    assert [item.name for item in find_items([str(tmp_path)])] == [f"{tmp_path}/{n}/x.png" for n in range(8)]


def test_linked_folders_are_searched_once_each(scans: Path) -> None:
    (scans / "scans" / "link").symlink_to(scans / "scans" / "deep")
    (scans / "scans" / "deep" / "up").symlink_to(scans / "scans")
    (scans / "elsewhere").mkdir()
    (scans / "elsewhere" / "z.png").touch()
    (scans / "scans" / "z").symlink_to(scans / "elsewhere")
    assert names("scans") == [
        "scans/a.JPG",
        "scans/b.png",
        "scans/deep/d.webp",
        "scans/deep/er/c.tiff",
        "scans/z/z.png",
    ]


def test_arguments_keep_their_order(scans: Path) -> None:
    assert names("scans/b.png", "scans/deep", "scans/a.JPG")[0::3] == ["scans/b.png", "scans/a.JPG"]


def test_patterns(scans: Path) -> None:
    assert names("scans/*.png") == ["scans/b.png"]
    assert names("scans/**/*.webp") == ["scans/deep/d.webp"]


def test_what_a_pattern_matches_is_sorted(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["scans/deep/d.webp", "scans/b.png"]  # in the order in which the disk has them
    monkeypatch.setattr(glob, "glob", lambda *_, **__: found)
    assert names("scans/**") == sorted(found)


def test_a_file_whose_name_looks_like_a_pattern(scans: Path) -> None:
    (scans / "what[1].png").write_bytes(b"x")
    assert names("what[1].png") == ["what[1].png"]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("empty", "no image in this folder (.bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp)"),
        ("none*.png", "no file matches"),
    ],
)
def test_arguments_that_name_nothing_are_items_with_a_problem(
    scans: Path, argument: str, problem: str
) -> None:
    assert list(find_items([argument])) == [Item(argument, None, problem)]


def test_files_that_do_not_exist_are_left_to_the_reader(scans: Path) -> None:
    assert list(find_items(["gone.png"])) == [Item("gone.png", "gone.png")]


def test_a_folder_that_cannot_be_searched_is_named(scans: Path) -> None:
    items = find_items(["scans"])
    assert [next(items).name, next(items).name] == ["scans/a.JPG", "scans/b.png"]
    (scans / "scans/deep").rename(scans / "away")
    assert list(items) == [Item("scans/deep", None, "No such file or directory")]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """The other end of standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb") as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield pipe


def test_standard_input(piped: IO[bytes]) -> None:
    piped.write(b"image")
    piped.close()
    assert list(find_items(["-"])) == [Item("standard input", b"image")]


def test_a_manifest_is_relative_to_its_folder_and_survives_broken_rows(scans: Path) -> None:
    manifest = scans / "scans" / "list.tsv"
    manifest.write_bytes(
        b"\xef\xbb\xbfb.png\tsome text\r\n"  # with a byte-order mark and Windows line ends
        b"\n"
        b"\ttext without a file\n"
        b"caf\xe9.png\tLatin-1\n"
        b"bad\0name.png\n"
        b"deep/d.webp\n"
    )
    found = list(find_items([], str(manifest)))
    assert [(item.name, item.source) for item in found if item.source] == [
        ("b.png", f"{scans}/scans/b.png"),
        ("deep/d.webp", f"{scans}/scans/deep/d.webp"),
    ]
    assert [(item.name.removeprefix(f"{scans}/scans/"), item.problem) for item in found if item.problem] == [
        ("list.tsv line 3", "the row names no file"),
        ("list.tsv line 4", "the row is not UTF-8 text"),
        ("list.tsv line 5", "the row holds a zero byte"),
    ]


def test_a_manifest_that_does_not_exist(scans: Path) -> None:
    assert [item.problem for item in find_items([], "gone.tsv")] == ["No such file or directory"]


def test_a_manifest_on_standard_input(piped: IO[bytes]) -> None:
    piped.write(b"a.png\nb.png\n")
    piped.close()
    assert names(manifest="-") == ["a.png", "b.png"]


def test_a_manifest_that_a_shell_pipes(scans: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.png\nb.png\n")
    os.close(writing)
    assert list(find_items([], f"/dev/fd/{reading}")) == [Item("a.png", "a.png"), Item("b.png", "b.png")]
    os.close(reading)


def test_items_come_one_by_one(scans: Path) -> None:
    manifest = scans / "long.tsv"
    with manifest.open("w") as file:
        file.writelines(f"{number}.png\n" for number in range(100_000))
    items = find_items([], str(manifest))
    assert next(items).name == "0.png"
    assert sum(1 for _ in items) == 99_999


def test_references(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("one.png\tfirst\tmore\nx/two.png\tsecond\ny/two.png\tother\n\n", encoding="utf-8")
    references = read_references(str(path))
    assert reference_of("/far/away/one.png", references) == "first"
    assert reference_of("x/two.png", references) == "second"
    # Two folders have a two.png: without its folder the name says nothing.
    assert reference_of("z/two.png", references) is None
    assert reference_of("x/one.png", {"one.png": "first", "x/one.png": "its own"}) == "its own"


def test_broken_references_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("one.png\tfirst\nno text here\n")
    with pytest.raises(ValueError, match="line 2: need `image TAB text`"):
        read_references(str(path))
