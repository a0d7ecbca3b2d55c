"""The pictures of causes, of a run of real-causes: screenshots.py makes them."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from playwright.sync_api import sync_playwright

from mergerisk.report.measure_words import words_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

MEASURES = (
    "gradient_alignment",
    "gradient_size_l1",
    "curvature_target",
    "boundary_distance",
    "boundary_gap",
    "diversity",
    "entropy_target",
    "representation_bias",
    "cka",
    "feature_shift_cosine",
    "linearity",
    "weight_distance",
    "sign_conflicts",
    "subspace_alignment",
    "interference_relative",
)
"""One of every diagnostic, and two of the weights' distance. Agreement and the loss barrier are not among them: as
good as constant between merges."""

ATTACKERS = {"pretrained": ("#0072b2", "the base"), "expert": ("#d55e00", "the task’s expert")}


def panel(plot: Axes, moved: list[dict[str, Any]], measure: str) -> None:
    """A measure along, ASR up: a line for the way from the base to the merge, a dot where it ends, a cross for
    every other change."""
    for surrogate, (colour, _) in ATTACKERS.items():
        for part in (p for p in moved if p["measure"] == measure and p["surrogate"] == surrogate):
            points = [(d["value"], 100 * d["asr"]) for d in part["doses"] if d["value"] is not None]
            points = [point for point in points if not any(map(math.isnan, point))]
            if not points:
                continue
            along, up = zip(*points, strict=True)
            if part["change"].endswith(", path"):
                plot.plot(along, up, color=colour, linewidth=1.5)
                plot.plot(along[-1], up[-1], "o", color=colour, markersize=5)
            else:
                plot.plot(along[-1], up[-1], "x", color=colour, markersize=5)
    plot.set_title(words_of(measure).title, fontsize=9)
    plot.tick_params(labelsize=7)
    plot.locator_params(axis="x", nbins=4)
    plot.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    plot.spines[["top", "right"]].set_visible(False)


def causes(run: Path, out: Path) -> None:
    """The grid of all diagnostics."""
    moved = json.loads((run / "summary.json").read_text(encoding="utf-8"))["moves"]["moved"]
    figure, plots = plt.subplots(5, 3, figsize=(9, 12), sharey=True, layout="constrained")
    for plot, measure in zip(plots.flat, MEASURES, strict=True):
        panel(plot, moved, measure)
    figure.supylabel("ASR of the merge, %", fontsize=9)
    lines = [Line2D([], [], color=colour, label=f"made on {who}") for colour, who in ATTACKERS.values()]
    lines.append(Line2D([], [], color="#444", marker="o", label="from the base (line) to the merge (dot)"))
    lines.append(Line2D([], [], color="#444", marker="x", linestyle="", label="another change of the merge"))
    figure.legend(handles=lines, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(out, dpi=110)


def gradients(run: Path, out: Path) -> None:
    """The report's drawing, as a reader with a wide screen sees it."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        page.locator(".gradients").first.screenshot(path=out)
        browser.close()
