"""The web page in a browser: ways to hand images in, options, keyboard, phones, and a server that comes later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image, write_bundle
from helpers.web_page import words
from helpers.web_process import WebProcess, running_web

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"


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
    page.wait_for_selector("#facts:has-text('two.png')")
    page.locator(".word").nth(0).hover()
    assert page.evaluate("legend.scrollWidth - legend.clientWidth") == 0  # the word's share is not cut off
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


@pytest.mark.parametrize("width", [360, 1200])
def test_long_names_need_no_sideways_scrolling(
    page: Page, images: list[str], tmp_path: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    files = [str(Path(file).rename(tmp_path / f"{'long_name_' * 20}{Path(file).name}")) for file in images]
    for some in (files[:1], files[2:]):
        page.set_input_files("#files", some)
        page.wait_for_selector("#problem:visible" if some == files[2:] else "#facts:has-text('one.png')")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_forced_colours_leave_one_tab_selected(browser: Browser, web: WebProcess) -> None:
    context = browser.new_context(forced_colors="active")
    page = context.new_page()
    page.goto(web.url)
    border = "(tab) => getComputedStyle(tab).borderBottomColor"
    assert page.locator("#tab-image").evaluate(border) != page.locator("#tab-write").evaluate(border)
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
