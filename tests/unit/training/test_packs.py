from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server.errors import InvalidImageError
from longhand_training.iam import IAM_PARTITIONS, iam_ids, parse_iam_row, read_iam
from longhand_training.packs import (
    LabelledImage,
    held_out,
    read_folder,
    read_tar,
    refuse_shared_names,
    set_names,
)


def png() -> bytes:
    done, data = cv2.imencode(".png", np.full((20, 60), 200, np.uint8))
    assert done
    return data.tobytes()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to|stop|Mr.|Gaitskell",
            ("a01-000u-00", "A MOVE to stop Mr. Gaitskell"),
        ),
        (
            "a01-000u-01 err 154 408 768 27 51 without|components",
            ("a01-000u-01", "without components"),
        ),
        ("b01-1-02 ok 154 19 408 746 1661 89 with spaces in|it", ("b01-1-02", "with spaces in it")),
        ("b01-1-03 ok 154 19 408 746 1661 89 1961", ("b01-1-03", "1961")),
        ("b01-1-06 err 154 0 -1 -1 -1 -1 no|box", ("b01-1-06", "no box")),
        ("b01-1-04 ok 154 408 746 1661 89 1961", ("b01-1-04", "1961")),
        ('b01-1-05 ok 154 19 408 746 1661 89 "|quoted|"|#', ("b01-1-05", '" quoted " #')),
    ],
)
def test_rows_of_iam_lines_txt(row: str, expected: tuple[str, str]) -> None:
    assert parse_iam_row(row) == expected


@pytest.mark.parametrize("row", ["", "a01-000u-00 ok", "a01 maybe 1 2 3 4 5 6 text", "a ok x y z 4 5 6 text"])
def test_a_broken_iam_row_is_quoted(row: str) -> None:
    with pytest.raises(ValueError, match="need"):
        parse_iam_row(row)


def _iam(root: Path) -> None:
    form = root / "lines" / "a01" / "a01-000u"
    form.mkdir(parents=True)
    (form / "a01-000u-00.png").write_bytes(png())
    (form / "a01-000u-01.png").write_bytes(b"")
    (root / "lines.txt").write_text(
        "# header\n"
        "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE\n"
        "a01-000u-01 ok 154 19 408 746 1661 89 is|empty\n"
        "a01-000u-02 ok 154 19 408 746 1661 89 is|missing\n"
        "rubbish\n"
    )


def test_iam_keeps_what_is_good_and_names_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _iam(tmp_path)
    (image,) = read_iam(tmp_path)
    assert (image.name, image.text) == ("a01-000u-00", "A MOVE")
    said = capsys.readouterr().err
    for name in ("a01-000u-01", "a01-000u-02", "row 5"):
        assert name in said
    assert said.count("\n") == 3  # a comment is no broken row


def test_an_iam_partition_is_a_list_of_lines_or_forms(tmp_path: Path) -> None:
    _iam(tmp_path)
    assert len(read_iam(tmp_path, frozenset({"a01-000u"}))) == 1
    assert len(read_iam(tmp_path, frozenset({"a01-000u-00"}))) == 1
    with pytest.raises(ValueError, match=r"none of its \d+ lines is among the 1 ids wanted"):
        read_iam(tmp_path, frozenset({"z99"}))
    (tmp_path / "ids.txt").write_text("\ufeffa01-000u\r\n", encoding="utf-8")
    assert iam_ids(str(tmp_path / "ids.txt")) == frozenset({"a01-000u"})


def test_the_partition_of_iam_is_whole_and_without_overlap(tmp_path: Path) -> None:
    parts = [iam_ids(name) for name in IAM_PARTITIONS]
    assert [len(part or ()) for part in parts] == [747, 116, 336]
    assert len(frozenset().union(*(part or () for part in parts))) == 747 + 116 + 336
    assert iam_ids("all") is None
    own = tmp_path / "own.txt"
    own.write_text("a01-000u\nb01-004-03\n")
    assert iam_ids(str(own)) == frozenset({"a01-000u", "b01-004-03"})
    with pytest.raises(
        ValueError, match="got 'aachen', need aachen_train, aachen_validation, aachen_test, all or a file"
    ):
        iam_ids("aachen")


def test_of_copies_without_the_component_count_no_text_loses_its_first_number(tmp_path: Path) -> None:
    form = tmp_path / "lines" / "a01" / "a01-000u"
    form.mkdir(parents=True)
    texts = ["A MOVE", "1961 was a year", "to stop"]
    rows = []
    for i, text in enumerate(texts):
        (form / f"a01-000u-{i:02}.png").write_bytes(png())
        rows.append(f"a01-000u-{i:02} ok 154 408 746 1661 89 {text}\n")
    (tmp_path / "lines.txt").write_text("".join(rows))
    assert [image.text for image in read_iam(tmp_path)] == texts
    assert parse_iam_row(rows[1].strip())[1] == "was a year"  # by itself a row does not show it


def named(count: int) -> list[LabelledImage]:
    return [LabelledImage(f"lines/{i}.png", str(i).encode(), "x") for i in range(count)]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_about_the_share_asked_for_is_held_out(share: float) -> None:
    assert len(held_out(named(4000), share)) == pytest.approx(4000 * share, rel=0.1)
    assert held_out(named(4000), 0.0) == []


def test_lines_stay_on_their_side_when_others_come_or_go() -> None:
    lines = named(200)
    validated = held_out(lines, 0.1)
    trained = [line for line in lines if line not in validated]
    more = [LabelledImage("lines/00.png", b"", "x"), *lines]
    assert not set(trained) & {*held_out(more, 0.1), *held_out(lines[7:], 0.1)}


@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_of_a_few_lines_one_at_least_is_on_either_side(count: int, share: float) -> None:
    for start in range(50):
        assert 0 < len(held_out(named(50 + count)[start : start + count], share)) < count
    assert held_out(named(1), share) == []


def test_labels_are_cut_at_the_ends_of_rows_only(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\vfour\ffive"
    names = ("a", "b", "c")
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(png())
    (tmp_path / "labels.tsv").write_bytes(f"a.png\t{odd}\r\nb.png\t{odd}\rc.png\t{odd}\n".encode())
    assert [image.text for image in read_folder(tmp_path)] == ["one two three four five"] * 3
    with tarfile.open(tmp_path / "lines.tar", "w") as pack:
        pack.add(tmp_path / "labels.tsv", "train.tsv")
        for name in names:
            pack.add(tmp_path / f"{name}.png", f"{name}.png")
    assert [image.text for image in read_tar(tmp_path / "lines.tar", "train")] == [
        "one two three four five"
    ] * 3
    _iam(tmp_path)
    (tmp_path / "lines.txt").write_text(f"a01-000u-00 ok 154 19 408 746 1661 89 {odd}\n", "utf-8")
    assert [image.text for image in read_iam(tmp_path)] == ["one two three four five"]


def test_no_iam_database_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither lines\.txt nor"):
        read_iam(tmp_path)


def test_a_folder_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.png").write_bytes(png())
    (tmp_path / "labels.tsv").write_text(
        "one.png\tfirst \u201cline\u201d\nno tab here\ngone.png\tlost\none\0.png\tno name\n", "utf-8"
    )
    (image,) = read_folder(tmp_path)
    assert image.text == 'first "line"'
    said = capsys.readouterr().err
    assert "row 2" in said
    assert "gone.png skipped: No such file" in said
    assert "one\0.png skipped: embedded null byte" in said
    assert [i.text for i in read_folder(tmp_path / "labels.tsv")] == ['first "line"']


def test_a_file_that_stands_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "labels.tsv").write_text("a.png\tone\n./a.png\tanother\n")
    assert [image.text for image in read_folder(tmp_path)] == ["one"]
    assert "stands further up already" in capsys.readouterr().err


def test_of_many_bad_rows_ten_are_named_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "labels.tsv").write_text("good.png\tone\n" + "no tab\n" * 12)
    assert len(read_folder(tmp_path)) == 1
    said = capsys.readouterr().err.splitlines()
    assert [f"row {number} skipped" in row for number, row in enumerate(said[:-1], 2)] == [True] * 10
    assert said[-1] == f"{tmp_path}: 2 more skipped"


def test_a_folder_with_a_text_beside_each_image(tmp_path: Path) -> None:
    for name, label in (("a", ".txt"), ("b", ".gt.txt")):
        (tmp_path / f"{name}.png").write_bytes(png())
        (tmp_path / f"{name}{label}").write_text(f"text {name}\n")
    assert [image.text for image in read_folder(tmp_path)] == ["text a", "text b"]


def test_a_folder_of_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}: holds neither labels.tsv nor images$"):
        read_folder(tmp_path)
    (tmp_path / "a.PNG").write_bytes(png())
    with pytest.raises(
        ValueError, match=r"no usable line image \(1 skipped; first: .*a.PNG: no .txt or .gt.txt"
    ):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"a.PNG: is an image; need a folder or a TSV file"):
        read_folder(tmp_path / "a.PNG")
    with pytest.raises(ValueError, match="no such file"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "labels.tsv").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_folder(tmp_path)


def test_a_tar_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.tar"
    with tarfile.open(path, "w") as pack:
        for name, data in (("train.tsv", b"x.png\tone\ny.png\ttwo\n"), ("x.png", png())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            pack.addfile(info, io.BytesIO(data))
    (image,) = read_tar(path, "train")
    assert (image.name, image.text, image.is_packed) == ("x.png", "one", True)
    with pytest.raises(ValueError, match=r"holds no validation\.tsv"):
        read_tar(path, "validation")
    path.write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match="not a readable tar"):
        read_tar(path, "train")


def transparent() -> bytes:
    """Black ink on nothing: every pixel is black, and most are clear."""
    pixels = np.zeros((40, 200, 4), np.uint8)
    pixels[12:30, 20:180:4, 3] = 255
    done, data = cv2.imencode(".png", pixels)
    assert done
    return data.tobytes()


def test_own_lines_are_decoded_as_the_server_does_it_and_packed_ones_plainly() -> None:
    own = LabelledImage("own", transparent(), "x").grey()
    assert (own.min(), own.max()) == (0, 255)
    assert np.median(own) == 255
    assert not LabelledImage("packed", transparent(), "x", is_packed=True).grey().any()
    for is_packed in (False, True):
        for data in (b"", b"no image"):
            with pytest.raises(InvalidImageError):
                LabelledImage("damaged", data, "x", is_packed).grey()


def test_own_pages_may_be_larger_than_a_server_takes_by_default() -> None:
    done, data = cv2.imencode(".png", np.full((100, 40_000), 255, np.uint8))
    assert done
    assert LabelledImage("long", data.tobytes(), "x").grey().shape == (100, 40_000)


def test_a_row_with_a_third_column_is_named_and_not_glued_to_the_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(png())
    (tmp_path / "labels.tsv").write_text("one.png\ta label\none.png\ta label\twriter 7\n")
    assert [image.text for image in read_folder(tmp_path)] == ["a label"]
    assert "row 2 skipped: need FILE<tab>TEXT, got 3 columns: 'one.png" in capsys.readouterr().err


def test_a_label_that_is_not_utf_8_is_named_and_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, label in (("good", "caf\u00e9".encode()), ("bad", "caf\u00e9".encode("latin-1"))):
        (tmp_path / f"{name}.png").write_bytes(png())
        (tmp_path / f"{name}.gt.txt").write_bytes(label)
    assert [image.text for image in read_folder(tmp_path)] == ["caf\u00e9"]
    assert "bad.png skipped: bad.gt.txt is not readable UTF-8" in capsys.readouterr().err


def test_a_row_of_iam_that_is_not_utf_8_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _iam(tmp_path)
    with (tmp_path / "lines.txt").open("ab") as table:
        table.write(b"a01-000u-00 ok 154 19 408 746 1661 89 caf\xe9\n")
    assert [image.text for image in read_iam(tmp_path)] == ["A MOVE"]
    assert "row 6 skipped: not UTF-8" in capsys.readouterr().err


def test_own_lines_have_the_same_names_however_their_folder_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine" / "page"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(png())
    (folder / "1.txt").write_text("one")
    mine = tmp_path / "mine"
    monkeypatch.chdir(mine)
    paths = [mine, Path(), Path("../mine"), mine / "page" / ".."]
    assert {image.name for path in paths for image in read_folder(path)} == {"mine/page/1.png"}
    for spelling in ("./page/1.png", folder / "1.png"):
        (mine / "labels.tsv").write_text(f"{spelling}\tone\n")
        for path in (mine, mine / "labels.tsv", Path("labels.tsv")):
            assert [image.name for image in read_folder(path)] == ["mine/page/1.png"]


def test_names_of_sets_are_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [
        Path("a/lines"),
        Path("b/lines/labels.tsv"),
        Path("c/other.tsv"),
        Path("b/../a/lines"),
        Path(),
    ]
    assert set_names(paths) == ["lines", "lines-2", "other.tsv", "lines-3", tmp_path.name]
    assert set_names([Path("pen"), Path("pen-2"), Path("/")], ["pen"]) == ["pen-2", "pen-2-2", "root"]


def test_two_images_of_one_name_are_refused() -> None:
    one, same, other = (LabelledImage("lines/1.png", data, "x") for data in (b"1", b"1", b"2"))
    refuse_shared_names([one, same])
    with pytest.raises(ValueError, match=r"two different images are called lines/1\.png"):
        refuse_shared_names([one, other])
