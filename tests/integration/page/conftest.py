"""The web page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from helpers.web_process import WebProcess, running_web

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def web(server: ServerProcess) -> Iterator[WebProcess]:
    with running_web(server.address) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra 'dev')")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
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
