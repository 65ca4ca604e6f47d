"""The web page in a browser: what it shows of images that are handed in."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from helpers.toy_model import draw_image, draw_text
from helpers.web_page import words

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

LIMITS = {"max_image_bytes": 4 << 20, "max_image_pixels": 3_000_000}


def test_upload_shows_words_and_their_places(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    boxes = []
    for number in range(2):
        page.locator(".word").nth(number).hover()
        box = page.locator("#mark").bounding_box()
        assert box is not None
        boxes.append(box)
        assert page.locator("#marked").inner_text().endswith("\u00a0%")
    picture = page.locator("#shown").bounding_box()
    assert picture is not None
    assert picture["x"] < boxes[0]["x"] < boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1
    assert boxes[1]["x"] + boxes[1]["width"] < picture["x"] + picture["width"]
    page.locator("#facts").hover()
    assert not page.locator("#mark").is_visible()
    assert page.inner_text("#marked") == ""


def test_other_readings_and_saving(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    with page.expect_download() as download:
        page.click("#save-json")
    record = json.loads(Path(download.value.path()).read_text())
    assert (record["file"], record["text"]) == ("one.png", "abc de")
    page.click("#others summary")
    others = page.locator("#alternatives button")
    assert re.search("\u2014\u00a0\\d+\u00a0%$", others.first.text_content() or "")  # no line begins with "%"
    if others.count() > 1:
        others.nth(1).click()
        assert others.nth(1).get_attribute("aria-pressed") == "true"
        second = record["alternatives"][1]
        assert page.inner_text("#text") == second["text"]
        assert f" {round(100 * second['confidence'])}\u00a0% sure" in page.inner_text("#facts")
        assert not page.locator("#legend").is_visible()
        others.first.click()
        assert words(page) == ["abc", "de"]
        assert f" {round(100 * record['confidence'])}\u00a0% sure" in page.inner_text("#facts")
        assert page.locator("#legend").is_visible()
        others.nth(1).click()
    with page.expect_download() as download:
        page.click("#save-text")
    assert Path(download.value.path()).read_text().strip() == page.inner_text("#text").strip()


def test_the_sample_is_read(page: Page) -> None:
    with page.expect_response("**/api/recognize*") as answer:
        page.click("#sample")
    assert answer.value.ok
    page.wait_for_selector("#facts:has-text('sample.png')")


def test_a_result_below_the_fold_is_brought_into_view(page: Page, images: list[str]) -> None:
    page.set_viewport_size({"width": 360, "height": 420})
    for file, place in ((images[0], "#text"), (images[2], "#problem")):
        page.reload()
        page.set_input_files("#files", file)
        page.wait_for_selector(f"{place}:visible")
        page.wait_for_function(
            "selector => { const box = document.querySelector(selector).getBoundingClientRect();"
            " return box.top >= 0 && box.top < innerHeight; }",
            arg=place,
        )


def test_a_bad_file_is_explained(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[2])
    page.wait_for_selector("#problem:visible")
    assert "not a readable picture" in page.inner_text("#problem")
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]


def test_a_bad_file_beside_a_good_one_is_explained(page: Page, images: list[str]) -> None:
    page.set_viewport_size({"width": 360, "height": 420})
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    page.set_input_files("#files", images[2])
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("bad.png: This file is not a readable picture")
    box = page.locator("#problem").bounding_box()
    assert box is not None
    assert -1 < box["y"] < 420
    page.locator("#rows button").click()
    assert not page.locator("#problem").is_visible()


def test_a_slow_server(page: Page, images: list[str]) -> None:
    held: list[Route] = []
    page.route("**/api/recognize*", lambda route: held.append(route))
    page.set_input_files("#files", images[:2])
    page.wait_for_selector("#busy:has-text('Reading 2 images')")
    while len(held) < 2:
        page.wait_for_timeout(20)
    two = Path(images[1]).read_bytes()
    held.sort(key=lambda route: route.request.post_data_buffer == two)  # they come in any order
    held[1].continue_()
    assert words(page) == ["cab"]
    assert page.inner_text("#busy") == "Reading one image …"
    with page.expect_download() as download:
        page.click("#save-tsv")
    assert Path(download.value.path()).read_text().splitlines()[1] == "one.png\t\t"
    held[0].continue_()
    page.wait_for_selector("#progress[value='2']", state="attached")
    assert page.inner_text("#busy") == ""


def test_an_answer_to_options_that_were_changed_since_does_not_count(page: Page, images: list[str]) -> None:
    held: list[Route] = []
    page.route("**/api/recognize*", lambda route: held.append(route))
    page.set_input_files("#files", images[0])
    while not held:
        page.wait_for_timeout(20)
    page.click("#options summary")
    page.select_option("#decoder", "greedy")
    while len(held) < 2:
        page.wait_for_timeout(20)
    held[1].continue_()
    assert words(page) == ["abc", "de"]
    answer = held[1].request.response()
    assert answer is not None
    with page.expect_response("**/api/recognize?") as late:
        held[0].fulfill(json={**answer.json(), "text": "late", "words": []})
    assert late.value.ok
    page.wait_for_timeout(100)
    assert words(page) == ["abc", "de"]


def test_copying_without_a_clipboard_object(page: Page, images: list[str]) -> None:
    """As over plain HTTP from another machine."""
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.click("#copy")
    page.wait_for_selector("#copy:has-text('Copied')")
    assert page.evaluate("document.activeElement.id") == "copy"
    page.evaluate("document.body.append(document.createElement('textarea'))")
    page.locator("textarea").focus()
    page.keyboard.press("Control+V")
    assert page.locator("textarea").input_value() == "abc de"


def test_a_state_that_stays_is_said_once(page: Page) -> None:
    page.clock.install()
    page.reload()
    page.wait_for_selector("#status[data-state=ready]")
    page.evaluate(
        """() => {
            window.written = 0;
            const observer = new MutationObserver((changes) => { window.written += changes.length; });
            observer.observe(document.getElementById("status"), {childList: true, subtree: true});
        }"""
    )
    for _ in range(3):  # the next question comes behind the last answer's handling
        with page.expect_response("**/api/status"):
            page.clock.fast_forward(11_000)
        page.wait_for_timeout(200)
    assert page.evaluate("window.written") == 0


def test_a_photograph_is_scaled_down_to_what_the_service_takes(page: Page, tmp_path: Path) -> None:
    line = cv2.resize(draw_text("abc de"), (4000, 1000), interpolation=cv2.INTER_AREA)
    photo = np.full((3000, 4000), 255, np.uint8)  # 12 million pixels in few bytes
    photo[1000:2000] = line
    file = tmp_path / "photo.jpg"
    cv2.imwrite(str(file), photo)
    with page.expect_response("**/api/recognize*") as answer:
        page.set_input_files("#files", str(file))
    assert answer.value.ok, answer.value.text()
    assert 2_900_000 < answer.value.json()["image_width"] * answer.value.json()["image_height"] <= 3_000_000
    assert words(page)[-1] == "de"


def test_transparency_of_a_large_image_is_white_paper(page: Page, tmp_path: Path) -> None:
    ink = 255 - cv2.resize(draw_text("abc de"), (4000, 1000), interpolation=cv2.INTER_AREA)
    file = tmp_path / "transparent.png"
    cv2.imwrite(str(file), cv2.merge([np.zeros_like(ink)] * 3 + [ink]))
    page.set_input_files("#files", str(file))
    assert words(page) == ["abc", "de"]


def test_a_file_that_is_too_large_for_its_few_pixels_is_written_anew(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(draw_image("abc de") + bytes(5 << 20))
    page.set_input_files("#files", str(file))
    assert words(page) == ["abc", "de"]


@pytest.mark.parametrize(
    ("confidence", "text"),
    [(0.95, "(nothing is written on it)"), (0.55, "(nothing could be read)")],
)
def test_no_text(page: Page, images: list[str], confidence: float, text: str) -> None:
    def empty(route: Route) -> None:
        answer = route.fetch()
        nothing = {"text": "", "words": [], "characters": [], "alternatives": [], "confidence": confidence}
        route.fulfill(response=answer, json={**answer.json(), **nothing})

    page.route("**/api/recognize*", empty)
    page.set_input_files("#files", images[0])
    page.wait_for_selector("#result:visible")
    assert page.inner_text("#text") == text
    assert ("sure" in page.inner_text("#facts")) == (confidence > 0.9)  # not sure of what it could not read
    assert page.is_hidden("#hint") == (confidence > 0.9)  # it is a page, perhaps
    assert page.locator("#copy").is_disabled()
    page.unroute("**/api/recognize*")
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    assert page.locator("#copy").is_enabled()


@pytest.mark.parametrize(
    ("width", "confidence", "asked"), [(300, 0.6, True), (300, 0.9, False), (301, 0.6, False)]
)
def test_a_page_is_asked_about(
    page: Page, images: list[str], width: int, confidence: float, asked: bool
) -> None:
    def answer(route: Route) -> None:
        real = route.fetch()
        shape = {"image_width": width, "image_height": 100, "confidence": confidence}
        route.fulfill(response=real, json={**real.json(), **shape})

    page.route("**/api/recognize*", answer)
    page.set_input_files("#files", images[0])
    page.wait_for_selector("#result:visible")
    assert page.locator("#hint").is_visible() == asked


def test_what_failed_for_a_while_can_be_tried_again(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[2])
    page.wait_for_selector("#problem:visible")
    assert not page.locator("#retry").is_visible()  # it would fail again
    page.route("**/api/recognize*", lambda route: route.abort())
    page.set_input_files("#files", images[0])
    page.wait_for_selector("#again:has-text('Try the failed image again')")
    full = {"error": {"reason": "OVERLOADED", "message": "full"}}
    page.route("**/api/recognize*", lambda route: route.fulfill(status=429, json=full))
    page.set_input_files("#files", images[1])
    page.wait_for_selector("#again:has-text('Try 2 failed images again')")
    page.unroute("**/api/recognize*")
    page.click("#again")
    assert words(page) == ["cab"]
    page.wait_for_selector("#progress[value='3']", state="attached")
    assert page.locator("#rows button").all_inner_texts() == ["abc de", "cab"]
    assert not page.locator("#retry").is_visible()
    assert not page.locator("#problem").is_visible()


def test_what_waits_is_kept_back_while_the_server_is_away(page: Page, images: list[str]) -> None:
    away = {"error": {"reason": "UNAVAILABLE", "message": "nobody answers"}}
    asked: list[Route] = []

    def refuse(route: Route) -> None:
        asked.append(route)
        route.fulfill(status=503, json=away)

    page.route("**/api/recognize*", refuse)
    page.route("**/api/status", lambda route: route.fulfill(json={"ready": False, "limits": LIMITS}))
    page.set_input_files("#files", [images[0]] * 12)
    page.wait_for_selector("#busy:has-text('Waiting for the server to read 8 images')")
    page.wait_for_selector("#status[data-state=away]")
    with page.expect_response("**/api/status"):  # it is still away
        pass
    assert len(asked) == 4  # those that were on their way
    assert page.inner_text("#count") == "4 of 12, 4 could not be read"
    page.unroute("**/api/recognize*")
    page.unroute("**/api/status")
    page.wait_for_selector("#again:has-text('Try 4 failed images again')")
    assert page.inner_text("#count") == "12 of 12, 4 could not be read"
    page.click("#again")
    page.wait_for_selector("#count:text-is('12 of 12')")


def test_a_file_that_has_changed(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    with Path(images[0]).open("ab") as file:
        file.write(b"more")
    page.click("#options summary")
    page.select_option("#decoder", "greedy")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem") == "The file has changed or cannot be read; choose it again."


def test_a_very_long_line_can_be_followed(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "long.png"
    file.write_bytes(draw_image("abc de " * 30))
    page.set_input_files("#files", str(file))
    assert len(words(page)) == 60
    picture = page.locator("#picture").bounding_box()
    image = page.locator("#shown").bounding_box()
    assert picture is not None
    assert image is not None
    assert image["height"] == pytest.approx(48, abs=1)
    assert image["width"] > 2 * picture["width"]
    for number in (59, 0):
        page.locator(".word").nth(number).hover()
        place = page.locator("#mark").bounding_box()
        assert place is not None
        assert picture["x"] <= place["x"] < place["x"] + place["width"] <= picture["x"] + picture["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    page.wait_for_selector("#picture.more-right:not(.more-left)")  # it fades where there is more of it
    page.locator(".word").nth(59).hover()
    page.wait_for_selector("#picture.more-left:not(.more-right)")
    page.mouse.move(0, 0)
    page.set_input_files("#files", str(file))
    page.wait_for_selector("#picture.more-right:not(.more-left)")  # another image begins at its beginning


def test_a_line_that_nearly_fits_is_shown_whole(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    cv2.imwrite(str(file), cv2.resize(draw_text("abc de"), (1500, 60)))
    page.set_input_files("#files", str(file))
    page.wait_for_selector("#facts:has-text('wide.png')")
    page.wait_for_function("document.getElementById('shown').complete")
    hidden = (
        "(() => { const p = document.getElementById('picture'); return p.scrollWidth - p.clientWidth; })()"
    )
    assert page.evaluate(hidden) == 0
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_selector("#picture.more-right")
    assert page.evaluate(hidden) > 500
    assert page.locator("#picture").get_attribute("tabindex") == "0"


def test_a_file_that_the_browser_cannot_show(page: Page, images: list[str], tmp_path: Path) -> None:
    file = tmp_path / "line.tif"
    file.write_bytes(draw_image("cab", "TIFF"))
    page.set_input_files("#files", [images[0], str(file)])
    page.wait_for_selector("#facts:has-text('line.tif')")
    assert words(page) == ["cab"]
    page.wait_for_selector("#unseen:visible")
    assert page.inner_text("#unseen") == "Your browser cannot show line.tif"
    assert not page.locator("#picture").is_visible()
    assert (
        page.locator("#rows tr").nth(1).locator(".picture").inner_text()
        == "Your browser cannot show line.tif"
    )
    page.locator("#rows button").nth(0).click()
    assert page.locator("#shown").is_visible()
    assert not page.locator("#unseen").is_visible()


@pytest.mark.parametrize(
    ("rotation", "sent"),
    [(90, cv2.ROTATE_90_COUNTERCLOCKWISE), (180, cv2.ROTATE_180), (270, cv2.ROTATE_90_CLOCKWISE)],
)
def test_a_line_that_the_server_turned_is_shown_as_it_was_read(
    page: Page, tmp_path: Path, rotation: int, sent: int
) -> None:
    upright = draw_text("abc de")
    cv2.imwrite(str(tmp_path / "turned.png"), cv2.rotate(upright, sent))

    def turn(route: Route) -> None:
        answer = route.fetch(post_data=draw_image("abc de"))
        route.fulfill(response=answer, json={**answer.json(), "rotation": rotation})

    page.route("**/api/recognize*", turn)
    page.set_input_files("#files", str(tmp_path / "turned.png"))
    page.wait_for_selector(f"#facts:has-text('turned by {rotation}°')")
    shown = page.evaluate(
        """async () => {
            const image = document.getElementById("shown");
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png").split(",")[1];
        }"""
    )
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(shown), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    assert np.array_equal(pixels, upright)


def test_a_batch_goes_on_after_a_failure(page: Page, images: list[str]) -> None:
    odd = Path(images[1]).rename(Path(images[1]).with_name("a\ttwo\n.png"))
    page.set_input_files("#files", [images[0], images[2], str(odd)])
    page.wait_for_selector("#progress[value='3']", state="attached")
    assert "3 of 3, 1 could not be read" in page.inner_text("#count")
    rows = page.locator("#rows tr")
    assert rows.count() == 3
    assert "not a readable picture" in rows.nth(1).inner_text()
    rows.nth(0).locator("button").click()
    assert words(page) == ["abc", "de"]
    assert [row.get_attribute("aria-current") for row in rows.all()] == ["true", None, None]
    with page.expect_download() as download:
        page.click("#save-tsv")
    table = Path(download.value.path()).read_text().splitlines()
    assert table[0] == "file\tconfidence\ttext"
    assert table[2].startswith("bad.png\t\tERROR: This file is not a readable picture")
    assert table[3].split("\t")[::2] == ["a two .png", "cab"]
    # The browser holds the images for as long as they have addresses.
    shown = page.locator("#rows img").evaluate_all("(images) => images.map((image) => image.src)")
    page.evaluate("window.freed = []; URL.revokeObjectURL = (address) => window.freed.push(address)")
    page.click("#forget")
    assert not page.locator("#batch").is_visible()
    assert len(shown) == 2
    assert set(shown) <= set(page.evaluate("window.freed"))
