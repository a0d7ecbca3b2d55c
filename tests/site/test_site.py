"""The site builds strictly, asks for nothing from elsewhere, and can be searched as files lie on a disk."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.report.browser import needs_chromium, started_browser
from tests.test_pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # Material's notice on its own future
    made = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=quiet, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-4000:]
    assert "WARNING" not in made.stderr
    return folder


class Resources(html.parser.HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" or (tag == "link" and given.get("rel") in {"canonical", "next", "prev"}):
            return
        wanted = ("src", "href", "srcset", "poster", "data", "xlink:href", "action")
        self.found += [given[name] for name in wanted if given.get(name)]


def test_no_page_refers_to_a_resource_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 120
    for page in pages:
        reader = Resources()
        reader.feed(page.read_text(encoding="utf-8"))
        outside = [one for one in reader.found if one.startswith(("http:", "https:", "//"))]
        assert not outside, (page, outside)
        if page.name != "404.html":
            for one in reader.found:
                file = (page.parent / one.partition("?")[0].partition("#")[0]).resolve()
                assert one.startswith("data:") or file.exists(), (page, one)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert "url(http" not in text
        assert "@import" not in text


@pytest.fixture(scope="module")
def opened(site: Path) -> Iterator[tuple[Any, Path]]:
    with started_browser() as browser:
        yield browser, site


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_fit_and_ask_for_nothing_and_search_finds(opened: tuple[Any, Path], width: int, scheme: str) -> None:
    browser, site = opened
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for name in (
        "index",
        "methods/ties",
        "attacks",
        "causes",
        "api/index",
        "commands",
        "results/real-small",
        "glossary",
    ):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    found = "slate" if scheme == "dark" else "default"
    assert page.evaluate("document.body.getAttribute('data-md-color-scheme')") == found
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("breadcrumbs", delay=20)
    hit = page.locator(".md-search-result__link").first
    hit.wait_for(timeout=20_000)
    assert page.locator(".md-search-result__link[href*='breadcrumbs']").count()
    assert not complaints
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    context.close()


@needs_chromium
def test_pages_print_with_nothing_to_press_and_nothing_cut_off(opened: tuple[Any, Path]) -> None:
    browser, site = opened
    page = browser.new_page(viewport={"width": 688, "height": 1000})  # A4 less margins, in CSS pixels
    page.emulate_media(media="print")
    for name in ("attacks", "performance", "results/real-small", "methods/ties"):
        page.goto((site / f"{name}.html").as_uri())
        for part in (".md-header", ".md-sidebar", ".md-footer", ".md-clipboard", ".headerlink"):
            assert page.locator(f"{part}:visible").count() == 0, (name, part)
        beyond = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"
        assert page.locator(".md-typeset table, .md-typeset pre > code").evaluate_all(beyond) == 0, name
    page.close()
