"""What stands on the web page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def words(page: Page) -> list[str]:
    page.wait_for_selector(".word")
    return page.locator(".word").all_inner_texts()
