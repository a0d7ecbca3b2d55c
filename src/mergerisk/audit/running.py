"""An audit from start to end: its study, its verdict, and what a release pipeline reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk import api
from mergerisk.audit.audited import describe_work, read_items
from mergerisk.audit.page import to_html
from mergerisk.audit.schema import Audit, in_words_of_audits, load_audit
from mergerisk.audit.verdict import Verdict, check_gates, judge
from mergerisk.audit.writing import to_json, to_markdown
from mergerisk.study.files import write_bytes
from mergerisk.study.finished import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mergerisk.audit.audited import AuditedItem
    from mergerisk.store import Store
    from mergerisk.study import Plan, Study
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.executors.hiring import Executor

JSON, MARKDOWN, PAGE = "audit.json", "audit.md", "audit.html"


@dataclass(frozen=True)
class AuditResult:
    """A finished audit.

    Attributes:
        folder: where everything is: ``audit.html``, ``audit.md``, ``audit.json``, and what a study's run leaves.
        verdict: what was found.
    """

    folder: Path
    verdict: Verdict

    def __repr__(self) -> str:
        failed = sum(gate.failed for gate in self.verdict.gates)
        gates = f"{failed} of {len(self.verdict.gates)} gates failed" if self.verdict.gates else "no gates"
        return f"AuditResult({str(self.folder)!r}: {', '.join(m.name for m in self.verdict.models)}; {gates})"

    def _repr_html_(self) -> str:
        from mergerisk.audit.writing import model_table, to_text
        from mergerisk.report.in_notebooks import html_table, html_words

        titles, rows = model_table(self.verdict)
        return str(html_words(to_text(self.verdict)) + html_table([titles, *rows]))


def audit(
    given: str | Path | Audit,
    out: str | Path | None = None,
    *,
    fail_if: Sequence[str] = (),
    limit: int | None = None,
    device: str = "auto",
    devices: str | None = None,
    workers: int | None = 1,
    executor: Executor = "local",
    address: str | None = None,
    shards: int = 1,
    store: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: bool = True,
    prepared: Callable[[Plan, Store], None] = lambda *_: None,
    listeners: Sequence[str | Listener] = (),
) -> AuditResult:
    """Audit what is going to be released.

    Args:
        given: path of an audit file, or an :class:`~mergerisk.audit.Audit`.
        out: the folder to write; ``audits/NAME`` by default. Auditing into the same folder resumes.
        fail_if: gates besides the file's own; see :func:`mergerisk.audit.gates.parse_gate`.
        limit: attacked images per task, at most.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: one worker on each, as ``0,1``; instead of ``device`` and ``workers``.
        workers: processes; None chooses by the machine.
        executor: ``local``, or ``ray`` for a cluster.
        address: of the cluster; by default one of this machine's own.
        shards: parts in which crafting and evaluation of many images is spread over workers.
        store: folder of artefacts, to share between audits and studies; ``OUT/store`` by default.
        offline: take what comes from a hub from the cache of downloads only.
        force: replace what another audit left in the folder.
        progress: show on standard error how far it is.
        prepared: called once everything is checked, before the first stage.
        listeners: see :func:`mergerisk.run`.

    Raises:
        UserError: the audit, a file or an option is at fault; raised before any attack where it can be known.
    """
    asked = given if isinstance(given, Audit) else load_audit(given, fail_if=fail_if)
    study = asked.to_study()
    check_gates(asked, [spec.label for spec in study.surrogates])
    folder = Path(out) if out is not None else Path("audits") / asked.name
    begun: list[tuple[Study, tuple[AuditedItem, ...]]] = []

    def begin(plan: Plan, kept: Store) -> None:
        # What an earlier audit left here must not be taken for this one's verdict, should this one not end.
        for name in (JSON, MARKDOWN, PAGE):
            (folder / name).unlink(missing_ok=True)
        begun.append((plan.study, read_items(asked, study, plan)))
        prepared(plan, kept)

    with in_words_of_audits():
        result = api.run(
            study,
            folder,
            limit=limit,
            device=device,
            devices=devices,
            workers=workers,
            executor=executor,
            address=address,
            shards=shards,
            store=store,
            offline=offline,
            force=force,
            progress=progress,
            prepared=begin,
            listeners=listeners,
        )
    resolved, items = begun[-1]
    audited = describe_work(resolved, read_record(folder)["computed"], items)
    summary = result.summary
    verdict = judge(
        asked, result.outcomes, summary.accuracy, summary.run.notes, audited, summary.doubts, summary.prices
    )
    write_bytes(folder / JSON, to_json(verdict).encode())
    write_bytes(folder / MARKDOWN, to_markdown(verdict).encode())
    write_bytes(folder / PAGE, to_html(verdict).encode())
    return AuditResult(folder, verdict)
