"""Writes ``summary.schema.json`` from the types of what ``summary.json`` holds.

``python -m mergerisk.report.document_schema`` writes the file anew; a test fails where it differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, SkipJsonSchema

from mergerisk import validation
from mergerisk.docstrings import described
from mergerisk.report.document import Document
from mergerisk.report.prices import PriceList
from mergerisk.report.summary import SCHEMA_VERSION, RunRecord
from mergerisk.statistics.explaining import Explanations, Moves
from mergerisk.statistics.safest import Standings
from mergerisk.study.tables.declared import Column

if TYPE_CHECKING:
    from pydantic_core import core_schema

FILE = Path(__file__).with_name("summary.schema.json")

_NAMES = {
    **{
        kind.__name__: kind
        for kind in (Mapping, Sequence, RunRecord, Standings, Explanations, Moves, PriceList, Column)
    },
    **{name: getattr(validation, name) for name in ("Share", "Positive", "NotNegative")},
    **{name: getattr(pydantic, name) for name in ("FiniteFloat", "NonNegativeInt", "PositiveInt")},
    "SkipJsonSchema": SkipJsonSchema,
}
"""What the types' annotations name that their modules import for type checkers alone."""


def written_schema() -> str:
    """The file's text: a JSON Schema (draft 2020-12) of :class:`mergerisk.report.document.Document`."""
    adapter = TypeAdapter[Document](Document)
    adapter.rebuild(_types_namespace=_NAMES)
    schema = adapter.json_schema(schema_generator=_Written, mode="serialization")
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    begin = {"$schema": GenerateJsonSchema.schema_dialect, "title": "Summary of a mergerisk study"}
    return json.dumps(begin | schema, indent=1, ensure_ascii=False) + "\n"


class _Written(GenerateJsonSchema):
    """Dataclasses as their docstrings describe them and with no further fields; floats as strict JSON has them."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        found = super().dataclass_schema(schema)
        found["description"], fields = described(schema["cls"])
        for name, content in found["properties"].items():
            content.update({"description": fields[name]} if name in fields else {})
        del found["title"]
        if getattr(schema["cls"], "__pydantic_config__", {}).get("extra") != "allow":
            found["additionalProperties"] = False
        return found

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False

    def float_schema(self, schema: core_schema.FloatSchema) -> dict[str, Any]:
        found = super().float_schema(schema)
        if schema.get("allow_inf_nan") is False:
            return found
        return {"anyOf": [{"type": ["number", "null"]}, {"enum": ["inf", "-inf"]}]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])  # absent is absent, not the default


if __name__ == "__main__":
    FILE.write_text(written_schema(), encoding="utf-8")
