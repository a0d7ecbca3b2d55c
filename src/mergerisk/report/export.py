"""`summary.json`: the figures of the report for other programs."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk._version import __version__
from mergerisk.report.document import (
    Document,
    WrittenDeclaration,
    WrittenDoubt,
    WrittenExample,
    WrittenTable,
)
from mergerisk.report.fact_words import said
from mergerisk.report.summary import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.summary import Summary
    from mergerisk.statistics.explaining import Explanations, Moves
    from mergerisk.study.tables.catalogue import Kept


def summary_to_json(summary: Summary) -> str:
    """Write a summary as strict JSON (RFC 8259: no NaN, no Infinity).

    The object is a :class:`mergerisk.report.document.Document`. NaN is written as null, infinities as the strings
    ``"inf"`` and ``"-inf"``; other numbers keep their full precision. Rates are fractions in [0,1], ``delta_asr``
    is in percentage points, budgets are in [0,1] pixel units.
    """
    document = document_of(summary)
    # tables are plain already, value by value
    content = {
        field.name: vars(value) if isinstance(value, WrittenTable) else plain(value)
        for field in fields(document)
        if (value := getattr(document, field.name)) is not None
    }
    for name in ("changed", "references"):
        if not getattr(summary.run, name):
            del content["run"][name]
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def document_of(summary: Summary) -> Document:
    """A summary as ``summary.json`` has it: without pictures, facts in words, tables column by column."""
    return Document(
        schema_version=summary.schema_version,
        run=summary.run,
        **{name: _table(getattr(summary, name)) for name in COLUMNS},
        examples=tuple(
            WrittenExample(**{field.name: getattr(example, field.name) for field in fields(WrittenExample)})
            for example in summary.examples
        ),
        claims=summary.claims,
        doubts=tuple(WrittenDoubt(doubt.kind, said(doubt)) for doubt in summary.doubts),
        standings=summary.standings,
        beside_ingredients=summary.beside_ingredients,
        further={kept.declared.name: _declared(kept) for kept in summary.further} or None,
        explanations=summary.explanations,
        moves=summary.moves,
        prices=summary.prices,
    )


def explanations_to_json(found: Explanations, moves: Moves | None = None) -> str:
    """What explains who is fooled as strict JSON: ``schema_version``, ``mergerisk``, the fields of
    :class:`mergerisk.statistics.explaining.Explanations`, and ``moves``, those of
    :class:`mergerisk.statistics.explaining.Moves`, where something was changed."""
    return found_to_json({**explanations_to_dict(found), **({} if moves is None else {"moves": moves})})


def explanations_to_dict(found: Explanations) -> dict[str, Any]:
    """What explains who is fooled as plain data: NaN as null, what cannot be said as its reason."""
    result: dict[str, Any] = plain(found)
    return result


def found_to_json(found: Any) -> str:
    """What a command found as strict JSON: ``schema_version``, ``mergerisk``, and its fields as :func:`plain` has
    them.

    Args:
        found: a dataclass, or a mapping.
    """
    document = {"schema_version": 1, "mergerisk": __version__, **plain(found)}
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)


def summary_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that `summary_to_json`'s documents keep to."""
    text = resources.files("mergerisk.report").joinpath("summary.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def plain(value: Any) -> Any:
    """Turn a value into what strict JSON can hold: dataclasses → their fields, tables → ``columns`` and ``data``,
    NaN and missing → None, ±inf → "inf" / "-inf"."""
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "columns") and hasattr(value, "iloc"):
        return vars(_table(value))
    if isinstance(value, dict) or hasattr(value, "items"):
        return _mapping(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
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


def _table(frame: pd.DataFrame) -> WrittenTable:
    columns = [_column(frame[name]) for name in frame.columns]
    return WrittenTable(tuple(map(str, frame.columns)), tuple(zip(*columns, strict=True)))


def _declared(kept: Kept) -> WrittenDeclaration:
    declared = kept.declared
    return WrittenDeclaration(
        declared.one_row_per, declared.columns, declared.may_be_empty, declared.file, len(kept.rows)
    )


def _column(values: pd.Series[Any]) -> list[Any]:
    """A column as `plain` values; of numbers, only those that are not finite need a look."""
    listed = values.tolist()
    if values.dtype.kind not in "iuf":
        return [plain(value) for value in listed]
    for place in np.flatnonzero(~np.isfinite(values.to_numpy())).tolist():
        listed[place] = plain(listed[place])
    return listed
