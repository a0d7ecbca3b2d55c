"""What a file may say in a field's place besides what it becomes, for the JSON Schema that editors read.

A validator takes such a thing apart; beside it stands what it takes, and `tests/study/test_file_schema.py` holds
the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

TEXT: JsonSchemaValue = {"type": "string"}


@dataclass(frozen=True)
class AlsoWritten:
    """Marks a field that a file may also fill by what ``form``, a JSON Schema, describes."""

    form: JsonSchemaValue

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [self.form, handler(core)]}


def name_or_mapping(
    core: CoreSchema,
    handler: GetJsonSchemaHandler,
    properties: JsonSchemaValue,
    *required: str,
    name: JsonSchemaValue,
) -> JsonSchemaValue:
    """The schema of a model that a file writes as a bare name, or as a mapping with these properties.

    Args:
        core: of the model.
        handler: pydantic's.
        properties: of the mapping; what they do not name are hyper-parameters or options.
        *required: those that it must have.
        name: what the bare name may be.
    """
    made = handler(core)
    own = handler.resolve_ref_schema(made)
    description = own.get("description")
    own.clear()
    own["description"] = description
    mapping = {"type": "object", "properties": properties, "required": [*required]}
    own["anyOf"] = [name, mapping]
    return made
