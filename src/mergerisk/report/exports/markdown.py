"""The report as one Markdown document (GitHub's dialect: tables with pipes)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mergerisk.report.fact_words import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mergerisk.report.exports.paper_tables import Table
    from mergerisk.report.view import View

_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_AT_START = re.compile(r"^(\d*)([-+=.)])(?=[-=\s]|$)")


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands, on one line: no markup, no HTML, no end of a cell."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line)
    return _AT_START.sub(r"\1\\\2", line)  # a list, a rule or a title begins so


def table_to_markdown(table: Table) -> str:
    """The table with its caption above; figures to the right, best in bold."""
    head = [escaped(column) for column in table.columns]
    marks = [":--", *["--:"] * (len(head) - 1)]
    rows = [
        [f"**{escaped(text)}**" if (r, c) in table.best and text else escaped(text) for c, text in enumerate(row)]
        for r, row in enumerate(table.rows)
    ]
    return "\n".join([escaped(table.caption), "", *table_lines(head, marks, rows)])


def table_lines(head: Iterable[str], marks: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table's lines, cells with pipes between them; what is in them is escaped already."""
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def to_markdown(view: View, tables: Sequence[Table], figures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole document: verdict, caveats, tables, pictures.

    Args:
        view: of the summary.
        tables: those to set.
        figures: (what it shows, address relative to the document).
    """
    run = view.summary.run
    lines = [f"# {escaped(run.study)}", ""]
    if run.description:
        lines += [escaped(run.description), ""]
    lines += [f"> {escaped(caveat)}\n" for caveat in run.caveats]
    if view.summary.doubts:
        lines += ["## Before reading a verdict into these figures", ""]
        lines += [*(f"- {escaped(said(doubt))}" for doubt in view.summary.doubts), ""]
    lines += ["## Verdict", ""]
    for finding in (*view.answers(), *view.findings()):
        clear = "clear" if finding.clear else "not clear"
        lines.append(
            f"- **{escaped(finding.question)}** {escaped(finding.headline)} ({clear}). {escaped(finding.sentence)}"
        )
    if carried := view.carried():
        lines += ["", escaped(f"Relative ASR of a method is a ratio of means. {carried}")]
    for table in tables:
        lines += ["", f"## {escaped(_heading(table.name))}", "", table_to_markdown(table)]
    if figures:
        lines += ["", "## Figures"]
        lines += [f"\n![{escaped(title)}]({address})" for title, address in figures]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines += [
        "",
        "## What was run",
        "",
        escaped(f"{run.settings} settings on {run.device}, {run.started}; {versions}"),
    ]
    return "\n".join(lines) + "\n"


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize().replace("asr", "ASR")
