"""The page in a real browser: it draws, asks for nothing, runs nothing, and everybody can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mergerisk.audit import judge
from mergerisk.audit.page import to_html
from tests.report.browser import grave_faults, needs_chromium, opened, started_browser

from .test_verdict import EPSILONS, accuracy, audit, outcomes, rows, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from mergerisk.audit import Verdict

pytestmark = needs_chromium

HOSTILE = '<img src="https://example.org/x" onerror="alert(1)"><script>alert(2)</script>' + "very_long_" * 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def full() -> Verdict:
    """Two models, two gates, and nine surrogates, one of them hostile."""
    import pandas as pd

    low, high = EPSILONS
    names = [HOSTILE, *(f"ingredient_{number}" for number in range(6))]
    more = [
        row
        for place, name in enumerate(names)
        for model in ("ties", "average")
        for attack in ("weak", "strong")
        for row in rows(model, name, attack, {low: 10 + 5 * place, high: 40 + 8 * place})
    ]
    return judge(
        audit(
            ingredients={"a": "a.safetensors", **dict.fromkeys(names, "x.safetensors")},
            fail_if=["asr > 0.5 at 2/255", "clean_accuracy < 50%"],
        ),
        pd.concat([outcomes(), pd.DataFrame(more)], ignore_index=True),
        accuracy(ties=0.8, average=0.7),
    )


def test_the_page_draws_and_runs_nothing(browser: Browser, full: Verdict, tmp_path: Path) -> None:
    with opened(browser, to_html(full), tmp_path) as found:
        page = found.page
        curves = len(full.subject.curves)
        assert curves == 10
        assert page.locator(".plot > svg .line").count() == curves
        assert page.locator(".legend li").count() == curves
        looks = page.locator(".legend .mark").evaluate_all(
            "marks => marks.map(mark => mark.getAttribute('class') + mark.getAttribute('d'))"
        )
        assert len(set(looks)) == curves, "two surrogates look alike"
        assert page.locator(".legend .dashed").count() == 1
        assert page.locator(".verdict").inner_text() == "✗ Not to be released: ties fails 1 of 2 gates"
        assert page.locator(".gates .failed").count() == 1
        assert HOSTILE in page.locator(".legend").inner_text()
        assert page.locator("img, script").count() == 0
        assert (found.dialogs, found.complaints, found.requests) == ([], [], [])


def test_without_gates_nothing_is_passed_or_failed(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, to_html(verdict()), tmp_path) as found:
        assert found.page.locator(".verdict, .failed, .passed").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_grave_fault_of_accessibility_and_no_scrolling_sideways(
    browser: Browser, full: Verdict, tmp_path: Path, scheme: str, width: int
) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    with opened(browser, to_html(full), tmp_path, **look) as found:
        page = found.page
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert grave_faults(page) == []


def test_a_usual_audit_prints_on_one_page(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, to_html(verdict("asr > 0.5 at 2/255")), tmp_path) as found:
        printed = found.page.pdf(format="A4", print_background=True)
        assert printed.count(b"/Type /Page\n") == 1
