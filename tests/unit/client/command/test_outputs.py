from __future__ import annotations

import dataclasses
import datetime
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from longhand_client import Alternative, InvalidImageError, LonghandError, Span, Timings, Transcription
from longhand_client.command.archive import ALTO, PAGE, to_alto, to_hocr, to_page
from longhand_client.command.drawing import draw_reading
from longhand_client.command.outputs import Details, JsonWriter, TextWriter, TsvWriter, finished_names
from longhand_client.command.progress import Progress

READING = Transcription(
    text="à b<",
    confidence=0.875,
    alternatives=(Alternative("à b<", 0.875, -1, -1, 0), Alternative("a b", 0.1, -3, -3, 0)),
    words=(Span("à", 0.9, 2.0, 12.4), Span("b<", 0.5, 20.0, 40.0)),
    characters=(
        Span("à", 0.9, 2.0, 12.4),
        Span(" ", 0.9, 12.4, 20.0),
        Span("b", 0.25, 20.0, 30.0),
        Span("<", 1.0, 30.0, 40.0),
    ),
    timings=Timings(1, 2, 3, 4, 5, 6),
    model="en",
    model_version="1.0.0",
    image_width=60,
    image_height=20,
)
EVERYTHING = Details(names=True, alternatives=True, words=True, characters=True)


def test_text() -> None:
    stream = io.StringIO()
    TextWriter(stream, Details()).write("x.png", READING, {})
    TextWriter(stream, EVERYTHING).write("x.png", READING, {})
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["à b<", "x.png: à b<"]
    assert lines[2:4] == ["    0.88  à b<", "    0.10  a b"]
    assert lines[5] == "       20.0    40.0  0.50  b<"
    assert len(lines) == 2 + 2 + 2 + 4


def test_names_give_a_terminal_no_orders() -> None:
    stream = io.StringIO()
    TextWriter(stream, EVERYTHING).write("a\x1b[2Jé\n\udcff.png", READING, {})
    assert stream.getvalue().startswith("a\\x1b[2Jé\\n\udcff.png: ")


def test_readings_of_a_server_cannot_steer_a_terminal() -> None:
    stream = io.StringIO()
    reading = dataclasses.replace(
        READING, text="a\x1b[2J\nb", alternatives=(Alternative("\x9b1m", 0.5, -1, -1, 0),)
    )
    TextWriter(stream, Details(alternatives=True)).write("a.png", reading, {})
    assert stream.getvalue() == "a\\x1b[2J\\nb\n    0.50  \\x9b1m\n"


def test_json_is_lean_unless_asked() -> None:
    stream = io.StringIO()
    JsonWriter(stream, Details()).write("x.png", READING, {"cer": 0.5})
    assert json.loads(stream.getvalue()) == {
        "file": "x.png",
        "text": "à b<",
        "confidence": 0.875,
        "cer": 0.5,
    }
    assert "à" in stream.getvalue()


def test_json_with_everything() -> None:
    stream = io.StringIO()
    JsonWriter(stream, EVERYTHING).write("x.png", READING, {})
    record = json.loads(stream.getvalue())
    assert record["alternatives"][1]["text"] == "a b"
    assert record["words"][1] == {"text": "b<", "confidence": 0.5, "x_start": 20.0, "x_end": 40.0}
    assert len(record["characters"]) == 4


def test_tsv_escapes_what_would_break_a_row(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    name = "tab\there\\t\nline.png"
    with path.open("w", newline="") as stream:
        TsvWriter(stream, Details(alternatives=True)).write(name, READING, {})
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert rows[0] == ["file", "rank", "confidence", "text"]
    assert [row[1:] for row in rows[1:]] == [["1", "0.8750", "à b<"], ["2", "0.1000", "a b"]]
    assert finished_names(path, "tsv") == {name}
    row = io.StringIO()
    TsvWriter(row, Details(), header=False).write("x.png", dataclasses.replace(READING, text="a\\n"), {})
    assert row.getvalue() == "x.png\t1\t0.8750\ta\\\\n\n"


def test_finished_names_drops_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text('{"file": "a.png"}\n{"file": "b.png"}\n{"file": "c.p')
    assert finished_names(path, "json") == {"a.png", "b.png"}
    assert path.read_text().endswith('"b.png"}\n')
    assert finished_names(tmp_path / "new.json", "json") == set()


@pytest.mark.parametrize(
    ("kind", "line"), [("json", "no json"), ("json", "[]"), ("json", "{}"), ("tsv", "a\tb")]
)
def test_files_of_another_kind_are_not_continued(tmp_path: Path, kind: str, line: str) -> None:
    path = tmp_path / "out"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=rf"line 1 is no {kind} record"):
        finished_names(path, kind)
    assert path.read_text() == f"{line}\n"


def test_alto() -> None:
    root = ET.fromstring(to_alto("a&b.png", READING))
    names = {"a": ALTO}
    strings = root.findall(".//a:TextLine/a:String", names)
    assert [one.get("CONTENT") for one in strings] == ["à", "b<"]
    assert [(one.get("HPOS"), one.get("WIDTH"), one.get("WC")) for one in strings] == [
        ("2.0", "10.4", "0.9000"),
        ("20.0", "20.0", "0.5000"),
    ]
    assert len(root.findall(".//a:SP", names)) == 1
    glyphs = root.findall(".//a:Glyph", names)
    assert [glyph.get("CONTENT") for glyph in glyphs] == ["à", "b", "<"]
    page = root.find(".//a:Page", names)
    assert page is not None
    assert (page.get("WIDTH"), page.get("HEIGHT")) == ("60", "20")
    assert root.findtext(".//a:fileName", namespaces=names) == "a&b.png"
    identifiers = [one.get("ID") for one in root.iter() if one.get("ID")]
    assert len(identifiers) == len(set(identifiers))


def test_page() -> None:
    two_hours = datetime.timezone(datetime.timedelta(hours=2))
    when = datetime.datetime(2026, 1, 2, 5, 4, 5, tzinfo=two_hours)
    root = ET.fromstring(to_page("folder/a.png", READING, when))
    names = {"p": PAGE}
    assert root.findtext(".//p:Created", namespaces=names) == "2026-01-02T03:04:05Z"
    page = root.find("p:Page", names)
    assert page is not None
    assert page.attrib == {"imageFilename": "a.png", "imageWidth": "60", "imageHeight": "20"}
    line = root.find(".//p:TextLine", names)
    assert line is not None
    assert line.findtext("p:TextEquiv/p:Unicode", namespaces=names) == "à b<"
    # The schema asks for this order.
    assert [child.tag.split("}")[1] for child in line] == ["Coords", "Word", "Word", "TextEquiv"]
    coordinates = [one.get("points") for one in root.findall(".//p:Word/p:Coords", names)]
    assert coordinates == ["2,0 12,0 12,20 2,20", "20,0 40,0 40,20 20,20"]


def test_hocr() -> None:
    root = ET.fromstring(to_hocr("a.png", READING))
    words = [one for one in root.iter() if one.get("class") == "ocrx_word"]
    assert [(word.text, word.get("title")) for word in words] == [
        ("à", "bbox 2 0 12 20; x_wconf 90"),
        ("b<", "bbox 20 0 40 20; x_wconf 50"),
    ]
    (page,) = [one for one in root.iter() if one.get("class") == "ocr_page"]
    assert page.get("title") == 'image "a.png"; bbox 0 0 60 20; ppageno 0'


@pytest.mark.parametrize(
    ("rotation", "box"),
    [(90, (0.0, 47.6, 20.0, 58.0)), (180, (47.6, 0.0, 58.0, 20.0)), (270, (0.0, 2.0, 20.0, 12.4))],
)
def test_places_in_archives_are_those_of_the_image_as_it_was_sent(
    rotation: int, box: tuple[float, float, float, float]
) -> None:
    turned = dataclasses.replace(READING, rotation=rotation)
    assert turned.box(READING.words[0]) == box
    width, height = turned.sent_size
    assert (width, height) == ((60, 20) if rotation == 180 else (20, 60))
    left, top, right, bottom = (round(edge) for edge in box)
    assert f"bbox {left} {top} {right} {bottom}; x_wconf" in to_hocr("x.png", turned)
    assert f"bbox 0 0 {width} {height};" in to_hocr("x.png", turned)
    page = ET.fromstring(to_page("x.png", turned, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)))
    coordinates = page.find(f".//{{{PAGE}}}Word/{{{PAGE}}}Coords")
    assert coordinates is not None
    assert coordinates.get("points") == f"{left},{top} {right},{top} {right},{bottom} {left},{bottom}"
    string = ET.fromstring(to_alto("x.png", turned)).find(f".//{{{ALTO}}}String")
    assert string is not None
    sides = [float(string.get(name, "")) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    assert sides == pytest.approx([box[0], box[1], box[2] - box[0], box[3] - box[1]])


def test_a_drawing_shows_a_turned_line_the_right_way_up() -> None:
    grey = np.full((60, 20), 255, np.uint8)
    grey[58:, :] = 0  # at the bottom of what was sent: at the left once it is turned clockwise
    done, data = cv2.imencode(".png", grey)
    assert done
    drawn = draw_reading(data.tobytes(), dataclasses.replace(READING, rotation=90))
    picture = np.asarray(Image.open(io.BytesIO(drawn)).convert("L"))
    assert picture.shape == (20 + 16, 60)
    assert picture[:19, :2].max() == 0
    assert picture[:19, 2:].min() == 255


def test_control_characters_in_a_name_do_not_break_the_xml() -> None:
    ET.fromstring(to_alto("a\x01b.png", READING))
    ET.fromstring(to_hocr("a\x01b.png", READING))
    ET.fromstring(to_page("a\x01b.png", READING, datetime.datetime.now(datetime.UTC)))


def test_drawing_puts_ink_under_each_character() -> None:
    buffer = io.BytesIO()
    Image.new("L", (60, 20), 255).save(buffer, "PNG")
    picture = cv2.imdecode(
        np.frombuffer(draw_reading(buffer.getvalue(), READING), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    assert picture.shape == (36, 60, 3)
    assert (picture[:19] == 255).all()
    below = picture[20:].min(axis=(0, 2)) < 200
    assert below[20:40].any()
    assert not below[45:].any()
    # The unsure "b" is redder than the certain "<".
    blue_green_red = picture[21:, 20:40].reshape(-1, 20, 3).astype(int)
    redness = (blue_green_red[:, :, 2] - blue_green_red[:, :, 1]).max(axis=0)
    assert redness[:10].max() > redness[10:].max()


def test_drawing_letters_that_stand_close_together() -> None:
    """At the size of the line six letters of 20 pixels would lie over each other, their tails below the picture."""
    characters = tuple(Span("g", 1.0, 20.0 * k, 20.0 * (k + 1)) for k in range(6))
    buffer = io.BytesIO()
    Image.new("L", (120, 100), 255).save(buffer, "PNG")
    drawn = draw_reading(buffer.getvalue(), dataclasses.replace(READING, characters=characters))
    with Image.open(io.BytesIO(drawn)) as picture:
        below = np.asarray(picture.convert("L"))[120:] < 200  # below the marks of the places
    assert not below[-1].any()
    inked = below.any(axis=0).astype(int)
    assert (np.diff(inked, prepend=0) == 1).sum() == 6
    assert not inked[::20].any()


@pytest.mark.parametrize("letters", [[20.0] * 16, [20.0] * 15 + [1.0], [1.0] * 16])
def test_drawn_letters_can_be_read(letters: list[float]) -> None:
    """One narrow place, which is a slip, or nothing but narrow ones make no letters of a pixel."""
    characters = tuple(Span("H", 1.0, 25.0 * k, 25.0 * k + width) for k, width in enumerate(letters))
    buffer = io.BytesIO()
    Image.new("L", (400, 100), 255).save(buffer, "PNG")
    drawn = draw_reading(buffer.getvalue(), dataclasses.replace(READING, characters=characters))
    with Image.open(io.BytesIO(drawn)) as picture:
        below = np.asarray(picture.convert("L"))[120:] < 200
    height = int(below.any(axis=1).sum())
    assert height >= (15 if letters[0] == 20.0 else 5)


@pytest.mark.parametrize("white", [1023, 65535])
def test_drawing_more_than_eight_bits_as_eight(white: int) -> None:
    shades = np.tile(np.linspace(0, 255, 60, dtype=np.uint8), (20, 1))
    drawn = []
    for pixels in (shades, np.round(shades * (white / 255)).astype(np.uint16)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "TIFF")
        with Image.open(io.BytesIO(draw_reading(buffer.getvalue(), READING))) as picture:
            drawn.append(np.asarray(picture.convert("L"))[:19].astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


def test_drawing_something_that_is_no_image() -> None:
    with pytest.raises(LonghandError, match="cannot draw it"):
        draw_reading(b"nothing", READING)
    assert not issubclass(LonghandError, InvalidImageError)


def test_progress_that_nobody_would_see_is_not_written() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 10, enabled=False)
    for _ in range(10):
        progress.step()
    progress.clear()
    assert stream.getvalue() == ""


def test_progress_on_a_narrow_terminal_keeps_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    progress = Progress(stream, 10, enabled=True)
    progress.line = lambda elapsed_s: "[##..................] 1/10 (10 %), 9.5 lines/s, 0:01 left"  # type: ignore[method-assign]
    progress.step()
    assert stream.getvalue() == "\r\x1b[K1/10 (10 %), 9.5 lines/s, 0:01 left"


def test_progress_on_a_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 10, enabled=True)
    progress.INTERVAL_S = 5.0
    progress.step()
    assert stream.getvalue().startswith("\r\x1b[K[##..................] 1/10 (10 %), ")
    progress.step()
    assert stream.getvalue().count("\r") == 1  # not for every image of thousands
    assert progress.line(1.0) == "[####................] 2/10 (20 %), 2.0 lines/s, 0:04 left"
    assert Progress(stream, None, enabled=True).line(1.0) == "0 lines, 0.0 lines/s"
    slow = Progress(stream, 40_000, enabled=True)
    slow.step()
    assert slow.line(1.0).endswith("11:06:39 left")
