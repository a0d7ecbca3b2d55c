"""What is chosen by name, with hyper-parameters: methods, attacks, diagnostics, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator, model_validator

from mergerisk.attacks.catalogue import ATTACKS, BROUGHT, ENSEMBLE_ALGORITHMS
from mergerisk.causes.catalogue import CAUSES
from mergerisk.merging.catalogue import split_name
from mergerisk.study.fields.basics import RESERVED_TARGETS, Model, looks
from mergerisk.study.fields.interventions import Intervention
from mergerisk.study.fields.names import Placing
from mergerisk.study.fields.written import TEXT, name_or_mapping

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Named(Model):
    """A registered name with its hyper-parameters and the label that results use.

    In a study file either the bare name, or a mapping of :attr:`key` to it, the hyper-parameters and, optionally,
    a label.
    """

    key: ClassVar[str]
    """What stands before the name in a mapping."""

    name: str
    parameters: dict[str, Any]
    label: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.taken_apart(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        own = handler.resolve_ref_schema(handler(core))
        fields = {name: field for name, field in own["properties"].items() if name not in {"name", "parameters"}}
        needed = [name for name in own["required"] if name in fields and name != "label"]
        return name_or_mapping(core, handler, cls.written(fields), cls.key, *needed, name=TEXT)

    @classmethod
    def written(cls, fields: JsonSchemaValue) -> JsonSchemaValue:
        """What a mapping says besides hyper-parameters, of the schemas of this class's own fields."""
        return {cls.key: TEXT} | fields

    @classmethod
    def taken_apart(cls, value: object) -> dict[str, Any]:
        """The fields, from what a study file says.

        Raises:
            ValueError: it is neither a name nor such a mapping.
        """
        if isinstance(value, str):
            return {"name": value, "parameters": {}, "label": value}
        if not isinstance(value, dict) or not isinstance(value.get(cls.key), str):
            message = f"must be a name, or a mapping with {cls.key!r} and hyper-parameters"
            raise ValueError(message)  # noqa: TRY004
        rest = {name: given for name, given in value.items() if name not in {cls.key, "label"}}
        return {"name": value[cls.key], "parameters": rest, "label": value.get("label", value[cls.key])}

    def as_written(self) -> object:
        """As a study file says it."""
        return {self.key: self.name, **self.parameters, "label": self.label}


class _Unlabelled(Named):
    """What results call by its own name."""

    what: ClassVar[str]
    """What it is, in words."""

    @classmethod
    def written(cls, fields: JsonSchemaValue) -> JsonSchemaValue:
        """What a mapping says besides hyper-parameters; see the base class."""
        return {name: form for name, form in super().written(fields).items() if name != "label"}

    @model_validator(mode="after")
    def _no_label(self) -> Self:
        if self.label != self.name:
            raise ValueError(f"label: a {self.what} has its own name")
        return self

    def as_written(self) -> object:
        """As a study file says it."""
        return {self.key: self.name, **self.parameters} if self.parameters else self.name


class MethodSpec(Named):
    """A merging method: ``ties`` or ``{method: ties, density: 0.1, label: ties-10}``; or a merge that something is
    changed about: ``{method: ties, placebo: true}``, called ``ties@placebo`` unless it has a label of its own.

    Attributes:
        intervention: what is changed, if anything is.
    """

    key: ClassVar[str] = "method"

    intervention: Intervention | None = None

    @classmethod
    def written(cls, fields: JsonSchemaValue) -> JsonSchemaValue:
        """What a mapping says besides hyper-parameters; see the base class."""
        own = {name: form for name, form in super().written(fields).items() if name != "intervention"}
        return own | Intervention.written()

    @classmethod
    def taken_apart(cls, value: object) -> dict[str, Any]:
        """The fields, from what a study file says; see the base class."""
        parsed = super().taken_apart(value)
        changed = Intervention.of(value) if isinstance(value, dict) else None
        if changed is None:
            return parsed
        parsed["parameters"].pop(changed.kind)
        own = isinstance(value, dict) and "label" in value
        label = parsed["label"] if own else f"{parsed['label']}@{changed.called}"
        return parsed | {"intervention": changed, "label": label}

    def as_written(self) -> object:
        """As a study file says it."""
        changed = {} if self.intervention is None else self.intervention.as_written()
        return {self.key: self.name, **self.parameters, **changed, "label": self.label}

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> MethodSpec:
        if looks(info):
            split_name(self.name)
        if self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a target that is no merge")
        return self


class AttackSpec(Named):
    """An attack: ``mi_fgsm`` or ``{attack: mi_fgsm, decay: 0.9, label: mi-0.9}``."""

    key: ClassVar[str] = "attack"

    @field_validator("parameters")
    @classmethod
    def _place_brought(cls, parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        placing = Placing.of(info)
        named = {name: parameters.get(name) for name in BROUGHT}
        if placing is None:
            return parameters
        return parameters | {name: placing.place(given) for name, given in named.items() if isinstance(given, str)}

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> AttackSpec:
        if looks(info):
            ATTACKS.check(self.name)
        return self


class AlgorithmSpec(_Unlabelled):
    """How attacks follow an ensemble: an algorithm's name, or ``{algorithm: NAME}`` with hyper-parameters."""

    key: ClassVar[str] = "algorithm"
    what: ClassVar[str] = "ensemble algorithm"

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> AlgorithmSpec:
        if looks(info):
            ENSEMBLE_ALGORITHMS.check(self.name)
        return self


class CauseSpec(_Unlabelled):
    """A diagnostic: its name, or ``{cause: NAME}`` with hyper-parameters."""

    key: ClassVar[str] = "cause"
    what: ClassVar[str] = "diagnostic"

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> CauseSpec:
        if looks(info):
            CAUSES.check(self.name)
        return self


class TableSpec(_Unlabelled):
    """A further table: its name, or ``{table: NAME}`` with hyper-parameters."""

    key: ClassVar[str] = "table"
    what: ClassVar[str] = "table"
