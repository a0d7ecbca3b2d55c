"""The leaderboard as one page of HTML that needs nothing else but the reports that it links to."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mergerisk._version import __version__
from mergerisk.leaderboard.picture import risk_svg, row_key
from mergerisk.leaderboard.rules import OUTSIDE, RULES
from mergerisk.report.formatting import budget, listing, plural, ratio
from mergerisk.report.naming import change, holder
from mergerisk.report.templating import environment, page_style, template
from mergerisk.report.threat import TOPS, Threat, threat_cells
from mergerisk.report.worst import WorstAttacker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.leaderboard.document import Leaderboard, Submitted
    from mergerisk.leaderboard.ranking import Row, Table

_RISING, _FALLING = "ascending", "descending"

SORTS = (
    (0, "rank", _RISING),
    (1, "method", _RISING),
    (3, "ASR", _RISING),
    (4, "ε50", _FALLING),
    (5, "relative ASR", _RISING),
    (6, "clean accuracy", _FALLING),
    (8, "entry", _RISING),
)
"""Columns of a table by which the page offers to sort, the best first, and what they are called."""


@dataclass(frozen=True)
class Line:
    """A row as the page shows it.

    Attributes:
        rank: place.
        ranks: its interval.
        base: number of the base, which filters go by.
        key: what a search goes by.
        shown: name, ASR, accuracy and bar, as reports show them.
        half: ε50 and its interval.
        ratio: relative ASR and its interval.
        tags: what is marked beside the name, with what it means.
        values: what columns are sorted by; empty where there is no figure.
        entry: its name.
        report: address of its report.
    """

    rank: int
    ranks: str
    base: int
    key: str
    shown: Threat
    half: tuple[str, str]
    ratio: tuple[str, str]
    tags: tuple[tuple[str, str], ...]
    values: Mapping[str, float | str]
    entry: str
    report: str


def to_html(board: Leaderboard) -> str:
    """The page. Names are treated as hostile: text is escaped, and the policy runs no script but the page's."""
    bases = _numbered(row.base for table in board.tables for row in table.rows)
    tasks = _numbered(task.task for table in board.tables for task in table.terms.tasks)
    attackers = _numbered(holder(label) for table in board.tables for label in table.labels)
    reports = {entry.name: entry.report for entry in board.entries}
    script = f'"use strict";\n(() => {{\n{template("js", "sorting.js")}\n{_file("board.js")}\n}})();'
    context = {
        "tables": [_shown(table, bases, tasks, attackers, reports) for table in board.tables],
        "entries": [_entry(entry) for entry in board.entries],
        "methods": sum(len(table.rows) for table in board.tables),
        "bases": [*bases],
        "tasks": [*tasks],
        "attackers": [*attackers],
        "sorts": SORTS,
        "rules": RULES,
        "outside": OUTSIDE,
        "version": __version__,
        "style": page_style() + Markup(_file("board.css")),  # package files, not input
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    name = "leaderboard.html.j2"
    page = environment(name, _file(name)).get_template(name).render(context)
    return page.encode("utf-8", "replace").decode("utf-8")


def _file(name: str) -> str:
    return resources.files("mergerisk.leaderboard").joinpath("templates", name).read_text(encoding="utf-8")


def _numbered(names: Any) -> dict[str, int]:
    """Names in order, each with its number."""
    return {name: place for place, name in enumerate(sorted(set(names)))}


def _shown(
    table: Table,
    bases: Mapping[str, int],
    tasks: Mapping[str, int],
    attackers: Mapping[str, int],
    reports: Mapping[str, str],
) -> dict[str, Any]:
    ends = [end for row in table.rows for end in (row.asr.value, row.asr.high) if math.isfinite(end)]
    top = next((top for top in TOPS if top >= max(ends, default=1.0)), 1.0)
    names = [task.task for task in table.terms.tasks]
    return {
        "title": f"{plural(len(names), 'task')} at ε = {budget(table.epsilon)}: attackers who hold {_held(table)}",
        "sentence": _sentence(table),
        "note": _note(table),
        "ticks": [
            (round(100 * i / TOPS[top], 2), f"{100 * top * i / TOPS[top]:.0f}%") for i in range(TOPS[top] + 1)
        ],
        "rows": [_line(row, table, bases, reports, top) for row in table.rows],
        "unranked": table.unranked,
        "picture": risk_svg(table.rows, bases),
        "terms": _terms(table),
        "tasks": " ".join(str(tasks[name]) for name in names),
        "attackers": " ".join(sorted({str(attackers[holder(label)]) for label in table.labels})),
    }


def _held(table: Table) -> str:
    return listing([holder(label) for label in table.labels], limit=3).replace(" and ", " or ")


def _sentence(table: Table) -> str:
    names = [task.task for task in table.terms.tasks]
    return (
        f"{listing(names, limit=12)}; {plural(table.terms.images, 'attacked image')}; "
        f"{listing(_labels(table.terms.attacks), limit=8)}; {change(table.epsilon, table.terms.norm)}."
    )


def _note(table: Table) -> str:
    apart = f"{table.apart} of {plural(table.pairs, 'pair')}" if table.pairs else "no pair"
    return (
        "Behind a rank, the ranks that the method may have: every two are compared on the same images (bootstrap, "
        f"Holm), which tells {apart} apart. ASR, relative ASR and ranks are under the worst attacker at "
        f"{budget(table.epsilon)}; ε50 is the median budget that fools half of the images; in brackets 95% "
        "intervals."
    )


def _labels(attacks: Sequence[str]) -> list[str]:
    return [str(json.loads(attack)["label"]) for attack in attacks]


def _terms(table: Table) -> list[tuple[str, str]]:
    terms = table.terms
    tasks = [f"{task.task}: {task.images} images, content {task.content[:12]}" for task in terms.tasks]
    return [
        ("tasks", "; ".join(tasks)),
        ("budgets", f"{', '.join(budget(epsilon) for epsilon in terms.epsilons)} ({terms.norm})"),
        ("ranked at", budget(terms.reference)),
        ("attacks", "; ".join(terms.attacks)),
        ("attackers", "; ".join(terms.attackers)),
        ("seeds", str(terms.seeds)),
    ]


def _line(row: Row, table: Table, bases: Mapping[str, int], reports: Mapping[str, str], top: float) -> Line:
    worst = WorstAttacker(row.attacker, row.asr, row.images, row.relative_asr, row.epsilon50)
    _, half, relative, _ = threat_cells(worst, table.terms.epsilons)
    shown = Threat.of(
        row.method,
        row.asr,
        row.images,
        half,
        relative,
        holder(row.attacker),
        row.clean_accuracy,
        top=top,
        best=row.best,
    )
    tags = [(name, "a defense, every check passed") for name in row.defenses]
    tags += [("made elsewhere", "what it has read cannot be told from its study")] if row.made_elsewhere else []
    tags += [("best trade", "No other method is both safer and more accurate")] if row.best else []
    ranks = f"{row.rank_low}–{row.rank_high}" if row.rank_low != row.rank_high else f"{row.rank_low}"
    return Line(
        rank=row.rank,
        ranks=ranks,
        base=bases[row.base],
        key=row_key(row),
        shown=shown,
        half=_apart(half),
        ratio=_apart(ratio(row.relative_asr.value, row.relative_asr.low, row.relative_asr.high)),
        tags=tuple(tags),
        values={
            "asr": _value(row.asr.value),
            "half": "" if row.epsilon50 is None else _value(row.epsilon50.value),
            "relative": _value(row.relative_asr.value),
            "accuracy": _value(row.clean_accuracy.value),
        },
        entry=row.entry,
        report=reports[row.entry],
    )


def _apart(text: str) -> tuple[str, str]:
    """A figure, and its interval."""
    figure, bracket, rest = text.partition(" [")
    return figure, f"[{rest}" if bracket else ""


_FAR = 1e6


def _value(figure: float) -> float | str:
    """What a column is sorted by."""
    return "" if math.isnan(figure) else min(max(figure, -_FAR), _FAR)


def _entry(entry: Submitted) -> dict[str, Any]:
    shown = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    verdict = entry.verdict
    words = ""
    if verdict is not None:
        words = (
            f"fails {verdict.failed} of {plural(verdict.gates, 'gate')}"
            if verdict.failed
            else f"passes {plural(verdict.gates, 'gate')}"
            if verdict.gates
            else "without gates"
        )
    return {**shown, "description": entry.description or entry.study, "verdict_words": words}
