"""Readings in the formats of archives and libraries, which are XML: ALTO 4, hOCR 1.2 and PAGE 2019."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from pathlib import Path

from longhand_client.results import Span, Transcription

ALTO = "http://www.loc.gov/standards/alto/ns-v4#"
XHTML = "http://www.w3.org/1999/xhtml"
PAGE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
# XML 1.0 cannot hold control characters; a reading never has them, a file name may.
_CONTROL = dict.fromkeys(range(32))


def to_alto(name: str, transcription: Transcription) -> str:
    """An ALTO 4 document of one line image.

    Args:
        name: the image's file name.
        transcription: a reading with words (and characters, which become glyphs).

    Returns:
        The XML text; positions in pixels of the image as it was sent.
    """
    width, height = (str(side) for side in transcription.sent_size)
    box = {"HPOS": "0", "VPOS": "0", "WIDTH": width, "HEIGHT": height}
    root = ET.Element("alto", {"xmlns": ALTO})
    description = ET.SubElement(root, "Description")
    ET.SubElement(description, "MeasurementUnit").text = "pixel"
    source = ET.SubElement(description, "sourceImageInformation")
    ET.SubElement(source, "fileName").text = name.translate(_CONTROL)
    processing = ET.SubElement(description, "Processing", ID="processing_1")
    software = ET.SubElement(processing, "processingSoftware")
    ET.SubElement(software, "softwareName").text = "Longhand"
    model = f"model {transcription.model} {transcription.model_version}"
    ET.SubElement(software, "applicationDescription").text = model
    layout = ET.SubElement(root, "Layout")
    page = ET.SubElement(layout, "Page", ID="page_1", PHYSICAL_IMG_NR="1", WIDTH=width, HEIGHT=height)
    space = ET.SubElement(page, "PrintSpace", box)
    block = ET.SubElement(space, "TextBlock", {"ID": "block_1", **box})
    line = ET.SubElement(block, "TextLine", {"ID": "line_1", **box})
    for number, (word, characters) in enumerate(_words(transcription), 1):
        if number > 1:
            ET.SubElement(line, "SP")
        string = ET.SubElement(
            line,
            "String",
            {
                "ID": f"word_{number}",
                "CONTENT": word.text,
                "WC": _score(word),
                **_extent(transcription, word),
            },
        )
        for index, character in enumerate(characters, 1):
            ET.SubElement(
                string,
                "Glyph",
                {
                    "ID": f"glyph_{number}_{index}",
                    "CONTENT": character.text,
                    "GC": _score(character),
                    **_extent(transcription, character),
                },
            )
    return _text(root)


def to_hocr(name: str, transcription: Transcription) -> str:
    """An hOCR 1.2 document of one line image.

    Args:
        name: the image's file name.
        transcription: a reading with words.

    Returns:
        The XHTML text; positions in pixels of the image as it was sent.
    """
    width, height = transcription.sent_size
    box = f"bbox 0 0 {width} {height}"
    root = ET.Element("html", {"xmlns": XHTML})
    head = ET.SubElement(root, "head")
    ET.SubElement(head, "title").text = name.translate(_CONTROL)
    ET.SubElement(head, "meta", {"http-equiv": "Content-Type", "content": "text/html; charset=utf-8"})
    model = f"model {transcription.model} {transcription.model_version}"
    ET.SubElement(head, "meta", name="ocr-system", content=f"Longhand, {model}")
    ET.SubElement(head, "meta", name="ocr-capabilities", content="ocr_page ocr_line ocrx_word")
    quoted = name.translate(_CONTROL).replace('"', "'")  # hOCR has no way to write one
    page = _hocr(
        ET.SubElement(root, "body"), "div", "ocr_page", "page_1", f'image "{quoted}"; {box}; ppageno 0'
    )
    line = _hocr(page, "span", "ocr_line", "line_1", box)
    for number, (word, _) in enumerate(_words(transcription), 1):
        place = " ".join(str(round(edge)) for edge in transcription.box(word))
        title = f"bbox {place}; x_wconf {round(100 * word.confidence)}"
        _hocr(line, "span", "ocrx_word", f"word_{number}", title).text = word.text
    return _text(root)


def to_page(name: str, transcription: Transcription, created: datetime.datetime) -> str:
    """A PAGE 2019-07-15 document of one line image.

    Args:
        name: the image's file name.
        transcription: a reading with words (and characters, which become glyphs).
        created: when it was read.

    Returns:
        The XML text; positions in pixels of the image as it was sent.
    """
    width, height = transcription.sent_size
    root = ET.Element("PcGts", {"xmlns": PAGE})
    metadata = ET.SubElement(root, "Metadata")
    model = f"{transcription.model} {transcription.model_version}"
    ET.SubElement(metadata, "Creator").text = f"Longhand, model {model}"
    stamp = created.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ET.SubElement(metadata, "Created").text = stamp
    ET.SubElement(metadata, "LastChange").text = stamp
    size = {"imageWidth": str(width), "imageHeight": str(height)}
    page = ET.SubElement(root, "Page", {"imageFilename": Path(name).name.translate(_CONTROL), **size})
    whole = Span(transcription.text, transcription.confidence, 0, transcription.image_width)
    region = ET.SubElement(page, "TextRegion", id="region_1")
    _coordinates(region, transcription, whole)
    line = ET.SubElement(region, "TextLine", id="line_1")
    _coordinates(line, transcription, whole)
    for number, (word, characters) in enumerate(_words(transcription), 1):
        element = ET.SubElement(line, "Word", id=f"word_{number}")
        _coordinates(element, transcription, word)
        for index, character in enumerate(characters, 1):
            glyph = ET.SubElement(element, "Glyph", id=f"glyph_{number}_{index}")
            _coordinates(glyph, transcription, character)
            _equivalent(glyph, character)
        _equivalent(element, word)
    _equivalent(line, whole)
    return _text(root)


def _words(transcription: Transcription) -> list[tuple[Span, list[Span]]]:
    """Each word with its characters; the spaces between words belong to none."""
    characters = [one for one in transcription.characters if not one.text.isspace()]
    pairs: list[tuple[Span, list[Span]]] = []
    for word in transcription.words:
        pairs.append((word, characters[: len(word.text)]))
        characters = characters[len(word.text) :]
    return pairs


def _hocr(parent: ET.Element, tag: str, kind: str, name: str, title: str) -> ET.Element:
    return ET.SubElement(parent, tag, {"class": kind, "id": name, "title": title})


def _coordinates(parent: ET.Element, transcription: Transcription, span: Span) -> None:
    left, top, right, bottom = (round(edge) for edge in transcription.box(span))
    points = f"{left},{top} {right},{top} {right},{bottom} {left},{bottom}"
    ET.SubElement(parent, "Coords", points=points)


def _equivalent(parent: ET.Element, span: Span) -> None:
    equivalent = ET.SubElement(parent, "TextEquiv", conf=_score(span))
    ET.SubElement(equivalent, "Unicode").text = span.text


def _extent(transcription: Transcription, span: Span) -> dict[str, str]:
    left, top, right, bottom = transcription.box(span)
    sides = {"HPOS": left, "WIDTH": right - left, "VPOS": top, "HEIGHT": bottom - top}
    return {name: f"{value:.1f}" for name, value in sides.items()}


def _score(span: Span) -> str:
    return f"{span.confidence:.4f}"


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
