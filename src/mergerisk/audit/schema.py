"""The audit file: what is going to be released, and what an attacker could get."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from mergerisk.audit.gates import Gate, parse_gate
from mergerisk.errors import Fault, Place, UserError, located, place
from mergerisk.given_settings import with_settings
from mergerisk.models.core.stated import StatedOrBase  # pydantic reads it
from mergerisk.report.pareto import TOLERANCE
from mergerisk.study.fields.basics import RESERVED_TARGETS, Model, Seed, check_folder_name
from mergerisk.study.fields.budgets import Budgets
from mergerisk.study.fields.defenses import Defenses
from mergerisk.study.fields.models import Data, Heads, OtherArchitecture, Outsider, TaskSpec
from mergerisk.study.fields.named import AttackSpec, MethodSpec
from mergerisk.study.fields.names import BackboneName, ModelName, Placing
from mergerisk.study.fields.surrogates import OTHER_ARCHITECTURE, OUTSIDER
from mergerisk.study.fields.written import TEXT, AlsoWritten
from mergerisk.study.paths import without_places
from mergerisk.study.resolving import resolve
from mergerisk.study.schema import Study
from mergerisk.tasks.sources.class_folders import FolderSource
from mergerisk.validation import Count, ImageSize, findings
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SCHEMA_VERSION: Literal[1] = 1

Scenario = Literal["ingredients", "pretrained", "outsider", "other_architecture", "other_merges", "merged"]
"""Who attacks, by what they hold: a public ingredient; the public base; a fine-tune of their own; a model of
another architecture; the public ingredients, merged by themselves as the candidates are; the merged model itself,
the upper bound."""

_ATTACKS = ("i_fgsm", "mi_fgsm", "di_fgsm")

_RELEASED = "merged"

_ONE_TASK: dict[str, Any] = {
    "anyOf": [TEXT, {"type": "object", "properties": {"task": TEXT}, "required": ["task"]}]
}
"""As a file writes the only task."""


class Audit(Model):
    """Everything that decides an audit's verdict.

    Attributes:
        schema_version: of this format.
        name: what the verdict is titled with, and the audit's folder is called; the audit file's, without its
            ending, by default.
        base: the pretrained backbone; see :func:`mergerisk.load_encoder`.
        image_size: side of the images it sees; that of its pretraining by default.
        preprocessing: see :class:`mergerisk.study.Study`.
        ingredients: name → folder, file or hub id of every model that was merged, or is going to be. One with the
            name of a task is that task's expert.
        merged: the model to be released: folder, file or hub id, or several by name.
        candidates: merging methods to choose from.
        images: labelled images: a folder with one folder per class or another task, or several by name. Where a
            folder does not tell test from training images, all are for the test, unless something learns from
            the others: then half, or ``test_share``.
        heads: see :class:`mergerisk.study.fields.models.Heads`; by default those that come with the checkpoints.
        defenses: what may be put around models, to see what it gains; whoever knows a defense attacks it too, with
            each task's own ingredient.
        scenarios: the attackers.
        outsider: the attacker of that scenario.
        other_architecture: the surrogate of that scenario.
        attacks: the verdict takes the strongest of them.
        budgets: grid of ε.
        images_per_task: attacked images, class-balanced.
        accuracy_tolerance: clean accuracy that may be given up for safety, as a share.
        fail_if: gates; see :func:`mergerisk.audit.gates.parse_gate`.
        seed: of everything random.
        calibration: see :class:`mergerisk.study.Study`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = "audit"
    base: BackboneName
    image_size: ImageSize | None = None
    preprocessing: StatedOrBase = None
    ingredients: Annotated[dict[str, ModelName], Field(min_length=1)]
    merged: Annotated[dict[str, ModelName], AlsoWritten(TEXT)] = Field(default_factory=dict)
    candidates: Annotated[tuple[MethodSpec, ...], AlsoWritten(TEXT)] = ()
    images: Annotated[dict[str, Data], Field(min_length=1), AlsoWritten(_ONE_TASK)]
    heads: Heads = Heads(source="checkpoint")
    defenses: Defenses = ()
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1), AlsoWritten(TEXT)] = (
        "ingredients",
        "pretrained",
    )
    outsider: Outsider | None = None
    other_architecture: OtherArchitecture | None = None
    attacks: Annotated[tuple[AttackSpec, ...], Field(min_length=1, validate_default=True), AlsoWritten(TEXT)] = (
        _ATTACKS  # type: ignore[assignment]
    )
    budgets: Budgets = Budgets.model_validate({"epsilon": ["1/255", "2/255", "4/255", "8/255"]})
    images_per_task: Count = 500
    accuracy_tolerance: Annotated[float, Field(ge=0, lt=1)] = TOLERANCE
    fail_if: Annotated[tuple[str, ...], AlsoWritten(TEXT)] = ()
    seed: Seed = 0
    calibration: Literal["held_out", "test"] = "held_out"
    _given: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("candidates", "scenarios", "attacks", "fail_if", mode="before")
    @classmethod
    def _one_is_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str) -> str:
        return check_folder_name(name, "the audit's folder")

    @field_validator("merged", mode="before")
    @classmethod
    def _one_merged(cls, value: object) -> object:
        return {_RELEASED: value} if isinstance(value, str) else value

    @field_validator("images", mode="before")
    @classmethod
    def _one_task(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("task"), str)):
            spec = TaskSpec.model_validate(value, context=info.context)
            return {spec.source.name: spec}
        return value

    @field_validator("images")
    @classmethod
    def _named(cls, images: dict[str, TaskSpec]) -> dict[str, TaskSpec]:
        return {
            name: spec
            if spec.source.name == name
            else spec.model_copy(update={"options": {**spec.options, "name": name}})
            for name, spec in images.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Audit:
        taken = (*RESERVED_TARGETS, OUTSIDER, OTHER_ARCHITECTURE, *self.models)
        for name in self.ingredients:
            if name in taken and name not in self.images:
                raise ValueError(f"ingredients: {name!r} is what results call another model; give it another name")
        if not self.merged and not self.candidates:
            raise ValueError("merged, candidates: give the model to be released, or methods to choose from")
        for field, section in (("outsider", self.outsider), ("other_architecture", self.other_architecture)):
            if section is not None and field not in self.scenarios:
                raise ValueError(f"{field}: not among the scenarios; add it there")
        if "other_merges" in self.scenarios and (not self.candidates or len(self.models) < 2):
            raise ValueError(
                "scenarios: other_merges: give candidates, the methods by which an attacker may merge"
            )
        without = next((name for name in self.images if self.defenses and name not in self.ingredients), None)
        if without is not None:
            raise ValueError(
                f"defenses: no ingredient is called {without!r}, as the images are, and an attacker who knows a "
                "defense holds their own; name the ingredients after the images"
            )
        for text in self.fail_if:
            parse_gate(text)
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """What is audited: the models made elsewhere, then the candidates."""
        return (*self.merged, *(spec.label for spec in self.candidates))

    @property
    def gates(self) -> tuple[Gate, ...]:
        """What makes the audit fail."""
        return tuple(parse_gate(text) for text in self.fail_if)

    def as_given(self, spec: str) -> str:
        """A model or image set as the audit's file calls it; of an absolute path the last part, since where it
        lies is nobody's business, and what is published must not tell."""
        return str(without_places(self._given.get(spec, spec)))

    def to_study(self) -> Study:
        """The study that answers the audit.

        Raises:
            UserError: its parts do not fit one another.
        """
        experts = {name: spec for name, spec in self.ingredients.items() if name in self.images}
        others = {name: spec for name, spec in self.ingredients.items() if name not in self.images}
        content: dict[str, Any] = {
            "name": self.name,
            "description": f"The study behind the audit {self.name!r}.",
            "backbone": self.base,
            "image_size": self.image_size,
            "preprocessing": self.preprocessing,
            "tasks": self._tasks(),
            "heads": self.heads,
            "experts": {"from": "files", "files": experts},
            "ingredients": others,
            "outsider": self.outsider,
            "other_architecture": self.other_architecture,
            "merging": self.candidates,
            "targets": [{"label": label, "encoder": spec} for label, spec in self.merged.items()],
            "defenses": self.defenses,
            "attacks": self.attacks,
            "surrogates": [
                *dict.fromkeys(
                    spec for scenario in self.scenarios for spec in self._surrogates(scenario, experts)
                ),
                *(["aware"] if self.defenses else []),
            ],
            "budgets": self.budgets,
            "images_per_task": self.images_per_task,
            "seeds": (self.seed,),
            "calibration": self.calibration,
        }
        with in_words_of_audits():
            try:
                return resolve(Study(**content))
            except ValidationError as error:
                raise UserError(*findings(error)) from error

    def _tasks(self) -> tuple[TaskSpec, ...]:
        """The images; of a folder that does not tell test from training, all are attacked if nothing learns from
        any."""
        learns = self._learns()
        return tuple(
            spec
            if learns or not isinstance(spec.source, FolderSource) or "test_share" in spec.options
            else spec.model_copy(update={"options": {**spec.options, "test_share": 1.0}})
            for spec in self.images.values()
        )

    def _learns(self) -> bool:
        """Whether heads, an attacker or a candidate learn from the audited tasks' other images."""
        from mergerisk.merging import create
        from mergerisk.models.sources.hub import is_hub_id
        from mergerisk.models.sources.loading import has_batch_norm

        own = self.outsider is None or (self.outsider.task is None and self.outsider.file is None)
        reading = estimated = False
        for position, spec in enumerate(self.candidates):
            with located(place("candidates", position)):
                method = create(spec.name, **spec.parameters)
            reading |= method.needs_calibration
            estimated |= not method.encoder_per_task
        if estimated and not reading and self.calibration == "held_out" and not is_hub_id(self.base):
            with located(place("base")):
                reading = has_batch_norm(self.base, image_size=self.image_size)
        return (
            self.heads.source == "linear_probe"
            or (OUTSIDER in self.scenarios and own)
            or OTHER_ARCHITECTURE in self.scenarios
            or (reading and self.calibration == "held_out")
        )

    def _surrogates(self, scenario: Scenario, experts: Iterable[str]) -> list[str]:
        match scenario:
            case "ingredients":
                own = set(experts)
                return [f"{'expert' if name in own else 'ingredient'}/{name}" for name in self.ingredients]
            case "merged":
                return [f"merged/{name}" for name in self.models]
            case "other_merges":
                return [f"merged/{spec.label}" for spec in self.candidates]
            case _:
                return [scenario]


@contextmanager
def in_words_of_audits() -> Iterator[None]:
    """User errors about a study's fields are about the audit's, from which they come."""
    try:
        yield
    except UserError as error:
        raise UserError(*(Fault(one.text, one.place and _of_audit(one.place)) for one in error.found)) from error


def _of_audit(where: Place) -> Place:
    """The audit's field that a study's comes from."""
    match where.path, where.item:
        case ("targets",), str(label) if label:
            return place("merged") if label == _RELEASED else place("merged", label)
        case ("experts", "files", task, *inside), item:
            return place("ingredients", task, *inside, item=item)
        case ("merging", *inside), item:
            return place("candidates", *inside, item=item)
        case ("surrogates",), str(scenario) if scenario == OTHER_ARCHITECTURE:
            return place("scenarios", item=scenario)
        case _:
            return where


def load_audit(path: str | Path, *, fail_if: Iterable[str] = (), settings: Sequence[str] = ()) -> Audit:
    """An audit from a YAML file.

    Args:
        path: the file; relative paths in it start from its folder.
        fail_if: gates besides the file's own.
        settings: values instead of the file's; see :func:`mergerisk.given_settings.with_settings`.

    Raises:
        UserError: no such file, not YAML, or a field that is wrong; the message names it.
    """
    path = Path(path)
    content, placing = with_settings(read_mapping(path, "an audit"), settings), Placing(path.parent)
    content.setdefault("name", path.stem)
    gates = content.get("fail_if", [])
    content["fail_if"] = [*(gates if isinstance(gates, list) else [gates]), *fail_if]
    with located(str(path)):
        try:
            audit = Audit.model_validate(content, context={Placing: placing})
        except ValidationError as error:
            raise UserError(*findings(error, Audit.model_fields)) from error
    audit._given = placing.given
    return audit
