"""A comparison as one HTML page that loads nothing and runs no script, and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.report.comparison.reading import accuracy_by_model, conclusion
from mergerisk.report.comparison.text import difference
from mergerisk.report.formatting import MISSING, budget, percent
from mergerisk.report.templating import environment, page_style
from mergerisk.study.files import write_bytes, write_csv

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report.comparison.comparing import Comparison

MOST_SETTINGS = 200
"""Settings on the page, those that differ most; all of them are in the table beside it."""


@dataclass(frozen=True)
class ForestRow:
    """One line of the forest picture: a name, a text, and where mark and interval lie, in percent of its width."""

    name: str
    text: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """Differences on one scale from −reach to +reach, in percentage points; the middle is no difference."""

    reach: float
    rows: tuple[ForestRow, ...]


def forest(found: Comparison, rate: str) -> Forest:
    """Mean differences of every target: ``rate`` is ``asr`` or ``relative``."""
    rows = found.targets.to_dict("records")
    known = [
        abs(row[f"{rate}_{name}"]) for row in rows for name in ("difference", "low", "high")
        if math.isfinite(row[f"{rate}_{name}"])
    ]  # fmt: skip
    reach = max(0.01, math.ceil(100 * 1.08 * max(known, default=0.01)) / 100)

    def place(value: float) -> float | None:
        return round(50 + 50 * value / reach, 2) if math.isfinite(value) else None

    def row_of(row: dict[Any, Any]) -> ForestRow:
        values = [row[f"{rate}_{name}"] for name in ("difference", "low", "high")]
        return ForestRow(str(row["target"]), difference(*values), *map(place, values))

    return Forest(100 * reach, tuple(row_of(row) for row in rows))


def comparison_html(found: Comparison) -> str:
    """The page. Names are treated as hostile: the template escapes them, and the page's policy runs no script."""
    settings = found.settings.reindex(
        found.settings["asr_difference"].abs().sort_values(ascending=False, kind="stable").index
    ).head(MOST_SETTINGS)
    context = {
        "found": found,
        "conclusion": conclusion(found),
        "forests": [("ASR", forest(found, "asr")), ("relative ASR", forest(found, "relative"))],
        "settings": [_setting(row) for row in settings.to_dict("records")],
        "accuracy": [_accuracy(row) for row in found.accuracy.to_dict("records")],
        "accuracy_means": {name: difference(value) for name, value in accuracy_by_model(found).items()},
        "all_settings": len(found.settings),
        "style": page_style(),
    }
    page = environment("compare.html.j2").get_template("compare.html.j2").render(context)
    return page.encode("utf-8", "replace").decode("utf-8")


def write_comparison(found: Comparison, folder: Path) -> None:
    """Write ``compare.html``, ``compare.csv`` (settings) and ``compare_accuracy.csv`` into a folder.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error
    write_bytes(folder / "compare.html", comparison_html(found).encode())
    write_csv(found.settings, folder / "compare.csv")
    write_csv(found.accuracy, folder / "compare_accuracy.csv")


def _setting(row: dict[Any, Any]) -> dict[str, str]:
    """A row of the table of rates, as texts."""
    names = {name: str(row[name]) for name in ("task", "attack", "surrogate", "target")}
    images = str(row["images_a"]) if row["paired"] else f"{row['images_a']} / {row['images_b']}"
    return names | {
        "budget": budget(row["epsilon"]),
        "images": images,
        "how": "paired" if row["paired"] else "unpaired",
        "a": percent(row["asr_a"], 1),
        "b": percent(row["asr_b"], 1),
        "asr": difference(row["asr_difference"], row["asr_low"], row["asr_high"]),
        "p": f"{row['p_adjusted']:.2g}" if math.isfinite(row["p_adjusted"]) else MISSING,
        "relative": difference(row["relative_difference"], row["relative_low"], row["relative_high"]),
    }


def _accuracy(row: dict[Any, Any]) -> dict[str, str]:
    """A row of the table of clean accuracy, as texts."""
    images = str(row["images_a"]) if row["paired"] else f"{row['images_a']} / {row['images_b']}"
    return {
        "task": str(row["task"]),
        "model": str(row["model"]),
        "images": images,
        "a": percent(row["accuracy_a"], 1),
        "b": percent(row["accuracy_b"], 1),
        "difference": difference(row["difference"], row["low"], row["high"]),
        "p": f"{row['p_value']:.2g}" if math.isfinite(row["p_value"]) else MISSING,
    }
