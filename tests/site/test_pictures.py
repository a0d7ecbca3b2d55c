"""Every picture of the docs is shown somewhere and made by the script that says so."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.report.browser import needs_chromium
from tests.test_pages import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = ROOT / "docs" / "images"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield import_module("screenshots")
    for name in ("screenshots", "cause_pictures"):
        sys.modules.pop(name)


def test_every_picture_is_shown_and_made_by_the_script(script: Any) -> None:
    held = {file.name for file in IMAGES.iterdir()}
    assert held == set(script.PICTURES)
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = {name for name in held if f"images/{name})" in text}
    assert held - shown == {
        name for name in held if name.endswith("-dark.png")
    }  # the site shows them for the others
    assert {name.replace("-dark", "") for name in held - shown} <= shown
    assert {picture.source for picture in script.PICTURES.values()} == set(script.SOURCES)


@needs_chromium
def test_a_screen_is_of_the_size_and_the_colours_that_were_asked_for(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text(
        "<style>body { background: #fff } @media (prefers-color-scheme: dark) { body { background: #000 } }</style>"
    )
    names = ["report-dark.png", "report-phone.png"]
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    given = ["--only", *names, "audit.png", "--run", tmp_path, "--audit", nowhere, "--out", out]
    monkeypatch.setattr(sys, "argv", ["screenshots.py", *map(str, given)])
    assert script.main() == 1
    assert "audit.png stays as it is" in capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == names
    wide, phone = (Image.open(out / name).convert("RGB") for name in names)
    assert (wide.size, phone.size) == ((1280, 800), (585, 1266))
    assert (wide.getpixel((9, 9)), phone.getpixel((9, 9))) == ((0, 0, 0), (255, 255, 255))
