"""What ``mergerisk check`` prints: images and settings side by side, then how far they agree, and why not."""

from __future__ import annotations

import json
from math import isnan
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mergerisk._version import __version__
from mergerisk.report.formatting import listing
from mergerisk.text_tables import table_of, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.checking import Check, Compared, StudyCheck

_ROWS = 20
"""Images in the table; those that differ most come first."""

_WIDTH = 100
"""Columns of the longest sentence."""

_CELL = 20
"""Columns of the longest name."""

_COLUMN = 26
"""Columns of a setting's value."""

_TITLES = {"own": "own library", "attack": "in attack", "study": "in a study"}


def describe_check(found: Check) -> str:
    """Two tables and a few lines.

    Args:
        found: the check.
    """
    names = [reading.name for reading in found.readings]
    lines = [f"own library: {found.library}", *(_line(found, reading) for reading in found.readings)]
    lines += [f"note: {remark}" for remark in found.remarks]
    if found.agrees:
        lines.append("mergerisk measures the model as its own library does")
    lines += [f"likely reason: {reason}" for reason in found.reasons]
    wrapped = [fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
    return "\n\n".join([_images(found, names), _settings(found, names), "\n".join(wrapped)])


def describe_study_check(found: StudyCheck) -> str:
    """Clean accuracies, one row per task and one column per model, and what looks wrong."""
    models = sorted(dict.fromkeys(found.accuracy["model"]), key=lambda model: model != "pretrained")
    said: dict[tuple[str, str], list[str]] = {}
    for row in found.accuracy.to_dict("records"):
        text = f"{_percent(row['accuracy'])} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        said.setdefault((str(row["task"]), str(row["model"])), []).append(text)
    counts = ("classes", "train", "calibration", "test")
    rows = [
        (
            str(task["task"]),
            *(str(task[name]) for name in counts),
            *("\n".join(said.get((str(task["task"]), model), ["–"])) for model in models),
        )
        for task in found.tasks.to_dict("records")
    ]
    lines = [f"looks wrong: {warning}" for warning in found.warnings] or ["nothing looks wrong"]
    lines.append(f"models and predictions are kept for a run: {found.store}")
    wrapped = [fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
    return "\n\n".join([text_table([("task", *counts, *models), *rows], ruled=True), "\n".join(wrapped)])


def check_to_json(found: Check | StudyCheck) -> str:
    """The same as strict JSON, with every image."""
    document = {"mergerisk": __version__, **found.to_dict()}
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _images(found: Check, names: Sequence[str]) -> str:
    worst = found.images[[f"{name}_difference" for name in names]].max(axis=1)
    shown = found.images.loc[worst.sort_values(ascending=False, kind="stable").index[:_ROWS]]
    rows = []
    for row in shown.to_dict("records"):
        cells = {"image": _short(str(row["file"]), last=True)}
        if found.logits:
            cells["label"] = "–" if row["label"] is None else _short(str(row["label"]))
            for name in ("own", *names):
                cells[_TITLES[name]] = f"{_short(str(row[name]))} {row[f'{name}_probability']:.2f}"
        cells["difference"] = ", ".join(_percent(row[f"{name}_difference"]) for name in names)
        cells["differs"] = " and ".join(_TITLES[name] for name in names if row[f"{name}_differs"])
        rows.append(cells)
    more = len(found.images) - len(shown)
    table = table_of(rows)
    return table + (f"\n… and {more} more, which differ less" if more else "")


def _settings(found: Check, names: Sequence[str]) -> str:
    rows = [
        (
            str(row["setting"]),
            *(fill(str(row[name]), _COLUMN) for name in ("own", *names)),
            "yes" if any(row[name] != row["own"] for name in names) else "",
        )
        for row in found.settings.to_dict("records")
    ]
    title = ("setting", *(_TITLES[name] for name in ("own", *names)), "differs")
    return text_table([title, *rows], ruled=True)


def _line(found: Check, reading: Compared) -> str:
    low, high = (f"{100 * end:.1f}" for end in reading.agreement[1:])
    what = "same prediction" if found.logits else f"within {_percent(found.tolerance)}"
    line = (
        f"{_TITLES[reading.name]}: {what} on {reading.agreeing} of {reading.images} images "
        f"({reading.agreement[0]:.1%}, {low} to {high}); {reading.differing} differ by more than "
        f"{_percent(found.tolerance)}; largest difference of a {'logit' if found.logits else 'feature'} "
        f"{reading.largest:.3g}"
    )
    if reading.accuracy is not None and found.accuracy is not None:
        line += f"; accuracy {found.accuracy:.1%} in its own library, {reading.accuracy:.1%} here"
    return line + _steps(reading.steps)


def _steps(steps: Mapping[str, float]) -> str:
    if not steps:
        return ""
    known = [f"{step} {_percent(size)}" for step, size in steps.items() if not isnan(size)]
    return f"; where it arises: {listing(known)}"


def _percent(share: Any) -> str:
    return f"{float(share):.1%}"


def _short(text: str, *, last: bool = False) -> str:
    """A name that fits into the table: its end of a path, its beginning of a class."""
    if len(text) <= _CELL:
        return text
    return f"…{text[1 - _CELL :]}" if last else f"{text[: _CELL - 1]}…"
