"""The leaderboard as one object, and as JSON for other programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mergerisk._version import __version__
from mergerisk.leaderboard.ranking import rank
from mergerisk.leaderboard.verdicts import Verdict, verdict_of
from mergerisk.report.export import plain
from mergerisk.report.fact_words import said
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from mergerisk.leaderboard.checking import Checked
    from mergerisk.leaderboard.entries import Entry
    from mergerisk.leaderboard.ranking import Row, Table

SCHEMA_VERSION = 1
"""Of ``leaderboard.json``. Raised when a field changes its name or meaning."""


@dataclass(frozen=True)
class Submitted:
    """An entry, as the leaderboard speaks of it.

    Attributes:
        name: of its folder.
        study: the study's name.
        description: of the study; may be empty.
        base: what its ingredients were fine-tuned from.
        tasks: names.
        methods: how many are ranked or left out.
        images_per_task: attacked, at most.
        mergerisk: the version that computed it.
        started: when.
        verdict: of an audit; None of a study.
        doubts: why its figures say little of merging, in sentences.
        report: address of its report, from the page.
    """

    name: str
    study: str
    description: str
    base: str
    tasks: tuple[str, ...]
    methods: int
    images_per_task: int
    mergerisk: str
    started: str
    verdict: Verdict | None
    doubts: tuple[str, ...]
    report: str


@dataclass(frozen=True)
class Leaderboard:
    """What the page shows.

    Attributes:
        tables: the largest first.
        entries: by name.
    """

    tables: tuple[Table, ...]
    entries: tuple[Submitted, ...]

    def __repr__(self) -> str:
        return f"Leaderboard({sum(len(t.rows) for t in self.tables)} methods of {len(self.entries)} entries)"

    @property
    def frame(self) -> pd.DataFrame:
        """One row per ranked method: table, entry, method, rank and its interval, figures with theirs."""
        import pandas as pd

        rows = [{"table": place, **_flat(row)} for place, table in enumerate(self.tables) for row in table.rows]
        return pd.DataFrame(rows)


def leaderboard_of(entries: Sequence[Entry]) -> Leaderboard:
    """Entries that were checked, ranked."""
    return Leaderboard(
        rank(entries), tuple(_submitted(entry) for entry in sorted(entries, key=lambda entry: entry.name))
    )


def report_file(name: str) -> str:
    """Where an entry's report lies, from the page."""
    return f"reports/{name}.html"


def _submitted(entry: Entry) -> Submitted:
    run = entry.summary.run
    return Submitted(
        name=entry.name,
        study=run.study,
        description=run.description,
        base=without_places(entry.run.study.backbone),
        tasks=run.tasks,
        methods=len(entry.run.study.ranked),
        images_per_task=run.images_per_task,
        mergerisk=run.versions["mergerisk"],
        started=run.started,
        verdict=verdict_of(entry),
        doubts=tuple(said(doubt) for doubt in entry.summary.doubts),
        report=quote(report_file(entry.name)),
    )


def to_json(board: Leaderboard) -> str:
    """``leaderboard.json``: ``schema_version``, ``mergerisk`` and the fields of :class:`Leaderboard`.

    Rates are in [0, 1], budgets of pixels in [0, 1]; NaN is null. An ε50 below the smallest budget is ``"-inf"``,
    one that is not reached ``"inf"``.
    """
    content = {"schema_version": SCHEMA_VERSION, "mergerisk": __version__, **plain(asdict(board))}
    for table, shown in zip(board.tables, content["tables"], strict=True):
        shown["epsilon"] = table.epsilon
        for field in ("attacks", "attackers"):
            shown["terms"][field] = [json.loads(text) for text in getattr(table.terms, field)]
    return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def checked_to_json(checked: Sequence[Checked]) -> str:
    """What came of checking entries: ``schema_version``, ``mergerisk``, and per entry ``name``, ``sound`` and
    ``faults``."""
    found = [{"name": one.name, "sound": not one.faults, "faults": list(one.faults)} for one in checked]
    document = {"schema_version": SCHEMA_VERSION, "mergerisk": __version__, "entries": found}
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _flat(row: Row) -> dict[str, Any]:
    half = row.epsilon50
    means = {"asr": row.asr, "relative_asr": row.relative_asr, "clean_accuracy": row.clean_accuracy}
    flat: dict[str, Any] = {
        name: getattr(row, name) for name in ("entry", "method", "base", "rank", "rank_low", "rank_high", "images")
    }
    for name, mean in means.items():
        flat |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    ends = (math.nan,) * 3 if half is None else (half.value, half.low, half.high)
    flat |= dict(zip(("epsilon50", "epsilon50_low", "epsilon50_high"), ends, strict=True))
    return flat | {"attacker": row.attacker, "defenses": ", ".join(row.defenses)}
