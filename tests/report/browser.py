"""Debian's Chromium, driven by Playwright: shared by the tests that try pages in a browser."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH: the page was not tried in a browser"
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def started_browser() -> Iterator[Browser]:
    """The system's Chromium; nothing is ever downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page, what it complained of, and what it asked for besides itself."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        self.requests = [url for url in self.requests if url != address and not url.startswith("data:")]


@contextmanager
def opened(browser: Browser, html: str, folder: Path, **context: Any) -> Iterator[Opened]:
    """The page in a context of its own, which is closed afterwards."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    made = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    try:
        yield Opened(made.new_page(), file.as_uri())
    finally:
        made.close()


def grave_faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical; the context must bypass the page's own policy."""
    page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]
