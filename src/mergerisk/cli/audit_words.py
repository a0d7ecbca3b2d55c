"""What ``mergerisk audit`` prints: tables, the verdict, and whether files are what was audited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from mergerisk.audit import AuditResult
    from mergerisk.audit.verifying import Verification


def describe_audit(result: AuditResult) -> str:
    """An audit's tables, its verdict, and where the page is."""
    from mergerisk.audit.writing import model_table, surrogate_rows, to_text
    from mergerisk.report.formatting import budget

    verdict = result.verdict
    # One budget a line: four columns of intervals are wider than a terminal.
    lines = [
        (row.title, str(row.images), budget(epsilon), asr, row.epsilon50, relative)
        for row in surrogate_rows(verdict, verdict.subject)
        for epsilon, (asr, relative) in zip(verdict.epsilons, row.cells, strict=True)
    ]
    title = (f"attacks on {verdict.subject.name} made on", "images", "budget", "ASR", "ε50", "relative ASR")
    tables = [text_table([title, *lines], ruled=True)]
    if len(verdict.models) > 1:
        titles, rows = model_table(verdict)
        tables.append(text_table([titles, *rows], ruled=True))
    return "\n\n".join([*tables, to_text(verdict), f"verdict: {result.folder / 'audit.html'}"])


def describe_verification(found: Verification) -> str:
    """A line per file, then whether all are what was audited."""
    rows = [(one.title, one.path, one.file or "–", one.state) for one in found.checked]
    reasons = dict.fromkeys(one.reason for one in found.checked if one.reason)
    wrong = sum(one.state != "the same" for one in found.checked)
    when = "" if found.date is None else f" on {found.date[:10]}"
    said = (
        f"{wrong} of {len(rows)} are not what was audited{when}"
        if wrong
        else f"all of it is what was audited{when}"
    )
    return "\n".join([text_table([("what", "as given", "file", "now"), *rows], ruled=True), *reasons, said])
