"""A recommendation as JSON and CSV for programs, as a page, and as listeners are told it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from mergerisk.listeners.events import Candidate, SearchRound
from mergerisk.provenance import versions
from mergerisk.recommending.page import to_html
from mergerisk.recommending.scoring import front
from mergerisk.recommending.words import headline, search_line
from mergerisk.report.export import plain
from mergerisk.study.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mergerisk.recommending.result import Measured, Recommendation
    from mergerisk.recommending.scoring import Tried

JSON, TABLE, PAGE = "recommendation.json", "recommendation.csv", "recommendation.html"


def write_all(made: Recommendation) -> tuple[Path, ...]:
    """Write all of them into the folder; returns the files.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    texts = {JSON: to_json(made), TABLE: to_csv(made), PAGE: to_html(made)}
    for name, text in texts.items():
        write_bytes(made.folder / name, text.encode())
    return tuple(made.folder / name for name in texts)


def to_json(made: Recommendation) -> str:
    """Every field of :class:`~mergerisk.recommending.result.Recommendation`, and what the sentences say.

    Rates are in [0, 1], budgets in pixel units; NaN is null, infinity the string ``"inf"``.
    """
    content: dict[str, Any] = {
        "schema_version": 1,
        "study": made.study,
        "headline": headline(made),
        "search": search_line(made),
        "recommended": made.recommended,
        "recipes": [_measured(one) for one in made.recipes],
        "references": [_measured(one) for one in made.references],
        "beside": [
            asdict(one) | {"better": one.better, "worse": one.worse, "beats": one.beats} for one in made.beside
        ],
        "tried": [
            {
                "trial": one.number,
                **one.recipe.to_plain(),
                "accuracy": one.score.accuracy,
                "safety": one.score.safety,
            }
            for one in made.tried
        ],
        "attack": made.attack,
        "images": made.images,
        "epsilons": made.epsilons,
        "seconds": {"searching": made.seconds[0], "measuring": made.seconds[1]},
        "time": made.time,
        "notes": made.notes,
        "versions": versions(),
    }
    return json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _measured(one: Measured) -> dict[str, Any]:
    fields = asdict(one) | {"recipe": None if one.recipe is None else one.recipe.to_plain()}
    fields["searched"] = None if one.searched is None else one.searched._asdict()
    return fields


_ENDS = tuple(f"{axis}{end}" for axis in ("accuracy", "epsilon50") for end in ("", "_low", "_high"))
_COLUMNS = ("name", "recipe", "recommended", "best", *_ENDS, "attacker", "attack", "file")


def to_csv(made: Recommendation) -> str:
    """One row per recipe and merge that was measured."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_COLUMNS, *_rows(made)])
    return out.getvalue()


def table_of(made: Recommendation) -> pd.DataFrame:
    """The same as a table."""
    return pd.DataFrame(_rows(made), columns=[*_COLUMNS])


def _rows(made: Recommendation) -> list[tuple[str | float, ...]]:
    found: list[tuple[str | float, ...]] = []
    for one in dict.fromkeys((*made.recipes, *made.references)):
        figures = [value for axis in (one.accuracy, one.epsilon50) for value in (axis.value, axis.low, axis.high)]
        recipe = one.name if one.recipe is None else str(one.recipe)
        marks = [int(one.name == made.recommended), int(one.best)]
        found.append((one.name, recipe, *marks, *figures, one.attacker, one.attack, one.file))
    return found


def told_of(found: Sequence[Tried]) -> SearchRound:
    """What was tried, as listeners are told it."""
    best = {one.number for one in front(found)}
    return SearchRound(
        tuple(
            Candidate(one.number, str(one.recipe), one.score.accuracy, one.score.safety, one.number in best)
            for one in found
        )
    )
