"""The page in a real browser: its script runs, everything can be reached, and names from outside run nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mergerisk.report import render_html
from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.pareto import pareto_front
from mergerisk.report.view import view_of

from .browser import grave_faults, needs_chromium, opened, started_browser
from .synthetic import METHODS, standing, standings_of, summary
from .test_report_page import HOSTILE, hostile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from mergerisk.report import Summary

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def full() -> Summary:
    plain = summary()
    claims = ({"sentence": "Surgery lowers the risk", "verdict": "holds", "p_value": 0.01},)
    return replace(plain, standings=standings_of(plain.results), claims=claims)


@pytest.fixture(scope="module")
def html(full: Summary) -> str:
    return render_html(full)


def test_page_draws_without_complaint_or_request(
    browser: Browser, full: Summary, html: str, tmp_path: Path
) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        assert page.evaluate("document.documentElement.dataset.ready") == "true"
        cells = len(full.run.tasks) * len(full.run.attacks) * (len(full.run.methods) + 2)
        assert page.locator("#heat td[data-cell]").count() == cells
        assert page.locator(".panel").count() == len(full.run.tasks)
        assert page.locator("svg.cd title").text_content()
        assert (found.complaints, found.requests) == ([], [])


def test_empty_study_draws_without_complaint(browser: Browser, tmp_path: Path) -> None:
    full = summary(examples=0)
    frames = {name: getattr(full, name).head(0) for name in ("results", "accuracy", "epsilon50", "flags")}
    with opened(browser, render_html(replace(full, **frames)), tmp_path) as found:
        assert found.page.evaluate("document.documentElement.dataset.ready") == "true"
        assert found.complaints == []


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    names = (HOSTILE + "method", "$x^2$ <img src=x onerror=alert(3)>")
    sentence = {"sentence": HOSTILE, "verdict": HOSTILE, "reason": HOSTILE, HOSTILE: HOSTILE}
    plain = hostile()
    known = tuple(standing(dict(zip(names, (0.1, 0.2), strict=True)), epsilon=e) for e in plain.run.epsilons)
    html = render_html(replace(plain, standings=known, claims=(sentence,)))
    with opened(browser, html, tmp_path) as found:
        page = found.page
        assert page.evaluate("document.documentElement.dataset.ready") == "true"
        page.locator("#filters summary").click()
        page.locator("#heat .sorter").nth(1).click()
        page.locator("#heat td[data-cell]").first.hover()
        assert HOSTILE in page.locator("#tip").inner_text()
        assert page.locator("img:not([src^='data:image/png'])").count() == 0
        assert page.locator("script").count() == 2
        assert (found.dialogs, found.complaints, found.requests) == ([], [], [])


def test_selectors_of_one_name_move_together(browser: Browser, full: Summary, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        before = page.locator("#heat tbody").inner_text()
        page.select_option("#transfer select[data-state=epsilon]", "0")
        assert page.locator("#heat tbody").inner_text() != before
        assert page.locator("#tradeoff select[data-state=epsilon]").input_value() == "0"
        page.select_option("#tradeoff select[data-state=risk]", "epsilon50")
        assert set(page.locator("#scatter text.name").all_text_contents()) == set(full.run.methods)
        lines = len(full.run.tasks) * (2 + 2)  # the safest and the riskiest, and the ingredients
        assert page.locator("#panels .series").count() == lines
        page.locator("#keys button[aria-pressed=true]").first.click()
        assert page.locator("#panels .series").count() == lines - len(full.run.tasks)


def test_heat_map_filters(browser: Browser, full: Summary, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        page.fill("#search", "SURGERY")
        assert page.locator("#heat tbody th").all_inner_texts() == [
            name for name in page.locator("#heat tbody th").all_inner_texts() if "surgery" in name
        ]
        assert page.locator("#heat tbody tr").count() == sum("surgery" in name for name in METHODS)
        page.locator("#filters summary").click()
        page.locator("[data-all=tasks][data-on=false]").click()
        page.get_by_label("letters", exact=True).check()
        page.get_by_label("fgsm", exact=True).uncheck()
        assert page.locator("#heat td[data-cell]").count() == 4 * (len(full.run.attacks) - 1)
        assert "4 of 10 targets, 1 of 7 tasks, 5 of 6 attacks shown" in page.locator("#heat-status").inner_text()
        # the mean is that of what is shown
        row = [int(text) for text in page.locator("#heat tbody tr").first.locator("td").all_inner_texts()]
        assert abs(row[0] - sum(row[1:]) / len(row[1:])) <= 1
        page.fill("#search", "nobody")
        assert "no target has this" in page.locator("#heat tbody").inner_text()


def test_heat_map_sorts_by_any_column_and_says_so(browser: Browser, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page

        def column() -> list[int]:
            rows = page.locator("#heat tbody tr:not(.reference)")
            return [int(rows.nth(i).locator("td").nth(5).inner_text()) for i in range(rows.count())]

        button = page.locator("#heat .sorter").nth(5)
        button.click()
        assert column() == sorted(column())
        assert page.locator("#heat th[aria-sort=ascending]").count() == 1
        assert page.evaluate("document.activeElement.className") == "sorter"
        page.keyboard.press("Enter")
        assert column() == sorted(column(), reverse=True)
        assert page.locator("#heat th[aria-sort=descending]").count() == 1


@pytest.mark.parametrize("how", ["hover", "keyboard", "tap"])
def test_a_cell_tells_interval_and_both_denominators(
    browser: Browser, full: Summary, html: str, tmp_path: Path, how: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, html, tmp_path, **(phone if how == "tap" else {})) as found:
        page = found.page
        cell = page.locator("#heat tbody td[data-cell]").nth(20)
        if how == "keyboard":
            page.locator("#heat tbody td").first.focus()
            for _ in range(21):
                page.keyboard.press("ArrowRight")
            assert cell.evaluate("cell => cell === document.activeElement")
        elif how == "hover":
            cell.scroll_into_view_if_needed()
            page.wait_for_timeout(150)  # the page closes explanations as it scrolls
            cell.hover()
        else:
            cell.tap()
        page.wait_for_timeout(150)  # scrolling into view must not close it again
        assert page.locator("#tip").is_visible()
        text = page.locator("#tip").inner_text()
        place = int(cell.get_attribute("data-cell") or -1)
        row = view_of(full).cells.iloc[place]
        assert f"{100 * row['asr']:.1f}% [{100 * row['asr_low']:.1f}, {100 * row['asr_high']:.1f}]" in text
        assert f"images both get right\n{row['images_both_correct']}" in text
        assert f"images attacked\n{row['images']}" in text
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()


def test_curves_are_read_by_keyboard(browser: Browser, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        page.locator("#panels svg").first.focus()
        page.keyboard.press("ArrowRight")
        first = page.locator("#tip").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#tip").inner_text() != first
        assert "adamerging" in first


def test_pareto_front_on_the_page_is_pythons(browser: Browser, full: Summary, html: str, tmp_path: Path) -> None:
    view = view_of(full)
    accuracy = mean_accuracy(full.accuracy, view.axes)
    expected = pareto_front({name: (accuracy[name].value, view.worst[name].asr.value) for name in METHODS})
    with opened(browser, html, tmp_path) as found:
        rows = found.page.locator("#ranking tbody tr:has(.tag) th").all_text_contents()
        assert sorted(row.removesuffix("best trade") for row in rows) == sorted(expected)


def test_examples_flip_by_mouse_keyboard_and_together(browser: Browser, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        strip = page.locator(".strip").first
        shown = strip.locator(".pictures img:visible")
        assert [shown.count(), shown.get_attribute("alt")] == [1, "Attacked image"]
        strip.get_by_label("clean").check()
        assert (shown.get_attribute("alt") or "").startswith("Clean image")
        page.keyboard.press("ArrowRight")
        assert "multiplied by 31" in (shown.get_attribute("alt") or "")
        page.locator("[data-flip=clean]").click()
        assert page.locator(".strip .clean img:visible").count() == page.locator(".strip").count()


def test_print_opens_everything_and_cuts_nothing_off(browser: Browser, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1032, "height": 700})
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert page.locator(".strip").first.locator(".pictures img:visible").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for box in page.locator(".scroll").all():
            assert box.evaluate("box => getComputedStyle(box).overflowX") == "visible"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_grave_fault_of_accessibility_and_no_scrolling_sideways(
    browser: Browser, html: str, tmp_path: Path, scheme: str, width: int
) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    with opened(browser, html, tmp_path, **look) as found:
        page = found.page
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.locator("#filters summary").click()
        assert grave_faults(page) == []


def test_of_methods_only_the_ends_are_drawn_at_first(browser: Browser, tmp_path: Path) -> None:
    many = tuple(f"method_{i}" for i in range(14))
    crowd = summary(tasks=("digits",), attacks=("fgsm",), methods=many, examples=0)
    with opened(browser, render_html(crowd), tmp_path) as found:
        page = found.page
        assert page.locator("#panels .series").count() == 2 + 2
        ranked = page.locator("#ranking tbody th").all_inner_texts()
        names = [text.split("\n")[0].removesuffix("best trade").strip() for text in ranked]
        drawn = [text for text in page.locator("#keys button[aria-pressed=true]").all_inner_texts() if "_" in text]
        assert set(drawn) == {names[0], names[-1]}
        page.get_by_role("button", name=names[6], exact=True).click()
        assert page.locator("#panels .series").count() == 2 + 3


def test_every_rate_of_heat_map_and_curves_is_in_a_table_with_interval_and_n(
    browser: Browser, full: Summary, html: str, tmp_path: Path
) -> None:
    with opened(browser, html, tmp_path) as found:
        page = found.page
        for fold, columns in (
            ("#heat-figures", len(full.run.attacks)),
            ("#curve-figures", len(full.run.epsilons)),
        ):
            page.locator(f"{fold} > summary").click()
            cells = page.locator(f"{fold} tbody td")
            cells.first.wait_for()
            assert cells.count() == len(full.run.tasks) * (len(METHODS) + 2) * columns
        place = int(page.locator("#heat tbody td[data-cell]").first.get_attribute("data-cell") or -1)
        row = view_of(full).cells.iloc[place]
        ends = f"[{100 * row['relative_asr_low']:.1f}, {100 * row['relative_asr_high']:.1f}]"
        first = page.locator("#heat-figures tbody td").first.inner_text().replace("\u00a0", " ")
        assert first.split() == f"{100 * row['relative_asr']:.1f}% {ends} n {row['images_both_correct']}".split()


def test_the_page_says_one_rate_of_a_model_whatever_draws_it(browser: Browser, html: str, tmp_path: Path) -> None:
    """Python's table of models, Python's picture of ranks, and the script's ranking."""
    with opened(browser, html, tmp_path) as found:
        page = found.page
        names = page.locator("#ranking tbody th").all_text_contents()
        rates = page.locator("#ranking tbody td:last-child").all_text_contents()
        script = {
            name.removesuffix("best trade"): text.split("%")[0] for name, text in zip(names, rates, strict=True)
        }
        rows = page.locator(".threat tbody tr:has(td)")
        table = {
            (rows.nth(i).locator("th").text_content() or "").removesuffix("best trade").strip():
            (rows.nth(i).locator(".rate b").text_content() or "").rstrip("%")
            for i in range(rows.count())
        }  # fmt: skip
        assert {name: table[name] for name in METHODS} == script
        ranks = page.locator(".cd").text_content() or ""
        assert all(f"{name} {rate}%" in ranks for name, rate in script.items())


@pytest.mark.parametrize("width", [1280, 390])
def test_first_screen_has_the_number_and_the_picture(
    browser: Browser, html: str, tmp_path: Path, width: int
) -> None:
    height = {1280: 800, 390: 844}[width]
    with opened(browser, html, tmp_path, viewport={"width": width, "height": height}) as found:
        page = found.page
        answers = page.locator(".answer").all()
        assert len(answers) >= 2
        assert all((box.bounding_box() or {"y": height, "height": 0})["y"] < 0.75 * height for box in answers)
        bar = page.locator(".threat .lane .fill").first.bounding_box()
        assert bar is not None
        assert bar["y"] + bar["height"] < height


def test_a_table_that_scrolls_says_so(browser: Browser, html: str, tmp_path: Path) -> None:
    with opened(browser, html, tmp_path, viewport={"width": 390, "height": 844}) as found:
        box = found.page.locator(".scroll:has(#heat)")
        assert box.evaluate("box => box.previousElementSibling.className") == "cue"
        assert "more-right" in (box.get_attribute("class") or "")
        box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        found.page.wait_for_timeout(100)
        assert "more-right" not in (box.get_attribute("class") or "")
    with opened(browser, html, tmp_path) as found:
        # seven tasks and six attacks fit on a usual screen
        assert found.page.locator(".cue").count() == 0
