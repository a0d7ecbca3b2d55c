"""What a finished study shows of itself in a notebook: the table that ends a run, and where the report is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.report.answers import safest_headline, told_apart
from mergerisk.report.fact_words import said
from mergerisk.report.threat import threat_rows
from mergerisk.report.view import view_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mergerisk.report.summary import Summary


def html_table(rows: Sequence[Sequence[str]]) -> Markup:
    """A table whose first row has the titles and whose first column the names; colours are the notebook's own."""
    title, *others = rows
    head = Markup().join(Markup("<th>{}</th>").format(cell) for cell in title)
    lines = [
        Markup("<tr><th>{}</th>{}</tr>").format(
            name, Markup().join(Markup("<td>{}</td>").format(cell) for cell in cells)
        )
        for name, *cells in others
    ]
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, Markup().join(lines))


def html_words(text: str) -> Markup:
    """Lines of text as paragraphs, the first of them in bold."""
    first, *others = text.splitlines()
    below = Markup().join(Markup("<p>{}</p>").format(line) for line in others if line)
    return Markup("<p><b>{}</b></p>").format(first) + below


def summary_html(summary: Summary, folder: Path) -> Markup:
    """Doubts, every model under its worst attacker, and which is the safest."""
    view = view_of(summary)
    doubts = Markup().join(Markup("<p><b>Doubt:</b> {}</p>").format(said(doubt)) for doubt in summary.doubts)
    safest = ""
    if view.standing is not None and len(view.standing.methods) > 1:
        safest = f"The safest: {safest_headline(view.standing)}. {told_apart(view.standing)} "
    return Markup(
        "<div><p><b>{}</b>, every model under its worst attacker; 95 % intervals in brackets.</p>{}{}"
        "<p>{}Report: <code>{}</code></p></div>"
    ).format(summary.run.study, doubts, html_table(threat_rows(view)), escape(safest), folder / "report.html")
