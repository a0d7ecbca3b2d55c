"""`summary.json`: the figures of the report for other programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk._version import __version__
from mergerisk.report.fact_words import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.summary import Example, Summary
    from mergerisk.statistics.explaining import Explanations
    from mergerisk.study.tables.catalogue import Kept


def summary_to_json(summary: Summary) -> str:
    """Write a summary as strict JSON (RFC 8259: no NaN, no Infinity).

    The object has ``schema_version``, ``run``, ``examples`` (without their pictures), ``claims``,
    ``standings``, ``beside_ingredients`` and five tables:
    ``results``, ``by_step``, ``accuracy``, ``epsilon50`` and ``flags``, each
    ``{"columns": [...], "data": [[...], ...]}``,
    so ``pandas.DataFrame(**document["results"])`` restores one. NaN is written as null, infinities as the
    strings ``"inf"`` and ``"-inf"``; other numbers keep their full precision. Rates are fractions in [0,1],
    ``delta_asr`` is in percentage points, budgets are in [0,1] pixel units.
    """
    run = {field.name: plain(getattr(summary.run, field.name)) for field in fields(summary.run)}
    if not summary.run.changed:
        del run["changed"]
    run["stages"] = [plain(asdict(stage)) for stage in summary.run.stages]
    document = {
        "schema_version": summary.schema_version,
        "run": run,
        "results": _table(summary.results),
        "by_step": _table(summary.by_step),
        "accuracy": _table(summary.accuracy),
        "epsilon50": _table(summary.epsilon50),
        "flags": _table(summary.flags),
        "examples": [_without_pictures(example) for example in summary.examples],
        "claims": [plain(claim) for claim in summary.claims],
        "doubts": [{"kind": doubt.kind, "sentence": said(doubt)} for doubt in summary.doubts],
        "standings": [plain(asdict(found)) for found in summary.standings],
        "beside_ingredients": [plain(asdict(found)) for found in summary.beside_ingredients],
        **(
            {"further": {kept.declared.name: _declared(kept) for kept in summary.further}}
            if summary.further
            else {}
        ),
        **({"explanations": plain(asdict(summary.explanations))} if summary.explanations else {}),
        **({"moves": plain(asdict(summary.moves))} if summary.moves else {}),
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def explanations_to_json(found: Explanations) -> str:
    """What explains who is fooled as strict JSON: ``schema_version``, ``mergerisk`` and the fields of
    :class:`mergerisk.statistics.explaining.Explanations`."""
    document = {"schema_version": 1, "mergerisk": __version__, **explanations_to_dict(found)}
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)


def explanations_to_dict(found: Explanations) -> dict[str, Any]:
    """What explains who is fooled as plain data: NaN as null, what cannot be said as its reason."""
    result: dict[str, Any] = plain(asdict(found))
    return result


def summary_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that `summary_to_json`'s documents keep to."""
    text = resources.files("mergerisk.report").joinpath("summary.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def plain(value: Any) -> Any:
    """Turn a value into what strict JSON can hold: NaN and missing → None, ±inf → "inf" / "-inf"."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict) or hasattr(value, "items"):
        return _mapping(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return value
    # pandas' missing values (NA, NaT) are neither floats nor equal to themselves
    return str(value) if type(value).__name__ not in {"NAType", "NaTType"} else None


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): plain(item) for key, item in value.items()}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    columns = [_column(frame[name]) for name in frame.columns]
    return {
        "columns": [str(name) for name in frame.columns],
        "data": [list(row) for row in zip(*columns, strict=True)],
    }


def _declared(kept: Kept) -> dict[str, Any]:
    """What a further table is; its rows are in a file of their own, of which there may be many thousands."""
    return {**kept.declared.to_plain(), "file": kept.declared.file, "rows": len(kept.rows)}


def _column(values: pd.Series[Any]) -> list[Any]:
    """A column as `plain` values; of numbers, only those that are not finite need a look."""
    listed = values.tolist()
    if values.dtype.kind not in "iuf":
        return [plain(value) for value in listed]
    for place in np.flatnonzero(~np.isfinite(values.to_numpy())).tolist():
        listed[place] = plain(listed[place])
    return listed


def _without_pictures(example: Example) -> dict[str, Any]:
    pictures = {"clean", "adversarial", "perturbation"}
    return {f.name: plain(getattr(example, f.name)) for f in fields(example) if f.name not in pictures}
