"""Whether the figures that an entry states are those that its outcomes give."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from mergerisk.errors import UserError, first_line
from mergerisk.leaderboard.entries import RESULTS, RESULTS_CSV, SUMMARY
from mergerisk.provenance import versions
from mergerisk.report.export import plain, summary_to_json
from mergerisk.report.formatting import plural
from mergerisk.report.summary import COLUMNS, SCHEMA_VERSION
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mergerisk.leaderboard.entries import Entry

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
"""Sums differ in their last digits from machine to machine, and no more."""

_NAMES = ("task", "model", "attack", "surrogate", "target", "epsilon", "epsilon_from", "seed", "steps")
"""Columns that say which row a fault is in."""

_WORDS = {"reason"}
"""Columns of text, which another version may word otherwise."""

_OF_A_RUN = (
    "tasks", "methods", "attacks", "surrogates", "epsilons", "norm", "seeds", "images_per_task", "settings",
    "calibration", "versions", "device", "started", "seconds", "counts",
)  # fmt: skip
_JUDGED = ("standings", "beside_ingredients", "claims", "prices")

_DRAWING = ("numpy", "scipy", "pandas")
"""Libraries whose versions may move what is drawn by chance: ends of bootstrap intervals."""


@dataclass(frozen=True)
class _Differs:
    """Where two documents differ: a path, and what either has there."""

    path: str
    stated: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.path} is {_short(self.stated)}, outcomes give {_short(self.found)}"


def disagreements(entry: Entry) -> Iterator[str]:
    """What an entry states otherwise than its outcomes say: a line per fault."""
    stated = _read(entry.folder / SUMMARY)
    if isinstance(stated, str):
        yield stated
        return
    version = stated.get("schema_version")
    if version != SCHEMA_VERSION:
        yield (
            f"{SUMMARY}: written in schema {_short(version)}, this mergerisk reads {SCHEMA_VERSION}: write it "
            f"anew with the version that checks it: mergerisk report {entry.folder}"
        )
        return
    found: dict[str, Any] = json.loads(summary_to_json(entry.summary))
    faults = [*_summary(stated, found), *_tables(entry, pd.DataFrame(**found["results"]))]
    yield from (f"{fault}{_hint(entry)}" for fault in faults)
    yield from _study(entry, stated)


def _read(path: Path) -> dict[str, Any] | str:
    """A JSON file's mapping, or what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (
            f"{path.name}: missing: the figures that are to be checked; write it: mergerisk report {path.parent}"
        )
    except (OSError, ValueError, RecursionError) as error:
        return f"{path.name}: cannot be read: {first_line(error)}"
    return content if isinstance(content, dict) else f"{path.name}: holds no mapping"


def _summary(stated: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in COLUMNS:
        if name not in stated:
            yield f"{SUMMARY}: {name}: missing"
            continue
        try:
            table = pd.DataFrame(**stated[name])
        except (TypeError, ValueError):
            yield f"{SUMMARY}: {name}: is no table"
            continue
        yield from (f"{SUMMARY}: {name}: {fault}" for fault in _table(table, pd.DataFrame(**found[name])))
    run = stated.get("run")
    given = {name: run.get(name) for name in _OF_A_RUN} if isinstance(run, dict) else {}
    for name in _OF_A_RUN:
        if (first := next(_differences(given.get(name), found["run"][name], f"run.{name}"), None)) is not None:
            said = f"{first.path} is {_short(first.stated)}"
            yield f"{SUMMARY}: {said}, {_short(first.found)} by run.json, study.yaml and outcomes"
    for name in _JUDGED:
        differ = [*_differences(stated.get(name), found.get(name), name)]
        if differ:
            more = f"; {plural(len(differ) - 1, 'more figure')} there" if differ[1:] else ""
            yield f"{SUMMARY}: {differ[0]}{more}"


def _tables(entry: Entry, results: pd.DataFrame) -> Iterator[str]:
    """The tables beside the summary, which need not be there."""
    for name, read in ((RESULTS, pd.read_parquet), (RESULTS_CSV, _read_csv)):
        path = entry.folder / name
        if path.is_file():
            try:
                table: pd.DataFrame = read(path)
            except (OSError, ValueError) as error:
                yield f"{name}: cannot be read: {first_line(error)}"
                continue
            yield from (f"{name}: {fault}" for fault in _table(table, results))


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])  # a name may be NA


def _table(stated: pd.DataFrame, found: pd.DataFrame) -> Iterator[str]:
    """Where two tables differ: columns that lack, rows, and per column how many figures."""
    lacking = [name for name in found.columns if name not in stated.columns]
    if lacking:
        yield f"lacks the {'column' if len(lacking) == 1 else 'columns'} {', '.join(lacking)}"
    if len(stated) != len(found):
        yield f"has {plural(len(stated), 'row')}, outcomes give {len(found)}"
        return
    for name in found.columns:
        if name in lacking or name in _WORDS:
            continue
        pairs = zip(map(_value, stated[name].tolist()), map(_value, found[name].tolist()), strict=True)
        wrong = [(place, *pair) for place, pair in enumerate(pairs) if not _same(*pair)]
        if wrong:
            place, given, right = wrong[0]
            row = found.iloc[place]
            keys = ", ".join(f"{key} {row[key]}" for key in _NAMES if key in found.columns and key != name)
            more = f"; so in {plural(len(wrong) - 1, 'more row')}" if wrong[1:] else ""
            yield f"{name} is {_short(given)}, outcomes give {_short(right)} ({keys}){more}"


def _value(value: Any) -> Any:
    """A cell as plain data: None of what is missing; infinities are text in JSON."""
    found = plain(value)
    return {"inf": math.inf, "-inf": -math.inf}.get(found, found) if isinstance(found, str) else found


def _same(stated: Any, found: Any) -> bool:
    if isinstance(stated, bool) or isinstance(found, bool):
        return stated is found
    if isinstance(stated, int | float) and isinstance(found, int | float):
        return math.isclose(stated, found, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(stated == found)


_SAID = ("verdict", "name", "first", "second", "target", "surrogate", "task", "attack", "kind", "bound", "unit")
"""Of texts inside a document, those that are no sentences."""


def _differences(stated: Any, found: Any, path: str) -> Iterator[_Differs]:
    """Figures of two documents that differ; sentences, which another version may word otherwise, are not looked
    at."""
    if isinstance(found, dict) and isinstance(stated, dict):
        for name in found:
            if name not in stated:
                yield _Differs(f"{path}.{name}", None, found[name])
                continue
            text = isinstance(found[name], str) and isinstance(stated[name], str)
            if not text or name in _SAID:
                yield from _differences(stated[name], found[name], f"{path}.{name}")
    elif isinstance(found, list) and isinstance(stated, list):
        if len(stated) != len(found):
            yield _Differs(f"the length of {path}", len(stated), len(found))
            return
        for place, (one, other) in enumerate(zip(stated, found, strict=True)):
            yield from _differences(one, other, f"{path}[{place}]")
    elif not _same(stated, found):
        yield _Differs(path, stated, found)


def _study(entry: Entry, stated: Mapping[str, Any]) -> Iterator[str]:
    """A study file that is not the one that the summary was made with: nothing of its hyper-parameters can be seen
    in outcomes."""
    run = stated.get("run")
    text = run.get("study_yaml") if isinstance(run, dict) else None
    try:
        then = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        then = None
    now = yaml.safe_load((entry.folder / "study.yaml").read_text(encoding="utf-8"))
    if then != without_places(now):
        yield f"study.yaml: is not the study that {SUMMARY} was made of (run.study_yaml)"


def _hint(entry: Entry) -> str:
    """Libraries of other versions than the entry's, which may move ends of intervals."""
    here, there = versions(), entry.run.record["versions"]
    other = [f"{name} {there.get(name)}, here {here[name]}" for name in _DRAWING if there.get(name) != here[name]]
    return f" (its {'; its '.join(other)}: bootstrap intervals may differ for that reason)" if other else ""


def _short(value: Any) -> str:
    text = "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping.

    Raises:
        UserError: it is none.
    """
    found = _read(path)
    if isinstance(found, str):
        raise UserError(found)
    return found


def differences(stated: Any, found: Any, path: str) -> Sequence[str]:
    """Figures of two documents that differ, a line each."""
    return [str(one) for one in _differences(stated, found, path)]
