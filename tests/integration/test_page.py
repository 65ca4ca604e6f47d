"""The web page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image, draw_text, write_bundle
from helpers.web_process import WebProcess, running_web

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra 'dev')")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route


@pytest.fixture(scope="module")
def web(server: ServerProcess) -> Iterator[WebProcess]:
    with running_web(server.address) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as which containers often run.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, web: WebProcess) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(web.url)
    page.wait_for_selector("#status[data-state=ready]")
    yield page
    context.close()
    assert not problems


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for name, text in (("one", "abc de"), ("two", "cab")):
        (tmp_path / f"{name}.png").write_bytes(draw_image(text))
    (tmp_path / "bad.png").write_bytes(b"no image at all")
    return [str(tmp_path / f"{name}.png") for name in ("one", "two", "bad")]


def words(page: Page) -> list[str]:
    page.wait_for_selector(".word")
    return page.locator(".word").all_inner_texts()


def test_upload_shows_words_and_their_places(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    boxes = []
    for number in range(2):
        page.locator(".word").nth(number).hover()
        box = page.locator("#mark").bounding_box()
        assert box is not None
        boxes.append(box)
    picture = page.locator("#shown").bounding_box()
    assert picture is not None
    assert picture["x"] < boxes[0]["x"] < boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1
    assert boxes[1]["x"] + boxes[1]["width"] < picture["x"] + picture["width"]
    page.locator("#facts").hover()
    assert not page.locator("#mark").is_visible()


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
        assert page.inner_text("#text") == record["alternatives"][1]["text"]
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


@pytest.mark.parametrize(
    ("confidence", "text"),
    [(0.95, "(nothing is written on it)"), (0.55, "(nothing could be read: is it one line, upright?)")],
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


def test_a_batch_goes_on_after_a_failure(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", [images[0], images[2], images[1]])
    page.wait_for_selector("#progress[value='3']", state="attached")
    assert "3 of 3, 1 could not be read" in page.inner_text("#count")
    rows = page.locator("#rows tr")
    assert rows.count() == 3
    assert "not a readable picture" in rows.nth(1).inner_text()
    rows.nth(0).locator("button").click()
    assert words(page) == ["abc", "de"]
    with page.expect_download() as download:
        page.click("#save-tsv")
    table = Path(download.value.path()).read_text().splitlines()
    assert table[0] == "file\tconfidence\ttext"
    assert table[3].endswith("\tcab")
    page.click("#forget")
    assert not page.locator("#batch").is_visible()


def write(page: Page, left: int = 60) -> None:
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + left, box["y"] + 100)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(box["x"] + left + 4 * step, box["y"] + 100 - 30 * abs(math.sin(step / 3)))
    page.mouse.up()


def test_writing_on_the_page(page: Page) -> None:
    page.click("#tab-write")
    page.click("#read")
    assert "Write something first" in page.inner_text("#problem")
    write(page)
    with page.expect_response("**/api/recognize*") as answer:
        page.click("#read")
    assert answer.value.ok
    # The image is the stroke with a margin, twice as large, whatever the size of the writing area.
    reading = answer.value.json()
    assert reading["image_width"] == pytest.approx(2 * (4 * 39 + 32), abs=6)
    page.wait_for_selector("#result:visible")
    page.click("#clear")
    assert not page.locator("#result").is_visible()


def test_the_pad_stays_where_it_is_while_somebody_writes(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 420})
    page.click("#tab-write")
    before = page.evaluate("scrollY")
    write(page)
    page.wait_for_selector("#result:visible")
    page.wait_for_timeout(200)
    assert page.evaluate("scrollY") == before
    page.click("#read")
    page.wait_for_function("before => scrollY > before", arg=before)


def test_writing_joins_the_list(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[:2])
    page.wait_for_selector("#progress[value='2']", state="attached")
    page.click("#tab-write")
    for left in (60, 300):  # the second time the same line has grown
        write(page, left)
        with page.expect_response("**/api/recognize*") as answer:
            page.click("#read")
        assert answer.value.ok
        page.wait_for_selector("#progress[max='3'][value='3']", state="attached")
        assert page.locator("#rows .name").all_inner_texts() == ["one.png", "two.png", "writing.png"]
    assert answer.value.json()["image_width"] > 2 * (300 - 60)
    page.wait_for_selector("#facts:has-text('writing.png')")
    page.click("#clear")
    assert page.locator("#rows tr").count() == 3
    write(page)
    page.click("#read")
    page.wait_for_selector("#progress[max='4'][value='4']", state="attached")


def test_paste_and_drop(page: Page) -> None:
    for kind, data in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate(
            """([kind, data, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], kind + ".png", {type: "image/png"}));
                const event = new Event(kind, {bubbles: true, cancelable: true});
                Object.defineProperty(event, data, {value: transfer});
                document.body.dispatchEvent(event);
            }""",
            [kind, data, list(draw_image("cab"))],
        )
        page.wait_for_selector(f"#facts:has-text('{kind}.png')")
        assert words(page) == ["cab"]


def test_options_read_again(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[0])
    assert words(page) == ["abc", "de"]
    page.click("#options summary")
    with page.expect_response("**/api/recognize?decoder=greedy") as answer:
        page.select_option("#decoder", "greedy")
    assert answer.value.ok
    assert words(page) == ["abc", "de"]


def test_options_leave_the_chosen_image_in_view(page: Page, images: list[str]) -> None:
    page.set_input_files("#files", images[:2])
    page.wait_for_selector("#facts:has-text('two.png')")
    page.wait_for_selector("#progress[value='2']", state="attached")
    page.locator("#rows button").nth(0).click()
    page.click("#options summary")
    page.evaluate("document.getElementById('facts').textContent = ''")
    page.select_option("#decoder", "greedy")
    page.wait_for_selector("#progress[value='2']", state="attached")
    page.wait_for_selector("#facts:has-text('one.png')")
    assert words(page) == ["abc", "de"]


def test_keyboard_alone(page: Page, images: list[str]) -> None:
    # Playwright asks Chromium to hand file choosers over when the first listener comes, and does not wait
    # for it: one that came with the key press below was too late in one run of twenty.
    page.on("filechooser", lambda chooser: None)
    page.locator("#tab-image").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-write").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel-image").is_visible()
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(images[0])
    assert words(page) == ["abc", "de"]
    page.locator(".word").nth(1).focus()
    assert page.locator("#mark").is_visible()


def test_phone_width_needs_no_sideways_scrolling(
    browser: Browser, web: WebProcess, images: list[str]
) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, device_scale_factor=3, has_touch=True
    )
    page = context.new_page()
    page.goto(web.url)
    page.set_input_files("#files", images[:2])
    page.wait_for_selector("#progress[value='2']", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # The table's last column, too, however long a word in the column before it.
    page.evaluate("document.querySelector('#rows button').textContent = 'abcdefghij'.repeat(8)")
    sure = page.locator("#rows .sure").nth(0).bounding_box()
    assert sure is not None
    assert sure["x"] + sure["width"] <= 360
    small = page.evaluate(
        "[...document.querySelectorAll('.buttons button, [role=tab]')].filter(e => e.offsetParent)"
        ".filter(e => e.getBoundingClientRect().height < 44).length"
    )
    assert small == 0
    context.close()


def test_a_server_that_comes_later_is_noticed(browser: Browser, tmp_path: Path, images: list[str]) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    first = ServerProcess(bundle, tmp_path / "first")
    address = first.address
    with running_web(address) as web:
        page = browser.new_page()
        page.clock.install()
        page.goto(web.url)
        page.wait_for_selector("#status[data-state=ready]")
        first.stop()
        page.set_input_files("#files", images[0])
        page.wait_for_selector("#problem:visible")
        assert "cannot be reached" in page.inner_text("#problem")
        page.clock.fast_forward(11_000)  # while all is well it asks every 10 s
        page.wait_for_selector("#status[data-state=away]", timeout=20_000)
        second = ServerProcess(bundle, tmp_path / "second", "--port", address.rpartition(":")[2])
        page.wait_for_selector("#status[data-state=ready]", timeout=20_000)
        page.set_input_files("#files", images[1])
        assert words(page) == ["cab"]
        second.stop()
        page.close()


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_rules(browser: Browser, web: WebProcess, images: list[str], scheme: str) -> None:
    # The page's own policy would keep the checker out.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(web.url)
    page.set_input_files("#files", images)
    page.wait_for_selector("#progress[value='3']", state="attached")
    for selector in ("#options summary", "#tab-write", "#others summary"):
        if page.locator(selector).is_visible():
            page.click(selector)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then(result => result.violations)")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []
    context.close()
