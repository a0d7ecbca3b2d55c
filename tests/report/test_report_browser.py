"""The page in a real browser: its script runs, its selectors work, and a phone does not scroll sideways."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mergerisk.report import render_html

from .synthetic import summary
from .test_report_page import hostile

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH: the page was not tried in a browser"
)

# drives the page from outside, since the page's own policy runs no script but its own
DRIVER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="f" style="width:390px;height:3000px;border:0" srcdoc="{page}"></iframe><pre id="report"></pre>
<script>
f.onload = () => {{
  const d = f.contentDocument, q = (s) => d.querySelector(s);
  const heat = () => [...d.querySelectorAll("#heat tbody td")].map((c) => c.textContent).join(" ");
  const choose = (select, value) => {{
    select.value = value;
    select.dispatchEvent(new f.contentWindow.Event("change"));
  }};
  const out = {{ before: heat(), sideways: d.documentElement.scrollWidth - d.documentElement.clientWidth }};
  choose(q("#transfer select[data-state=epsilon]"), "0");
  out.after = heat();
  out.linked = q("#tradeoff select[data-state=epsilon]").value;
  choose(q("#tradeoff select[data-state=risk]"), "epsilon50");
  out.labels = [...d.querySelectorAll("#scatter text.name")].map((t) => t.textContent);
  const cell = q("#heat tbody td[data-cell]");
  cell.focus();
  out.tip = q("#tip").hidden ? null : q("#tip").textContent;
  cell.dispatchEvent(new f.contentWindow.KeyboardEvent("keydown", {{ key: "ArrowRight", bubbles: true }}));
  out.moved = d.activeElement === cell.nextSibling;
  out.lines = d.querySelectorAll("#panels .series").length;
  q("#keys button").click();
  out.fewer = d.querySelectorAll("#panels .series").length;
  report.textContent = JSON.stringify(out);
}};
</script>"""


def browse(page: str, folder: Path) -> tuple[str, list[str]]:
    """The DOM once scripts have run, and whatever the page wrote to the console."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=5000",
            "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_page_draws_without_complaint(tmp_path: Path) -> None:
    full = summary()
    dom, console = browse(render_html(full), tmp_path)
    assert console == []
    assert 'data-ready="true"' in dom
    cells = len(full.run.tasks) * len(full.run.attacks) * (len(full.run.methods) + 2)
    assert len(re.findall(r'data-cell="\d+"', dom)) == cells
    assert dom.count('class="panel"') == len(full.run.tasks)


def test_selectors_keyboard_and_a_phone(tmp_path: Path) -> None:
    full = summary()
    dom, console = browse(DRIVER.format(page=html.escape(render_html(full))), tmp_path)
    assert console == []
    found = re.search(r'<pre id="report">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found is not None
    out: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    assert out["sideways"] == 0
    assert out["before"] != out["after"]
    assert out["linked"] == "0"
    assert set(out["labels"]) == set(full.run.methods)
    assert "relative ASR" in out["tip"]
    assert out["moved"] is True
    assert out["lines"] == len(full.run.tasks) * (len(full.run.methods) + 2)
    assert out["fewer"] == len(full.run.tasks) * (len(full.run.methods) + 1)


def test_hostile_names_run_nothing(tmp_path: Path) -> None:
    dom, console = browse(render_html(hostile()), tmp_path)
    assert console == []
    assert 'data-ready="true"' in dom
    assert "<img src=x" not in dom


def test_empty_study_draws_without_complaint(tmp_path: Path) -> None:
    full = summary(examples=0)
    frames = {name: getattr(full, name).head(0) for name in ("results", "accuracy", "epsilon50", "flags")}
    dom, console = browse(render_html(replace(full, **frames)), tmp_path)
    assert console == []
    assert 'data-ready="true"' in dom
