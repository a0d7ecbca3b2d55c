"""What is chosen by name, with hyper-parameters: methods, attacks, defenses, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, model_validator

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.causes.catalogue import CAUSES
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.merging.catalogue import split_name
from mergerisk.study.fields.basics import RESERVED_TARGETS, Model, looks, no_twins
from mergerisk.study.fields.interventions import Intervention

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Named(Model):
    """A registered name with its hyper-parameters and the label that results use.

    In a study file either the bare name, or a mapping of the name, the hyper-parameters and, optionally, a label.
    """

    name: str
    parameters: dict[str, Any]
    label: str

    @staticmethod
    def parse(value: object, key: str) -> dict[str, Any]:
        if isinstance(value, str):
            return {"name": value, "parameters": {}, "label": value}
        if not isinstance(value, dict) or not isinstance(value.get(key), str):
            raise ValueError(f"must be a name, or a mapping with {key!r} and hyper-parameters")  # noqa: TRY004
        rest = {name: given for name, given in value.items() if name not in {key, "label"}}
        return {"name": value[key], "parameters": rest, "label": value.get("label", value[key])}


class MethodSpec(_Named):
    """A merging method: ``ties`` or ``{method: ties, density: 0.1, label: ties-10}``; or a merge that something is
    changed about: ``{method: ties, placebo: true}``, called ``ties@placebo`` unless it has a label of its own.

    Attributes:
        intervention: what is changed, if anything is.
    """

    intervention: Intervention | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        parsed = cls.parse(value, "method")
        changed = Intervention.of(value) if isinstance(value, dict) else None
        if changed is None:
            return parsed
        parsed["parameters"].pop(changed.kind)
        own = isinstance(value, dict) and "label" in value
        label = parsed["label"] if own else f"{parsed['label']}@{changed.called}"
        return parsed | {"intervention": changed, "label": label}

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> MethodSpec:
        if looks(info):
            split_name(self.name)
        if self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a target that is no merge")
        return self


class AttackSpec(_Named):
    """An attack: ``mi_fgsm`` or ``{attack: mi_fgsm, decay: 0.9, label: mi-0.9}``."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.parse(value, "attack")

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> AttackSpec:
        if looks(info):
            ATTACKS.check(self.name)
        return self


class DefenseSpec(_Named):
    """A defense of merges or of models made elsewhere: ``{defense: bit_depth, of: [ties], bits: 3}``.

    Attributes:
        of: what is defended, by its label; each gives one target.
    """

    of: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        given = value.get("of") if isinstance(value, dict) else None
        if not given:
            raise ValueError("say what is defended: of: [LABEL, …]")
        parsed = cls.parse(value, "defense")
        parsed["parameters"].pop("of")
        return parsed | {"of": [given] if isinstance(given, str) else given}

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> DefenseSpec:
        if looks(info):
            DEFENSES.check(self.name)
        no_twins([*self.of], "defended model")
        return self

    @property
    def labels(self) -> Mapping[str, str]:
        """What results call each defended model (``ties+bit_depth``, or the label of one) → what is defended."""
        if len(self.of) == 1 and self.label != self.name:
            return {self.label: self.of[0]}
        return {f"{of}+{self.label}": of for of in self.of}

    def as_written(self) -> object:
        """As a study file says it."""
        return {"defense": self.name, "of": list(self.of), **self.parameters, "label": self.label}


class CauseSpec(_Named):
    """A diagnostic: its name, or ``{cause: NAME}`` with hyper-parameters."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.parse(value, "cause")

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> CauseSpec:
        if looks(info):
            CAUSES.check(self.name)
        if self.label != self.name:
            raise ValueError("label: a diagnostic has its own name")
        return self

    def as_written(self) -> object:
        """As a study file says it."""
        return {"cause": self.name, **self.parameters} if self.parameters else self.name


class TableSpec(_Named):
    """A further table: its name, or ``{table: NAME}`` with hyper-parameters."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.parse(value, "table")

    @model_validator(mode="after")
    def _known(self) -> TableSpec:
        if self.label != self.name:
            raise ValueError("label: a table has its own name")
        return self

    def as_written(self) -> object:
        """As a study file says it."""
        return {"table": self.name, **self.parameters} if self.parameters else self.name
