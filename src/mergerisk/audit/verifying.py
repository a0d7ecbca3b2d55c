"""Whether files are what was audited: their digests now against those that an audit kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.audit.audited import item_of, sources_of, title
from mergerisk.audit.schema import in_words_of_audits, load_audit
from mergerisk.errors import UserError
from mergerisk.study.finished import STUDY
from mergerisk.study.reading import load_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.audit.audited import Source
    from mergerisk.study import Study

SAME, DIFFERS, MISSING, ADDED = "the same", "DIFFERS", "MISSING", "ADDED"


@dataclass(frozen=True)
class Checked:
    """A file of what was audited, as it is now.

    Attributes:
        title: which model or image set.
        path: as it was given to the audit.
        file: of it; empty for what is no file.
        state: :data:`SAME`, :data:`DIFFERS`, :data:`MISSING`, or :data:`ADDED`: it decides now, and was not there.
        reason: why it is missing; empty otherwise.
    """

    title: str
    path: str
    file: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """What came of checking files against an audit.

    Attributes:
        date: of the audit; None if it was not kept.
        checked: every file.
    """

    date: str | None
    checked: tuple[Checked, ...]

    @property
    def agrees(self) -> bool:
        """Whether all are what was audited."""
        return all(one.state == SAME for one in self.checked)


def verify(folder: Path, file: str | Path | None = None) -> Verification:
    """Check the files that an audit rests on against the digests in its ``audit.json``.

    Args:
        folder: of the audit.
        file: an audit file that says where they are now; by default they are where the audit found them.

    Raises:
        UserError: the folder holds no such audit, or ``file`` names other things than were audited.
    """
    audited = _kept(folder)
    sources = {(source.role, source.name): source for source in sources_of(_study(folder, file))}
    checked: list[Checked] = []
    for item in audited["items"]:
        source = sources.get((item["role"], item["name"]))
        called = title(item["role"], item["name"])
        if source is None:
            raise UserError(
                f"{file or folder / STUDY}: names no {called}, which was audited; give the audit's file"
            )
        checked += _check(called, item, source)
    return Verification(audited["date"], tuple(checked))


def _kept(folder: Path) -> dict[str, Any]:
    from mergerisk.audit.running import JSON

    place = folder / JSON
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))["audited"]
        return {"date": kept["date"], "items": [*kept["items"]]}
    except OSError as error:
        raise UserError(
            f"{place}: cannot be read: {error.strerror}; give the folder of a finished audit"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}: says nothing of what was audited; run the audit again into {folder}") from error


def _study(folder: Path, file: str | Path | None) -> Study:
    if file is not None:
        with in_words_of_audits():
            return load_audit(file).to_study()
    try:
        return load_study(folder / STUDY, resolve=False)
    except UserError as error:
        raise UserError(
            f"{error}; say where the files are with the audit's own: mergerisk audit FILE --verify {folder}"
        ) from error


def _check(called: str, item: dict[str, Any], source: Source) -> list[Checked]:
    known: dict[str, str] = item["sha256"]
    try:
        now = item_of(source, item["path"], source.identity())
    except UserError as error:
        return [Checked(called, item["path"], file, MISSING, str(error)) for file in known or [""]]
    if not known:
        same = json.loads(json.dumps(dict(now.identity))) == item["identity"]
        return [Checked(called, item["path"], "", SAME if same else DIFFERS)]
    return [
        Checked(called, item["path"], file, _state(known.get(file), now.sha256.get(file)))
        for file in [*known, *(file for file in now.sha256 if file not in known)]
    ]


def _state(known: str | None, now: str | None) -> str:
    if known is None:
        return ADDED
    return MISSING if now is None else SAME if known == now else DIFFERS
