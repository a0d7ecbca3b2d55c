"""Make every picture that README and docs show, with the system's Chromium and matplotlib.

    python scripts/screenshots.py

writes docs/images/: first screens of a report and of an audit, wide and as on a phone, light and dark, what a run
with causes shows of them, and what the snippet of docs/python.md draws. What they are made of is looked for where
the commands below leave it; pictures whose source is not there stay as they are, and are named. Pages are shown as
they are: `mergerisk report FOLDER` draws a run's anew. Needs the extra ``test``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

import cause_pictures

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDE, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)

_AUDIT = "examples/audit"
SOURCES = {
    "run": ("runs/starter", "mergerisk run starter"),
    "audit": (f"{_AUDIT}/audits/sign-reader-1.0", "the commands of docs/audit.md"),
    "causes": ("runs/real-causes", "mergerisk run real-causes --data DIR"),
    "material": (f"{_AUDIT}/material", f"python {_AUDIT}/make_material.py"),
}
"""What pictures are made of: option → its folder by default, and what makes it."""


def first_screen(
    page: Path,
    out: Path,
    *,
    size: ViewportSize = WIDE,
    scheme: Literal["light", "dark"] = "light",
    scale: float = 1,
) -> None:
    """What a reader sees first of a page.

    Args:
        page: an HTML file.
        out: the PNG.
        size: of the window, in CSS pixels.
        scheme: what the reader's system prefers.
        scale: of the picture's pixels to CSS pixels.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport=size, device_scale_factor=scale, color_scheme=scheme)
        opened.goto(page.resolve().as_uri())
        opened.screenshot(path=out)
        browser.close()


def snippet_of_python_page(material: Path, out: Path) -> None:
    """What the snippet of docs/python.md draws of the models that it names."""
    found = re.search(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S | re.M
    )
    assert found is not None
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / SOURCES["material"][0]
        place.parent.mkdir(parents=True)
        place.symlink_to(material.resolve())
        with contextlib.chdir(folder), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            exec(compile(found[1], "docs/python.md", "exec"), names)
    names["mr"].plots.transfer(names["found"]).figure.savefig(out, dpi=150)


@dataclass(frozen=True)
class Picture:
    """A picture of the docs.

    Attributes:
        source: what it is made of, of :data:`SOURCES`.
        draw: from the source's folder to a PNG.
    """

    source: str
    draw: Callable[[Path, Path], None]


def _screen(file: str, **options: Any) -> Callable[[Path, Path], None]:
    return lambda folder, out: first_screen(folder / file, out, **options)


_phone = functools.partial(_screen, "report.html", size=PHONE, scale=1.5)

PICTURES = {
    "report.png": Picture("run", _screen("report.html")),
    "report-dark.png": Picture("run", _screen("report.html", scheme="dark")),
    "report-phone.png": Picture("run", _phone()),
    "report-phone-dark.png": Picture("run", _phone(scheme="dark")),
    "audit.png": Picture("audit", _screen("audit.html")),
    "audit-dark.png": Picture("audit", _screen("audit.html", scheme="dark")),
    "causes.png": Picture("causes", cause_pictures.causes),
    "gradients.png": Picture("causes", cause_pictures.gradients),
    "transfer.png": Picture("material", snippet_of_python_page),
}
"""All of docs/images. The site shows NAME-dark.png instead of NAME.png to readers in the dark."""


def main() -> int:
    """Make what can be made; 1 if a source is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (usual, command) in SOURCES.items():
        parser.add_argument(f"--{option}", type=Path, default=ROOT / usual, help=f"{usual}, by {command}")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=[*PICTURES], metavar="NAME")
    parser.add_argument("--out", type=Path, default=IMAGES)
    asked = parser.parse_args()
    mpl.use("Agg")
    asked.out.mkdir(parents=True, exist_ok=True)
    lacking = False
    for name in asked.only:
        picture = PICTURES[name]
        folder: Path = getattr(asked, picture.source)
        if not folder.is_dir():
            command = SOURCES[picture.source][1]
            print(f"{name} stays as it is: no {folder}; made by: {command}", file=sys.stderr)
            lacking = True
            continue
        picture.draw(folder, asked.out / name)
        with Image.open(asked.out / name) as drawn:  # few colours: half the bytes
            drawn.convert("RGB").quantize(128).save(asked.out / name, optimize=True)
        print(asked.out / name)
    return int(lacking)


if __name__ == "__main__":
    sys.exit(main())
