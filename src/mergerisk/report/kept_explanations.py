"""What was explained of a run, kept in its folder: it takes long, and reports are written often.

It is kept with the key of what it follows from, the digests of the run's files among that, so that what was
explained of other figures, or by another version, is not shown but made anew; so is what cannot be read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from mergerisk._version import __version__
from mergerisk.errors import UserError
from mergerisk.report.explaining import CAUSES, PAIR_CAUSES, changed, explained, has_causes, null_lines
from mergerisk.report.worst import worst_by_target
from mergerisk.statistics.explaining import Explanations, Moves  # noqa: TC001 (pydantic reads them)
from mergerisk.store.keys import content_key
from mergerisk.study.contrasts import contrasts_of
from mergerisk.study.files import write_bytes
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydantic import TypeAdapter

    from mergerisk.report.summary import Summary
    from mergerisk.study import FinishedRun

FILE = "explanations.json"
"""In the run's folder; holds an entry for what reports show and one for what ``mergerisk causes`` says."""

_VERSION = 2
"""Raised when what is computed of the same tables changes."""

Purpose = Literal["report", "causes"]

_REFITS: Mapping[Purpose, int] = {"report": 0, "causes": 39}
"""Of the test of predictions, which takes as long as all the rest: reports do without."""


@dataclass(frozen=True)
class Found:
    """What follows from a run's diagnostics.

    Attributes:
        explanations: what explains who is fooled; None where nothing can be compared.
        moves: what moves when one thing is changed; None where nothing was.
    """

    explanations: Explanations | None
    moves: Moves | None


def explained_once(
    run: FinishedRun,
    summary: Summary,
    folder: Path,
    purpose: Purpose = "report",
    *,
    seed: int = 0,
    write: bool = True,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> Found:
    """What a run's folder keeps, or else what is made of the run now and kept there, if it can be written to.

    Args:
        run: what was run.
        summary: of it.
        folder: of it; its tables are those of ``run``.
        purpose: what it is for: ``causes`` has the test of predictions too.
        seed: of whatever is drawn.
        write: whether to keep what is made.
        listen: told how much is done, and of how much; never, where nothing has to be made.

    Raises:
        UserError: nothing can be compared, and the purpose is ``causes``.
    """
    if not has_causes(run):
        return Found(None, None)
    key = _key(run, summary, folder, purpose, seed)
    kept = _entries(folder)
    found = _read(kept.get(purpose), key)
    if found is None:
        found = explained_now(run, summary, purpose, seed=seed, listen=listen)
        if write:
            _write(folder, {**kept, purpose: {"key": key, "found": asdict(found)}})
    return found


def explained_now(
    run: FinishedRun,
    summary: Summary,
    purpose: Purpose = "report",
    *,
    seed: int = 0,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> Found:
    """The same, made anew and kept nowhere."""
    explanations = None
    if has_causes(run):
        try:
            explanations = explained(run, summary, refits=_REFITS[purpose], seed=seed, listen=listen)
        except UserError:
            if purpose == "causes":
                raise
    return Found(explanations, changed(run, seed=seed))


def _key(run: FinishedRun, summary: Summary, folder: Path, purpose: Purpose, seed: int) -> str:
    """Of everything that it follows from."""
    tables = [kept.declared for kept in run.tables if kept.declared.name in {*_TABLES, CAUSES, PAIR_CAUSES}]
    return content_key(
        {
            "version": _VERSION,
            "mergerisk": __version__,
            "files": {declared.name: file_digest(folder / declared.file) for declared in tables},
            "methods": list(run.study.ranked),
            "worst": worst_by_target(summary),
            "nulls": [[null.kind, null.surrogate] for null in null_lines(run)],
            "contrasts": [[one.name, [[*dose] for dose in one.doses.items()]] for one in contrasts_of(run.study)],
            "refits": _REFITS[purpose],
            "seed": seed,
        }
    )


_TABLES = ("outcomes", "clean")


def _entries(folder: Path) -> dict[str, Any]:
    """What is kept, by purpose; nothing where it is damaged."""
    try:
        entries = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _read(entry: object, key: str) -> Found | None:
    """What is kept under the key; None of another key, or where it is damaged."""
    if not isinstance(entry, dict) or entry.get("key") != key:
        return None
    try:
        return _form().validate_python(entry.get("found"))
    except ValueError:
        return None


def _write(folder: Path, entries: Mapping[str, Any]) -> None:
    """Where the folder can be written to: what could be explained is shown in any case.

    NaN and infinities are written as Python's JSON does: the file is read by this module alone.
    """
    text = json.dumps(entries, default=lambda number: number.item(), separators=(",", ":"))
    try:
        write_bytes(folder / FILE, text.encode())
    except UserError:
        return


@cache
def _form() -> TypeAdapter[Found]:
    from pydantic import TypeAdapter

    return TypeAdapter(Found)
