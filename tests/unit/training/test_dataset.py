"""Own lines: what is left out, and that it is said."""

from __future__ import annotations

import io
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_training import preview
from longhand_training.dataset import LineDataset, fits
from longhand_training.line_sets import (
    evenly_spread,
    folder_samples,
    held_out_samples,
    kept_back,
    make_sources,
    own_validation_sets,
)
from longhand_training.packs import SCAN_PACKS
from longhand_training.source_config import SourceConfig
from longhand_training.text import DEFAULT_CHARACTERS

LINE = LineFormat()


def png(pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", pixels)
    assert done
    return data.tobytes()


def written(width: int = 300) -> np.ndarray:
    grey = np.full((48, width), 255, np.uint8)
    grey[12:36, 10 : width - 10 : 6] = 0
    return grey


def transparent() -> np.ndarray:
    """The same in black ink on clear paper, which is black beneath."""
    pixels = np.zeros((48, 300, 4), np.uint8)
    pixels[..., 3] = 255 - written()
    return pixels


def add(folder: Path, name: str, pixels: np.ndarray | bytes, text: str = "some text") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(pixels if isinstance(pixels, bytes) else png(pixels))
    (folder / f"{name}.txt").write_text(text, "utf-8")


def dataset_of(folder: Path, hold_out: float = 0.0) -> LineDataset:
    sources = make_sources(SourceConfig(folders=(folder,), hold_out=hold_out))
    return LineDataset(sources, Alphabet(DEFAULT_CHARACTERS), LINE, 3000)


def texts_of(dataset: LineDataset, count: int = 60) -> set[str]:
    rng = np.random.default_rng(0)
    return {dataset.sample(rng).text for _ in range(count)}


def test_lines_on_clear_paper_are_measured_and_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "clear"
    add(folder, "plain", written(), "plain")
    add(folder, "clear", transparent(), "clear")
    clear, plain = folder_samples(folder, LINE)
    assert (clear.text, clear.name) == ("clear", "clear/clear.png")
    np.testing.assert_array_equal(clear.pixels, plain.pixels)
    assert texts_of(dataset_of(folder)) == {"plain", "clear"}


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((48, 300), 250, np.uint8), "blank: no ink is found in it"),
        (np.zeros((48, 300, 4), np.uint8), "blank: no ink is found in it"),
        (np.zeros((1, 300), np.uint8), "at least 3 pixels"),
        (np.zeros((1, 1), np.uint8), "at least 3 pixels"),
        (b"no image", "not"),
        (b"", "empty"),
    ],
)
def test_lines_that_show_nothing_are_named(
    pixels: np.ndarray | bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    add(folder, "good", written(), "good")
    add(folder, "bad", pixels, "bad")
    assert texts_of(dataset_of(folder)) == {"good"}
    said = capsys.readouterr().err
    assert f"{folder}: own/bad.png skipped: " in said
    assert reason in said
    assert [sample.text for sample in folder_samples(folder, LINE)] == ["good"]
    assert "own/bad.png skipped" in capsys.readouterr().err


def test_a_folder_that_shows_nothing_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    add(folder, "blank", np.full((48, 300), 250, np.uint8))
    for read in (lambda: dataset_of(folder), lambda: folder_samples(folder, LINE)):
        with pytest.raises(
            ValueError, match=r"no usable line image \(1 skipped; first: own/blank\.png: blank"
        ):
            read()


@pytest.mark.parametrize("height", [3, 4, 5])
def test_lines_of_few_rows_are_trained_on(height: int, tmp_path: Path) -> None:
    folder = tmp_path / "low"
    add(folder, "good", written(), "good")
    pixels = np.full((height, 90), 255, np.uint8)
    pixels[1:-1, 3:80:3] = 0
    add(folder, "low", pixels, "low")
    assert texts_of(dataset_of(folder), 300) <= {"good", "low"}


def test_labels_that_are_too_long_for_their_image_are_named_and_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    add(folder, "good", written(), "good")
    add(folder, "narrow", written(60), "a label of a whole page, " * 9)
    assert texts_of(dataset_of(folder)) == {"good"}
    assert "own/narrow.png skipped: too narrow for its text (" in capsys.readouterr().err
    # Measured, it counts: the network reads it wrongly.
    assert len(folder_samples(folder, LINE)) == 2
    assert not fits(folder_samples(folder, LINE)[1].pixels.shape[1], "a label of a whole page, " * 9)


def test_foreign_characters_are_counted_and_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    for i, text in enumerate(
        (
            "Straße\N{LEFT-TO-RIGHT MARK}",
            "s\N{LATIN SMALL LETTER L WITH STROKE}o\N{LATIN SMALL LETTER O WITH STROKE}w",
            "good",
        )
    ):
        add(folder, str(i), written(), text)
    sources = make_sources(SourceConfig(folders=(folder,)))
    capsys.readouterr()
    for _ in range(2):
        dataset = LineDataset(sources, Alphabet(DEFAULT_CHARACTERS), LINE, 3000)
    assert texts_of(dataset) == {"good"}
    assert capsys.readouterr().err == (
        f"{folder}: 2 of 3 lines have characters that the network does not write, and are left out: "
        "ß ø ł U+200E\n"
    )


def test_a_folder_of_nothing_but_foreign_characters_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    add(folder, "1", written(), "ßß")
    add(folder, "2", written(), "a ß")
    with pytest.raises(
        ValueError, match=r"own: every line \(2\) has characters that the network does not write: ß$"
    ):
        dataset_of(folder)


def test_damaged_lines_do_not_take_the_place_of_held_out_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    for i in range(22):
        add(folder, f"{i:02}", b"damaged" if i in (9, 19) else written(300 + 10 * i), str(i))
    training = texts_of(dataset_of(folder, 0.1), 300)
    validation = {sample.text for sample in held_out_samples(folder, LINE, 0.1)}
    assert validation
    assert training | validation == {str(i) for i in range(22) if i not in (9, 19)}
    assert not training & validation
    said = capsys.readouterr().err
    assert said.count("09.png skipped") == 1  # read once for both
    assert "validated on elsewhere" not in said


def folder_of(folder: Path, *names: str) -> Path:
    """Lines that are all different, and say their names."""
    folder.mkdir(parents=True)
    for name in names:
        add(folder, name, written(200 + 2 * int(name)), name)
    return folder


def sides(config: SourceConfig) -> tuple[set[str], set[str]]:
    """The texts that are trained on, and those that are validated on."""
    dataset = LineDataset(make_sources(config), Alphabet(DEFAULT_CHARACTERS), LINE, 3000)
    sets = own_validation_sets(config, dataset.alphabet, LINE, 1000)
    return texts_of(dataset, 600), {sample.text for samples in sets.values() for sample in samples}


def test_lines_that_are_validated_on_are_not_trained_on_wherever_they_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "lines", *(str(i) for i in range(10)))
    within = folder_of(folder / "within", *(str(i) for i in range(10, 16)))
    table = tmp_path / "some.tsv"
    table.write_text("lines/3.png\tthree\nlines/within/12.png\ttwelve\n")
    everything = {str(i) for i in range(16)}
    for validate, validated, count in (
        (within, {str(i) for i in range(10, 16)}, 6),
        (table, {"3", "12"}, 2),
    ):
        training, validation = sides(SourceConfig(folders=(folder,), validate=(validate,)))
        assert training == everything - validated
        assert len(validation) == count
        said = capsys.readouterr().err
        assert said == f"{folder}: {count} lines are validated on elsewhere, and so not trained on\n"


def test_what_one_folder_holds_out_no_other_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "lines", *(str(i) for i in range(8)))
    within = folder_of(folder / "within", *(str(i) for i in range(8, 30)))
    training, validation = sides(SourceConfig(folders=(folder, within), hold_out=0.3))
    assert not training & validation
    assert training | validation == {str(i) for i in range(30)}
    assert "lines are validated on elsewhere" in capsys.readouterr().err
    alone = [sample.text for sample in held_out_samples(folder, LINE, 0.3)]
    assert set(alone) < validation


def test_iam_lines_to_validate_on_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = folder_of(tmp_path / "lines" / "a01" / "a01-000u", "00", "01", "02")
    for file in form.glob("*.png"):
        file.rename(form / f"a01-000u-{file.name}")
    rows = [f"a01-000u-0{i} ok 154 19 408 746 1661 89 {i}" for i in range(3)]
    (tmp_path / "lines.txt").write_text("\n".join([*rows, "broken"]))
    (tmp_path / "ids.txt").write_text("a01-000u-01")
    config = SourceConfig(iam=tmp_path, iam_ids="all", validate_iam_ids=str(tmp_path / "ids.txt"))
    assert sides(config) == ({"0", "2"}, {"1"})
    assert capsys.readouterr().err == (  # once, though both sides are taken from it
        f"{tmp_path}/lines.txt: row 4 skipped: need ID ok|err 5-6 numbers TEXT, got 'broken'\n"
        f"{tmp_path}: 1 lines are validated on elsewhere, and so not trained on\n"
    )


def test_lines_of_the_packs_and_own_ones_may_be_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder_of(tmp_path / "own", *(str(i) for i in range(6)))
    images = {file.stem: file.read_bytes() for file in own.glob("*.png")}
    for name in SCAN_PACKS:
        with tarfile.open(tmp_path / name, "w") as pack:
            for split, stems in (("train", "023"), ("validation", "1")):
                rows = "".join(f"{split}/{stem}\t{stem}\n" for stem in stems)
                members = {
                    f"{split}.tsv": rows.encode(),
                    **{f"{split}/{stem}": images[stem] for stem in stems},
                }
                for member, data in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    pack.addfile(info, io.BytesIO(data))
    table = own / "validated.tsv"
    table.write_text("2.png\t2\n5.png\t5\n")
    config = SourceConfig(data=tmp_path, pen=0, folders=(own,), validate=(table,))
    trained = [{image.text for image in make._images} for _, _, make in make_sources(config)]  # type: ignore[attr-defined]
    assert trained == [{"0", "3"}, {"0", "3"}, {"0", "3", "4"}]
    said = capsys.readouterr().err
    assert f"{tmp_path / SCAN_PACKS[0]}: 1 lines are validated on elsewhere" in said
    assert f"{own}: 3 lines are validated on elsewhere" in said


def test_validation_lines_with_foreign_characters_are_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "lines", "1", "2")
    other = folder_of(tmp_path / "other", "3", "4")
    (other / "4.txt").write_text("Straße")
    config = SourceConfig(folders=(folder,), validate=(other,))
    assert sides(config) == ({"1", "2"}, {"3"})
    assert capsys.readouterr().err == (
        "other (validation): 1 of 2 lines have characters that the network does not write, and are left out: ß\n"
    )
    (other / "3.txt").write_text("ß")
    config = SourceConfig(folders=(folder / ".." / "lines",), validate=(other / ".." / "other",))
    assert sides(config) == ({"1", "2"}, set())
    assert "other (validation): every line (2) has characters" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "wanted"), [(299, 150), (151, 150), (300, 150), (7, 3)])
def test_lines_are_taken_from_all_over(there: int, wanted: int) -> None:
    taken = evenly_spread(range(there), wanted)
    assert len(set(taken)) == wanted
    assert taken[-1] >= there - there / wanted - 1
    gaps = {b - a for a, b in pairwise(taken)}
    assert max(gaps) - min(gaps) <= 1
    assert evenly_spread(range(there), None) == evenly_spread(range(there), there + 1) == list(range(there))


def test_a_folder_too_small_to_hold_lines_out_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    add(folder, "1", written())
    assert held_out_samples(folder, LINE, 0.0) == []
    assert capsys.readouterr().err == ""
    assert held_out_samples(folder, LINE, 0.1) == []
    assert capsys.readouterr().err == f"{folder}: too few lines to hold any out; it is not validated on\n"


def test_iam_without_validation_forms_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = tmp_path / "lines" / "a01" / "a01-000u"
    form.mkdir(parents=True)
    (form / "a01-000u-00.png").write_bytes(png(written()))
    (tmp_path / "lines.txt").write_text("a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE\n")
    ((name, _, make),) = make_sources(SourceConfig(iam=tmp_path, iam_ids="all"))
    assert (name, make(np.random.default_rng(0))[1]) == ("iam", "A MOVE")
    assert kept_back(SourceConfig(iam=tmp_path)) == {}
    assert capsys.readouterr().err == (
        f"the IAM database is not validated on: {tmp_path}/lines.txt: none of its 1 lines is among the 116 ids "
        "wanted\n"
    )


def test_the_preview_leaves_out_what_is_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "own", tmp_path / "preview.png"
    add(folder, "dot", np.zeros((1, 1), np.uint8))
    config = SourceConfig(folders=(folder,))
    with pytest.raises(ValueError, match="no usable line image"):
        preview.contact_sheet(config, 3, 1)
    other = tmp_path / "other"
    add(other, "dot", np.zeros((1, 1), np.uint8))
    add(other, "low", np.tile(np.array([255, 0, 0], np.uint8), (3, 60)), "low")
    arguments = ["preview", "--data", str(tmp_path), "--folder", str(other), "--out", str(out)]
    sheet = preview.contact_sheet(SourceConfig(folders=(other,)), 30, 1)
    assert sheet.shape[0] == 18 + 30 * (18 + 66)
    assert "other/dot.png skipped" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", arguments)
    assert preview.main() == 2  # no packs there
    assert "preview: " in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["preview", "--folder", str(other), "--lines", "2", "--out", str(out)])
    assert preview.main() == 0  # own lines alone
    drawn = cv2.imread(str(out))
    assert drawn is not None
    assert drawn.shape[0] == 18 + 2 * (18 + 66)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--fonts", str(tmp_path)])
    assert preview.main() == 2
    assert capsys.readouterr().err.endswith("preview: --fonts needs --data (its text)\n")
    monkeypatch.setattr(sys, "argv", ["preview", "--lines", "0"])
    with pytest.raises(SystemExit):
        preview.main()


def test_the_preview_shows_long_lines_to_their_end(tmp_path: Path) -> None:
    pixels = np.full((48, 3000), 255, np.uint8)
    pixels[12:36, 10:90] = pixels[12:36, -90:-10] = 0
    add(tmp_path / "own", "long", pixels)
    sheet = preview.contact_sheet(SourceConfig(folders=(tmp_path / "own",)), 4, seed=1)[18:]
    for half in (sheet[:, :700], sheet[:, 700:]):
        for top in range(0, sheet.shape[0], sheet.shape[0] // 4):
            line = half[top + 20 : top + sheet.shape[0] // 4]
            assert line[:, :100].min() < 110  # ink; the frame is lighter
            assert line[:, 600:].min() < 110
