"""The JSON Schema of a file that people write, for their editors: fields, names and hyper-parameters as they type.

What the schema refuses is wrong; it cannot know whether models and files exist. Names that it does not know are
let through, since other installed packages may add some.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mergerisk.attacks import ATTACKS, ENSEMBLE_ALGORITHMS, FILTERS, INPUTS, GradientFilter, InputTransform
from mergerisk.causes import CAUSES
from mergerisk.defenses import DEFENSES
from mergerisk.docstrings import described
from mergerisk.finetuning import Collecting, FineTuning
from mergerisk.merging import CORRECTIONS, METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import core_schema

    from mergerisk.registry import Entry, Registry
    from mergerisk.study.fields.basics import Model

Schema = dict[str, Any]

_CHOSEN: Mapping[str, tuple[str, Registry[Any]]] = {
    "MethodSpec": ("method", METHODS),
    "AttackSpec": ("attack", ATTACKS),
    "AlgorithmSpec": ("algorithm", ENSEMBLE_ALGORITHMS),
    "CauseSpec": ("cause", CAUSES),
    "DefenseSpec": ("defense", DEFENSES),
}
"""Definition of what is chosen by name → what stands before the name in a mapping, and where the names are."""


def written_schema(kind: type[Model], title: str) -> str:
    """A JSON Schema (draft 2020-12) of what may be written.

    Args:
        kind: what the file becomes, such as :class:`mergerisk.study.Study`.
        title: of the schema.
    """
    schema = kind.model_json_schema(schema_generator=_Written)
    for definition, (key, registry) in _CHOSEN.items():
        if definition in schema["$defs"]:
            _name_choices(schema["$defs"][definition], key, registry)
    for definition in schema["$defs"].values():
        if "fine_tune" in definition.get("properties", {}):
            definition["properties"]["fine_tune"] |= {"properties": parameters_of(FineTuning)}
        if "collect" in definition.get("properties", {}):
            definition["properties"]["collect"] |= {"properties": parameters_of(Collecting)}
    begin = {"$schema": GenerateJsonSchema.schema_dialect, "title": title}
    return json.dumps(begin | schema, indent=1, ensure_ascii=False) + "\n"


def parameters_of(kind: type) -> dict[str, Schema]:
    """Hyper-parameter → its JSON Schema, with what the docstrings of the class and its bases say of it."""
    found = TypeAdapter(kind).json_schema(schema_generator=_Written)
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        meanings |= described(base)[1] if base is not object else {}
    made = {name: field.default_factory for name, field in kind.__pydantic_fields__.items()}  # type: ignore[attr-defined]
    return {
        name: content
        | ({"description": meanings[name]} if name in meanings else {})
        | ({"default": made[name]()} if made[name] else {})
        for name, content in found.get("properties", {}).items()
    }


def _name_choices(definition: Schema, key: str, registry: Registry[Any]) -> None:
    """Write the names into a definition, and what each takes."""
    bare, mapping = definition["anyOf"]
    entries = registry.entries()
    names = [entry.name for entry in entries]
    corrections = CORRECTIONS.entries() if registry is METHODS else []
    names += [f"{entry.name}+{stacked.name}" for stacked in corrections for entry in entries]
    bare |= {"examples": names}
    mapping["properties"][key] = {"type": "string", "examples": names}
    own = mapping["properties"]
    stacked_on = {
        entry.name: {"type": "object", "properties": parameters_of(CORRECTIONS.load(entry.name))}
        for entry in corrections
    }
    mapping["allOf"] = [
        {
            "if": {"properties": {key: {"pattern": rf"^{entry.name}(\+|$)"}}},
            "then": {
                "description": _about(entry),
                "properties": parameters_of(registry.load(entry.name)) | stacked_on | dict.fromkeys(own, True),
                "additionalProperties": False,
            },
        }
        for entry in entries
    ]


def _about(entry: Entry) -> str:
    return entry.summary + (f" ({entry.paper})" if entry.paper else "")


class _Written(GenerateJsonSchema):
    """Models as their docstrings describe them; parts of attacks, which a file names, as names or mappings."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        found = super().model_schema(schema)
        found["description"], fields = described(schema["cls"])
        for name, meaning in fields.items():
            alias = schema["cls"].model_fields[name].alias or name
            found["properties"][alias]["description"] = meaning
        found.pop("title", None)
        return found

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> Schema:
        names = _PARTS[schema["cls"]].names()
        return {"anyOf": [{"type": "string", "examples": names}, {"type": "object"}]}


_PARTS: Mapping[type, Registry[Any]] = {InputTransform: INPUTS, GradientFilter: FILTERS}
"""What attacks are composed of → where its names are."""
