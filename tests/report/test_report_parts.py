"""The verdict's sentences, the Pareto front, claims and the critical-difference picture."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from mergerisk.errors import UserError
from mergerisk.report import render_html
from mergerisk.report.claims import claim_views
from mergerisk.report.curve_pictures import Curve, Frame, Point, budget_places
from mergerisk.report.pareto import pareto_front
from mergerisk.report.standing import bars, in_words, places, standing_svg, ticks
from mergerisk.report.view import view_of
from mergerisk.statistics.facts import fact

from .synthetic import standing, summary
from .test_report_page import HOSTILE, read
from .test_report_views import pair, tiny


def test_front_holds_those_that_nobody_beats_on_both() -> None:
    points = {
        "safe": (0.7, 0.2), "middle": (0.8, 0.4), "beaten": (0.75, 0.4), "sharp": (0.9, 0.6), "twin": (0.9, 0.6),
        "worst": (0.6, 0.9), "unknown": (math.nan, 0.0),
    }  # fmt: skip
    assert pareto_front(points) == ("safe", "middle", "sharp", "twin")
    assert pareto_front({}) == ()


def test_doubts_come_first_and_leave_no_price_of_safety() -> None:
    rows = [*pair("digits", 0.2, 0.6), *pair("letters", 0.2, 0.6)]
    sure, doubtful = tiny(rows), replace(tiny(rows), doubts=(fact("few_steps", steps={"digits": 3}, at_most=8),))
    said = {answer.question: answer for answer in view_of(doubtful).answers()}[
        "Which is the safest for the accuracy I need?"
    ]
    assert said.headline == "ties"
    assert "within 2 points" not in said.sentence
    assert "within 2 points" in " ".join(answer.sentence for answer in view_of(sure).answers())
    page = " ".join(" ".join(read(render_html(doubtful)).text).split())
    assert page.index("An epoch of fine-tuning is 8 optimiser steps or fewer on digits (3)") < page.index(
        "How often is a merge fooled?"
    )


def test_verdict_comes_before_caveats_and_claims() -> None:
    full = replace(summary(), claims=({"sentence": "A claim.", "verdict": "holds"},))
    page = " ".join(" ".join(read(render_html(full)).text).split())
    order = [
        "How often is a merge fooled?",
        "Every model under its worst attacker",
        full.run.caveats[0],
        "Accuracy against risk",
        "A claim.",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


RANKS = standing({"a": 0.12, "b": 0.46, "c": 0.24, "d": 0.30, "e": 0.38}, gap=0.145)


def test_names_go_down_both_sides_of_the_axis_without_crossing() -> None:
    found = {place.name: (place.left, place.row) for place in places(RANKS)}
    # best first on the left, worst first on the right: lines nest and do not cross
    assert found == {"a": (True, 0), "c": (True, 1), "d": (True, 2), "b": (False, 0), "e": (False, 1)}


def test_bars_that_touch_lie_on_different_rows() -> None:
    drawn = bars(RANKS)
    assert [(bar.low, bar.high) for bar in drawn] == [(0.12, 0.24), (0.24, 0.38), (0.38, 0.46)]
    assert [bar.row for bar in drawn] == [0, 1, 0]


def test_picture_is_to_scale_and_tells_itself() -> None:
    picture = ET.fromstring(str(standing_svg(RANKS)))
    circles = sorted(float(node.get("cx", "nan")) for node in picture.iter("circle"))
    unit = (circles[-1] - circles[0]) / (0.46 - 0.12)
    assert circles[1] - circles[0] == pytest.approx((0.24 - 0.12) * unit, abs=0.2)
    marks = [node for node in picture.iter("text") if node.get("text-anchor") == "middle"]
    assert [node.text for node in marks] == ["10%", "20%", "30%", "40%", "50%"]
    at = {node.text: float(node.get("x", "nan")) for node in marks}
    assert at["20%"] - at["10%"] == pytest.approx(0.1 * unit, abs=0.2)
    assert [node.tag for node in picture][:2] == ["title", "desc"]
    assert "not told apart: a, c; c, d, e; e, b" in in_words(RANKS)


def test_names_in_the_picture_are_escaped() -> None:
    picture = str(standing_svg(standing({HOSTILE: 0.1, "b": 0.2})))
    assert "<script" not in picture
    assert ET.fromstring(picture).find("desc") is not None


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.4, 0.4), (0.412, 0.418), (0.05, 0.351), (0.999, 1.0)]
)
def test_ticks_span_every_method(values: tuple[float, float]) -> None:
    found = ticks(standing(dict(zip("ab", values, strict=True))))
    assert 2 <= len(found) <= 9
    assert 0 <= found[0] <= values[0]
    assert values[1] <= found[-1] <= 1 or found[-1] == pytest.approx(1)
    ET.fromstring(str(standing_svg(standing(dict(zip("ab", values, strict=True))))))


def test_claims_show_their_figures_in_order_and_the_rest_after() -> None:
    claim = {
        "sentence": "s", "verdict": "holds", "reason": None, "blocks": 42, "p_value": 0.000123, "p_adjusted": 1e-200, "cautions": ["c"], "compared": "x", "detail": {"a": 1}, "test": "Wilcoxon",
        "interval": (-0.1234, 0.5), "effect": math.nan, "saturated": False,
    }  # fmt: skip
    (view,) = claim_views([claim])
    assert view.mark == "✓"
    assert view.figures == (
        ("test", "Wilcoxon"), ("effect", "–"), ("95% interval", "[-0.123, 0.5]"), ("p", "0.000123"),
        ("p, adjusted", "< 1e-12"), ("saturated cells", "no"), ("blocks", "42"),
    )  # fmt: skip
    assert (view.cautions, view.compared) == (("c",), "x")
    marks = [view.mark for view in claim_views([claim | {"verdict": v} for v in ("Refuted", "undecided")])]
    assert marks == ["✗", "○"]


def test_claims_without_a_sentence_are_refused() -> None:
    with pytest.raises(UserError, match="claim 1: has no sentence and no verdict"):
        claim_views([{"sentence": "s", "verdict": "v"}, {"reason": "r"}])


def test_page_shows_claims_and_ranks_only_where_there_are_any() -> None:
    plain = summary(examples=0)
    assert 'id="claims"' not in render_html(plain)
    page = render_html(replace(plain, claims=({"sentence": "It <b>holds</b>", "verdict": "holds"},)))
    assert "It <b>holds</b>" in read(page).text
    assert "Claims, tested" in page
    page = render_html(replace(plain, standings=(RANKS,)))
    assert "How the methods stand" in page
    assert "Claims, tested" not in page


def test_budgets_stand_by_their_logarithm_in_every_picture_of_curves() -> None:
    assert budget_places([1 / 255, 2 / 255, 4 / 255, 16 / 255]) == pytest.approx([0, 1 / 4, 1 / 2, 1])
    assert budget_places([0.1]) == (0.5,)
    assert budget_places([]) == ()
    frame = Frame(left=50, right=150, top=10, bottom=110, margin=10)
    measured = [(0, 0.25, 0, 0.5), (0.5, math.nan, math.nan, math.nan), (1, 1, math.nan, math.nan)]
    curve = Curve.of(Point(*one) for one in measured)
    assert frame.line(curve) == "M60 85L140 10"
    assert frame.band(curve) == "", "one interval spans nothing"
    known = Curve.of([Point(0, 0.25, 0, 0.5), Point(1, 1, 0.75, 1)])
    assert frame.band(known) == "M60 60L140 10L140 35L60 110Z"
