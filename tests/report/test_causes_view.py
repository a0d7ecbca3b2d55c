"""What explains transfer on the page and in exports: what is drawn, what sorts, what is said without."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from mergerisk.report.cause_pictures import Mark, Scale, scatter_svg
from mergerisk.report.causes_view import causes_view
from mergerisk.report.export import summary_schema, summary_to_json
from mergerisk.report.exports import write_exports
from mergerisk.report.gradient_drawings import drawings, pooled
from mergerisk.report.page import render_html
from mergerisk.report.summary import GradientExample
from mergerisk.statistics.explaining import Contrast, NullLine, explain, moves
from tests.report.browser import needs_chromium, opened, started_browser
from tests.report.synthetic import summary as make_summary
from tests.statistics.explaining.test_whole import made

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report.summary import Summary


@pytest.fixture(scope="module")
def summary() -> Summary:
    tables = made(1, cause=1.5, surrogates=("expert", "other_expert"), images=30)
    found = explain(*tables, nulls=[NullLine("unrelated", "other_expert")], permutations=99, refits=0)
    changed = moves(*tables, None, [Contrast("merge 0, path", {"merge 0": 0.0, "merge 1": 0.5, "merge 2": 1.0})])
    return replace(make_summary(), explanations=found, moves=changed)


def test_the_page_has_a_picture_per_measure_strongest_first(summary: Summary) -> None:
    view = causes_view(summary)
    assert view is not None
    assert view.first[0].measure == "cause"
    assert {card.measure for card in (*view.first, *view.rest)} == {"cause", "noise", "of_surrogate", "distance"}
    scatter = str(view.first[0].scatter)
    assert scatter.count('class="mark"') == 2 * 8
    assert scatter.count('class="null-mark"') == 2 * 8
    assert str(view.first[0].lines).count("<circle") == 3
    assert view.first[0].changes[0].startswith("1. merge 0, path: ")
    page = render_html(summary)
    assert 'id="causes"' in page
    assert "What goes with who is fooled here: cause." in page
    assert 'href="#causes"' in page


def test_a_run_without_diagnostics_has_no_section() -> None:
    assert causes_view(make_summary()) is None
    assert 'id="causes"' not in render_html(make_summary())
    assert "explanations" not in json.loads(summary_to_json(make_summary()))


def test_the_summary_keeps_to_its_schema(summary: Summary) -> None:
    document = json.loads(summary_to_json(summary))
    jsonschema.validate(document, summary_schema())
    assert document["explanations"]["worst"]["measures"][0]["measure"] == "cause"
    assert document["moves"]["moved"][0]["doses"][0]["dose"] == 0.0


def test_exports_hold_table_and_pictures(summary: Summary, tmp_path: Path) -> None:
    files = {file.name for file in write_exports(summary, tmp_path, ("md", "tex", "svg"))}
    assert "cause_cause.svg" in files
    text = next(tmp_path.rglob("*.md")).read_text()
    assert re.search(r"\| cause \| methods, same image, images \|", text)


def test_gradients_are_drawn_by_their_signs_and_sizes() -> None:
    gradient = np.zeros((130, 100, 3), np.float32)
    gradient[:3, :3, 0], gradient[3:6, 3:6, 1] = 1.0, -0.5
    small = pooled(gradient)
    assert small.shape == (44, 34)
    assert (small[0, 0], small[1, 1], np.abs(small).sum()) == (1.0, -0.5, 1.5)
    example = GradientExample(
        "t", "expert", "<b>", 3, "cat", -0.5, None, np.zeros((130, 100, 3), np.uint8), gradient, -gradient
    )
    most, least = drawings([replace(example, alignment=0.5, fooled_at=2 / 255), example])
    assert most.title == "The most aligned image: cosine +0.50"
    assert least.title == "The least aligned image: cosine −0.50"
    assert "from 2/255 on" in most.caption
    assert "no attack at any budget" in least.caption

    def pixels(panel: tuple[str, str, str]) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(panel[0].partition(",")[2]))))

    image, one, other, both = (pixels(panel) for panel in least.panels)
    assert image.shape == (130, 100, 3)
    red, blue = one[0, 0, :3], one[1, 1, :3]
    assert (other[0, 0, :3] == blue).all()
    assert (other[1, 1, :3] == red).all()
    assert one[0, 0, 3] == other[0, 0, 3] == 255
    assert one[5:, :, 3].max() == 0, "what matters to neither is left blank"
    assert (both[0, 0, :3] == both[1, 1, :3]).all(), "they oppose everywhere"
    assert both[0, 0, 3] > both[1, 1, 3] > 0


def test_what_was_not_measured_lies_outside_what_was() -> None:
    marks = [Mark(1.0, 0.0, 0, "a"), Mark(2.0, 0.02, 1, "b"), Mark(100.0, math.inf, 2, "c")]
    scale = Scale.of(marks, (0.01, 0.04), [mark.y for mark in marks])
    assert scale.log
    assert scale.y(0.0) > scale.y(scale.least) > scale.y(0.02) > scale.y(scale.most) > scale.y(math.inf)
    assert scale.x(1.0) < scale.x(10.0) < scale.x(100.0)
    one = scatter_svg([Mark(0.0, 0.02, 0, "<b>")], (0.02,), "t", "a")
    assert "&lt;b&gt;" in one


@needs_chromium
def test_a_press_on_a_title_sorts(summary: Summary, tmp_path: Path) -> None:
    with started_browser() as browser, opened(browser, render_html(summary), tmp_path) as shown:
        page = shown.page
        page.evaluate("document.querySelectorAll('#causes details').forEach((part) => { part.open = true; })")
        table = page.locator("#causes table.sortable").first
        head = table.locator("th", has_text="ρ, images").first

        def values() -> list[str]:
            return table.locator("tbody tr td:nth-child(5)").evaluate_all(
                "cells => cells.map(c => c.dataset.value)"
            )

        head.locator("button").click()
        rising = [float(value) for value in values() if value]
        assert rising == sorted(rising)
        assert values()[len(rising) :] == [""] * (len(values()) - len(rising))
        head.locator("button").click()
        assert [float(value) for value in values() if value] == rising[::-1]
        assert not shown.complaints
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
