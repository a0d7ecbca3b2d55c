"""Make the pictures of pages that README and docs show, with the system's Chromium.

    python scripts/screenshots.py runs/starter examples/audit/audits/sign-reader-1.0

writes docs/images/report.png, report-phone.png and audit.png: what a reader sees first. Both folders' pages are
shown as they are; `mergerisk report FOLDER` and another run of the audit draw them anew. Needs the extra ``test``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDE, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)


def main() -> None:
    """Open the pages, and keep their first screens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("audit", type=Path, help="folder of a finished audit")
    parser.add_argument("--out", type=Path, default=IMAGES)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    shots = (
        (asked.run / "report.html", "report.png", WIDE, 1),
        (asked.run / "report.html", "report-phone.png", PHONE, 1.5),
        (asked.audit / "audit.html", "audit.png", WIDE, 1),
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for page, name, size, scale in shots:
            context = browser.new_context(viewport=size, device_scale_factor=scale, color_scheme="light")
            opened = context.new_page()
            opened.goto(page.resolve().as_uri())
            opened.screenshot(path=asked.out / name)
            with Image.open(asked.out / name) as picture:  # few colours: half the bytes
                picture.convert("RGB").quantize(128).save(asked.out / name, optimize=True)
            print(asked.out / name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
