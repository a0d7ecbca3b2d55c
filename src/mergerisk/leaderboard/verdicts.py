"""Whether an audit's verdict is what its outcomes say, and what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.audit import parse_gate
from mergerisk.audit.gate_results import try_gate
from mergerisk.audit.readings import ModelVerdict, read_outcomes
from mergerisk.errors import UserError
from mergerisk.leaderboard.agreeing import differences, read_json
from mergerisk.leaderboard.entries import VERDICT
from mergerisk.report.export import plain
from mergerisk.report.formatting import plural
from mergerisk.report.risk import mean_over_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.audit.readings import Curve, Reading
    from mergerisk.leaderboard.entries import Entry


@dataclass(frozen=True)
class Verdict:
    """How an audit ended.

    Attributes:
        gates: on what is to be released.
        failed: how many of them failed.
    """

    gates: int
    failed: int


def is_audit(entry: Entry) -> bool:
    """Whether an entry is an audit's folder."""
    return (entry.folder / VERDICT).is_file()


def verdict_of(entry: Entry) -> Verdict | None:
    """How an entry's audit ended, as it says itself; None of a study. See :func:`verdict_faults`."""
    if not is_audit(entry):
        return None
    gates = [gate for gate in read_json(entry.folder / VERDICT)["gates"] if gate["decides"]]
    return Verdict(len(gates), sum(gate["failed"] for gate in gates))


def verdict_faults(entry: Entry) -> Iterator[str]:
    """What an audit states otherwise than its outcomes say: a line per fault; none of a study."""
    if not is_audit(entry):
        return
    try:
        stated = read_json(entry.folder / VERDICT)
        faults = [*_faults(entry, stated)]
    except UserError as error:
        yield str(error)
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield f"{VERDICT}: is not what an audit leaves: {type(error).__name__} {error}"
        return
    yield from faults


def _faults(entry: Entry, stated: Mapping[str, Any]) -> Iterator[str]:
    names = [model["name"] for model in stated["models"]]
    unknown = [name for name in names if name not in entry.run.study.target_labels]
    if unknown:
        yield f"{VERDICT}: the study attacks no {unknown[0]}"
        return
    readings, curves = read_outcomes(entry.run.outcomes, names)
    models = {}
    for model in stated["models"]:
        models[model["name"]], faults = _model(entry, model, readings, curves, stated["reference_epsilon"], names)
        yield from faults
    released = any(model.released for model in models.values())
    failed = False
    for gate in stated["gates"]:
        model = models[gate["model"]]
        decides = model.released or not released
        found = try_gate(parse_gate(gate["gate"]["text"]), model, decides=decides)
        failed |= found.failed and decides
        if (found.failed, decides) != (gate["failed"], gate["decides"]):
            ends = "fails" if found.failed else "passes"
            yield f"{VERDICT}: gate {gate['gate']['text']!r}: by the outcomes {model.name} {ends} it"
    if failed != stated["failed"]:
        ends = "fails" if failed else "passes"
        yield f"{VERDICT}: failed is {stated['failed']}, by the outcomes the audit {ends}"


def _model(
    entry: Entry,
    stated: Mapping[str, Any],
    readings: list[Reading],
    curves: list[Curve],
    reference: float,
    models: list[str],
) -> tuple[ModelVerdict, list[str]]:
    """One audited model by its outcomes, from surrogates that the audit tells of; what it states otherwise."""
    name, faults = str(stated["name"]), []
    told = {reading["surrogate"] for reading in stated["readings"]}
    mine = [one for one in readings if one.model == name]
    silent = {one.surrogate for one in mine} - told - set(models)
    if silent:
        faults.append(f"{VERDICT}: {name}: says nothing of attacks made on {', '.join(sorted(silent))}")
    own = tuple(one for one in mine if one.surrogate in told)
    rows = entry.summary.accuracy[entry.summary.accuracy["model"] == name]
    black = [
        one
        for one in own
        if not one.white_box and math.isclose(one.epsilon, reference) and not math.isnan(one.asr)
    ]
    model = ModelVerdict(
        name,
        bool(stated["released"]),
        mean_over_tasks(rows, "accuracy", "low", "high"),
        dict(zip(rows["task"].tolist(), rows["accuracy"].tolist(), strict=True)),
        own,
        tuple(one for one in curves if one.model == name and one.surrogate in told),
        max(black, key=lambda one: one.asr, default=None),
    )
    differ = differences(stated, plain(model), f"models: {name}")
    if differ:
        more = f"; {plural(len(differ) - 1, 'more figure')} there" if differ[1:] else ""
        faults.append(f"{VERDICT}: {differ[0]}{more}")
    return model, faults
