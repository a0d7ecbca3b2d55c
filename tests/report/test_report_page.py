"""The page itself: whole, self-contained, safe with hostile names, and readable."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mergerisk.errors import UserError
from mergerisk.report import FLAG_COLUMNS, Example, Summary, render_html, summary_to_json
from mergerisk.report.formatting import BINS
from mergerisk.report.pictures import amplification, amplified, png_address, strips

from .synthetic import EPSILONS, METHODS, run_record, summary

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


class Reader(HTMLParser):
    """Collects what the tests ask about: tags, addresses, visible text, the data block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._in_data = tag == "script" and attributes.get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data
        else:
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def data_of(page: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found: dict[str, Any] = json.loads(read(page).data, parse_constant=refuse)
    return found


@pytest.fixture(scope="module")
def full() -> Summary:
    return summary()


@pytest.fixture(scope="module")
def page(full: Summary) -> str:
    return render_html(full)


def test_same_summary_same_page(full: Summary, page: str) -> None:
    assert render_html(full) == page


def test_page_is_small_and_whole(page: str) -> None:
    assert len(page.encode()) < 6_000_000
    ids = {attributes.get("id") for _, attributes in read(page).tags}
    assert {"verdict", "accuracy", "tradeoff", "transfer", "curves", "epsilon50", "examples", "run"} <= ids
    assert page.rstrip().endswith("</html>")


def test_nothing_is_loaded_from_outside(page: str) -> None:
    reader = read(page)
    for tag, attributes in reader.tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), (tag, address)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    policy = next(a["content"] for t, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy


def test_data_block_holds_every_cell(full: Summary, page: str) -> None:
    data = data_of(page)
    cells = data["cells"]
    assert {len(column) for column in cells.values()} == {len(full.results)}
    row = full.results.iloc[1234]
    keys = ("task", "attack", "surrogate", "target")
    names = [data[axis] for axis in ("tasks", "attacks", "surrogates", "targets")]
    match = [
        i
        for i in range(len(cells["asr"]))
        if all(names[n][cells[key][i]] == row[key] for n, key in enumerate(keys))
        and math.isclose(data["epsilons"][cells["epsilon"][i]], 255 * row["epsilon"])
    ]
    assert len(match) == 1
    assert cells["asr"][match[0]] == pytest.approx(row["asr"], abs=5e-5)
    assert cells["images_both_correct"][match[0]] == row["images_both_correct"]


def test_several_seeds_are_averaged_and_said_so() -> None:
    two = summary(seeds=(0, 1), examples=0)
    page = render_html(two)
    data = data_of(page)
    assert len(data["cells"]["asr"]) == len(two.results) // 2
    assert data["seeds"] == 2
    assert "means over seeds" in page


def test_selectors_hold_every_choice(page: str) -> None:
    reader = read(page)
    options = [attributes for tag, attributes in reader.tags if tag == "option"]
    assert sum("selected" in attributes for attributes in options) == sum(t == "select" for t, _ in reader.tags)


def hostile() -> Summary:
    plain = summary(tasks=("digits",), attacks=("fgsm",), methods=("ties", "dare"), examples=1)

    def rename(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.replace({"digits": HOSTILE + "task", "fgsm": HOSTILE + "attack", "ties": HOSTILE + "method"})

    strip = replace(plain.examples[0], task=HOSTILE, label=HOSTILE, surrogate_says=HOSTILE, target_says=HOSTILE)
    run = run_record(
        study=HOSTILE, description=HOSTILE, backbone=HOSTILE, calibration=HOSTILE, device=HOSTILE, started=HOSTILE,
        git_revision=HOSTILE, caveats=(HOSTILE,), study_yaml=HOSTILE, versions={HOSTILE: HOSTILE},
        counts={HOSTILE: 3}, methods=(HOSTILE + "method", "dare"),
    )  # fmt: skip
    flags = plain.flags.assign(reason=HOSTILE, task=HOSTILE + "task", target=HOSTILE)
    return replace(
        plain,
        run=run,
        results=rename(plain.results),
        accuracy=rename(plain.accuracy),
        epsilon50=rename(plain.epsilon50),
        flags=flags,
        examples=(strip,),
    )


def test_hostile_names_stay_text() -> None:
    page = render_html(hostile())
    reader = read(page)
    assert [a.get("type") for t, a in reader.tags if t == "script"] == ["application/json", None]
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    assert all((a.get("src") or "").startswith("data:image/png") for t, a in reader.tags if t == "img")
    assert "alert(1)</script>" not in page
    assert "49" not in [text.strip() for text in reader.text]  # the template language does not run either
    assert HOSTILE in reader.text
    assert HOSTILE + "task" in data_of(page)["tasks"]


def test_half_a_surrogate_pair_can_still_be_written(full: Summary) -> None:
    page = render_html(replace(full, run=run_record(study="odd \ud800 name"), examples=()))
    assert page.encode("utf-8")


def test_empty_study_renders() -> None:
    full = summary(examples=0)
    empty = replace(
        full,
        results=full.results.head(0),
        accuracy=full.accuracy.head(0),
        epsilon50=full.epsilon50.head(0),
        flags=full.flags.head(0),
    )
    page = render_html(empty)
    assert "kept no example pictures" in page
    assert "None was flagged" in page
    assert data_of(page)["cells"]["asr"] == []


def test_cells_without_any_value_render() -> None:
    full = summary(examples=0)
    rates = ["asr", "asr_low", "asr_high", "asr_all", "asr_all_low", "asr_all_high", "surrogate_asr",
             "relative_asr", "delta_asr", "same_mistake", "mean_l2"]  # fmt: skip
    page = render_html(
        replace(
            full,
            results=full.results.assign(**dict.fromkeys(rates, math.nan), images_both_correct=0),
            accuracy=full.accuracy.assign(accuracy=math.nan, low=math.nan, high=math.nan),
            epsilon50=full.epsilon50.assign(epsilon50=math.nan, status="no_images", low=math.nan, high=math.nan),
        )
    )
    data = data_of(page)
    assert set(data["cells"]["relative_asr"]) == {None}
    assert "nan" not in " ".join(read(page).text).lower().split()


def test_json_is_strict_and_keeps_nan_and_inf(full: Summary) -> None:
    results = full.results.copy()
    results.loc[0, "relative_asr"] = math.nan
    results.loc[1, "mean_l2"] = 1 / 3

    def refuse(name: str) -> None:
        raise AssertionError(name)

    document = json.loads(summary_to_json(replace(full, results=results)), parse_constant=refuse)
    assert document["schema_version"] == full.schema_version
    table = document["results"]
    assert len(table["data"]) == len(results)
    assert table["data"][0][table["columns"].index("relative_asr")] is None
    assert table["data"][1][table["columns"].index("mean_l2")] == 1 / 3
    highs = {row[document["epsilon50"]["columns"].index("high")] for row in document["epsilon50"]["data"]}
    assert "inf" in highs
    assert document["run"]["stages"][0]["kind"] == "fine_tune"
    assert document["run"]["versions"]["python"]
    assert document["run"]["epsilons"] == list(EPSILONS)
    assert set(document["examples"][0]) == {
        "task", "attack", "surrogate", "target", "epsilon", "image", "label", "surrogate_says", "target_says"
    }  # fmt: skip
    restored = pd.DataFrame(**table)
    assert restored["asr"].tolist() == results["asr"].tolist()


def test_pictures_keep_their_pixels() -> None:
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    address = png_address(picture)
    assert address.startswith("data:image/png;base64,")
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    assert np.array_equal(back, picture)


def test_amplification_fills_the_range_and_is_stated(page: str) -> None:
    assert amplification(4 / 255) == 31
    assert amplification(0.0) == 1
    change = np.array([[[0.0, 4 / 255, -4 / 255]]], dtype=np.float32)
    assert amplified(change, 31).tolist() == [[[128, 252, 3]]]
    assert "change × 31" in page


def test_pictures_that_do_not_fit_are_counted() -> None:
    full = summary(examples=3)
    kept, left_out = strips(full.examples, room=sum(map(len, _addresses(full.examples[0]))) + 10)
    assert (len(kept), left_out) == (1, 2)


def _addresses(example: Example) -> list[str]:
    (strip,), _ = strips([example])
    return [strip.clean, strip.perturbation, strip.adversarial]


def test_pictures_of_different_shapes_are_refused(full: Summary) -> None:
    with pytest.raises(UserError, match="share one"):
        replace(full.examples[0], clean=np.zeros((8, 8, 3), dtype=np.uint8))


def test_flags_are_listed_with_their_reason(full: Summary, page: str) -> None:
    assert full.flags["reason"].iloc[0] in read(page).text
    many = pd.concat([full.flags] * 60, ignore_index=True)[list(FLAG_COLUMNS)]
    assert "20 more are in" in render_html(replace(full, flags=many, examples=()))


def test_method_names_may_break_only_between_their_parts(page: str) -> None:
    assert "weight_<wbr>averaging+<wbr>surgery" in page
    assert METHODS[0] in data_of(page)["targets"]


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_can_be_read(scheme: str) -> None:
    style = resources.files("mergerisk.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    light, dark = style.split("prefers-color-scheme: dark")
    block = light if scheme == "light" else dark.split("\n}\n")[0]
    tokens = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for scale in ("r", "a", "d"):
        for i in range(BINS):
            assert _contrast(tokens[f"{scale}{i}"], tokens[f"{scale}{i}-ink"]) >= 4.5, (scale, i)
    for text in ("ink", "muted", "accent", "bad", "good"):
        assert _contrast(tokens[text], tokens["bg"]) >= 4.5, text
        assert _contrast(tokens[text], tokens["surface"]) >= 4.5, text
    for line in range(8):
        assert _contrast(tokens[f"s{line}"], tokens["bg"]) >= 3, line
    for hatch in ("hatch-a", "hatch-b"):
        assert _contrast(tokens["ink"], tokens[hatch]) >= 4.5, hatch
