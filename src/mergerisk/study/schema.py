"""The study file: typed, versioned, checked before anything runs."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from mergerisk.causes.catalogue import CAUSES
from mergerisk.errors import Fault, Place, UserError, did_you_mean, place
from mergerisk.models.core.stated import StatedOrBase  # pydantic reads it
from mergerisk.study.fields.basics import (
    RESERVED_TARGETS,
    Model,
    Seed,
    check_folder_name,
    looks,
    no_twins,
)
from mergerisk.study.fields.budgets import Budgets
from mergerisk.study.fields.checks import Checks
from mergerisk.study.fields.defenses import Defenses, DefenseSpec, behind_all, check_defended, each_defense
from mergerisk.study.fields.interventions import each_of
from mergerisk.study.fields.models import Averaged, Data, Experts, Heads, OtherArchitecture, Outsider, TaskSpec
from mergerisk.study.fields.named import AttackSpec, CauseSpec, MethodSpec, TableSpec
from mergerisk.study.fields.names import BackboneName, ModelName
from mergerisk.study.fields.search import Search
from mergerisk.study.fields.surrogates import (
    ADAPTIVE,
    AVERAGED,
    KNOWING,
    OTHER_ARCHITECTURE,
    OUTSIDER,
    WHITE_BOX,
    SurrogateSpec,
)
from mergerisk.study.fields.targets import ROUTED, ReferenceLine, TargetSpec
from mergerisk.study.fields.written import TEXT, AlsoWritten
from mergerisk.study.paths import without_places
from mergerisk.tasks.loading import SUITES
from mergerisk.validation import Count, ImageSize

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Literal[1] = 1

__all__ = ["SCHEMA_VERSION", "Study"]


class Study(Model):
    """Everything that decides a study's results.

    Attributes:
        schema_version: of this format.
        name: what the report is titled with, and the run's folder is called; the study file's, without its
            ending, by default.
        description: a sentence for the report.
        backbone: of base, experts and merges; see :func:`mergerisk.load_encoder`.
        image_size: side of the images the backbone sees, in pixels; that of its pretraining by default.
        preprocessing: mean, std and resampling of the pixels that the backbone and every model made from it see,
            instead of their own; or ``base``: the backbone's own for all of them.
        tasks: suites, starter tasks, paths, tasks of the hub.
        heads: how heads are made.
        experts: where experts come from.
        ingredients: name → folder, file or hub id of a model that is merged too, though no task of the study is
            its own.
        outsider: an attacker who fine-tunes the backbone with data of their own.
        averaged: an attacker who crafts on the average of checkpoints of their own fine-tuning.
        other_architecture: a surrogate that shares nothing with the merged models but the task.
        merging: methods to compare, and merges that something is changed about, to see what moves with it.
        attacks: transfer attacks.
        surrogates: models the attacker holds; see :data:`mergerisk.study.fields.surrogates.SURROGATES`.
            ``merged`` alone stands for every merge: white box, the upper bound.
        targets: models made elsewhere and black boxes to try the adversarial images on, besides the merges.
        references: lines to hold the merges against that are no merges, and never ranked: ``experts_ensemble``,
            the mean of all ingredients' probabilities, each under the attacked task's head; ``experts_routed``,
            every task answered by its own expert.
        defenses: what is put around merges or models made elsewhere, or trains them, each a target of its own.
        checks: how hard defended models are attacked before one is said to defend.
        causes: diagnostics that may explain transfer, of every pair of surrogate and target at the middle budget;
            ``all`` for every one.
        tables: further tables that the run leaves, which installed packages add.
        budgets: grid of ε.
        images_per_task: attacked images per task, class-balanced.
        attacked: images of the ``test`` split; or the held-out ``calibration`` images, and clean accuracy is of
            these, to choose by without a look at the test images.
        seeds: each is a replicate of all that is random: fine-tuning, calibration draws, attacks.
        calibration: unlabelled images data-driven methods read: ``held_out`` shares none with the test split;
            ``test`` reproduces the papers, whose merges see the images that are attacked.
        search: among which recipes :func:`mergerisk.recommend` looks for the best trades; a run reads none of it.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = "study"
    description: str = ""
    backbone: BackboneName
    image_size: ImageSize | None = None
    preprocessing: StatedOrBase = None
    tasks: Annotated[tuple[Data, ...], Field(min_length=1), AlsoWritten(TEXT)]
    heads: Heads = Heads()
    experts: Experts = Experts()
    ingredients: dict[str, ModelName] = Field(default_factory=dict)
    outsider: Outsider | None = None
    averaged: Averaged | None = None
    other_architecture: OtherArchitecture | None = None
    merging: tuple[MethodSpec, ...] = ()
    attacks: Annotated[tuple[AttackSpec, ...], Field(min_length=1)]
    surrogates: Annotated[tuple[SurrogateSpec, ...], Field(min_length=1)] = Field(
        default_factory=lambda: (
            SurrogateSpec(members=("expert",), label="expert"),
            SurrogateSpec(members=("pretrained",), label="pretrained"),
        )
    )
    targets: tuple[TargetSpec, ...] = ()
    references: tuple[ReferenceLine, ...] = ()
    defenses: Defenses = ()
    checks: Checks = Checks()
    causes: Annotated[tuple[CauseSpec, ...], AlsoWritten({"const": "all"})] = ()
    tables: tuple[TableSpec, ...] = ()
    budgets: Budgets
    images_per_task: Count = 1000
    attacked: Literal["test", "calibration"] = "test"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    calibration: Literal["held_out", "test"] = "held_out"
    search: Search | None = None

    @model_validator(mode="before")
    @classmethod
    def _merges_as_surrogates(cls, content: object, info: ValidationInfo) -> object:
        """``merged`` stands for all of them; ``aware``, ``adaptive`` and ``white_box`` for all defended models."""
        if not isinstance(content, dict) or not isinstance(content.get("surrogates"), list | tuple):
            return content
        try:
            defenses = [
                DefenseSpec.model_validate(spec, context=info.context)
                for spec in each_defense(content.get("defenses", ()))
            ]
            specs = [
                MethodSpec.model_validate(spec, context=info.context)
                for entry in content.get("merging", ())
                for spec in each_of(entry)
            ]
        except (ValidationError, ValueError):
            return content  # said where it belongs
        defended = [label for spec in defenses for label in spec.labels]
        every = {kind: [f"{kind}/{label}" for label in defended] for kind in (*KNOWING, WHITE_BOX)}
        if ADAPTIVE in content["surrogates"]:
            every[ADAPTIVE] = [f"{ADAPTIVE}/{of}" for spec in defenses if spec.stands_before for of in spec.labels]
        every["merged"] = [f"merged/{spec.label}" for spec in specs if spec.intervention is None]
        given = [
            every[spec] if isinstance(spec, str) and every.get(spec) else [spec] for spec in content["surrogates"]
        ]
        return content | {"surrogates": [spec for specs in given for spec in specs]}

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str, info: ValidationInfo) -> str:
        return name if not looks(info) else check_folder_name(name, "the run's folder")

    @field_validator("tasks", mode="before")
    @classmethod
    def _suites(cls, value: object) -> object:
        """A suite's name stands for its tasks; a single task needs no list."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return [
            task for spec in given for task in (SUITES.get(spec, (spec,)) if isinstance(spec, str) else (spec,))
        ]

    @field_validator("merging", mode="before")
    @classmethod
    def _each_merge(cls, value: object) -> object:
        """An entry that lists changes stands for a merge each."""
        return [spec for entry in value for spec in each_of(entry)] if isinstance(value, list | tuple) else value

    @field_validator("causes", mode="before")
    @classmethod
    def _every_cause(cls, value: object) -> object:
        return [*CAUSES] if value == "all" else value

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        no_twins([spec.called for spec in tasks], "task")
        return tasks

    @model_validator(mode="after")
    def _names_differ(self) -> Study:
        """See that no two things that results name are called alike, and that there is something to rank."""
        merges = [spec.label for spec in self.merging]
        targets = [*self.target_labels]
        no_twins(merges, "merging label")
        no_twins([*targets, *self.references], "target label")
        no_twins([spec.label for spec in self.attacks], "attack label")
        no_twins([spec.label for spec in self.surrogates], "surrogate label")
        others = [
            spec.label
            for spec in self.surrogates
            if spec.label not in RESERVED_TARGETS and spec.references[0].kind != "merged"
        ]
        no_twins([*targets, *self.references, *others], "label of a target and a surrogate")
        no_twins([str(seed) for seed in self.seeds], "seed")
        no_twins([spec.name for spec in self.tables], "table")
        no_twins([spec.name for spec in self.causes], "diagnostic")
        if not targets:
            raise ValueError("merging, targets: name a merging method, or a model to attack")
        if not self.ranked:
            raise ValueError("merging: name a merge as it is beside those that something is changed about")
        return self

    @model_validator(mode="after")
    def _tasks_known(self) -> Study:
        """See that what is said per task is said of the study's tasks, and that ingredients take no name of
        theirs."""
        mentioned: list[tuple[Place, Iterable[str]]] = [
            (place("heads", "templates"), self.heads.templates),
            (place("heads", "class_names"), self.heads.class_names),
            (place("heads", "files"), self.heads.files),
            (place("experts", "files"), self.experts.files),
            *((place("targets", item=target.label), target.places) for target in self.targets),
        ]
        for where, named in mentioned:
            for task in named:
                if task not in self.task_names:
                    unknown = f"unknown task {task!r}{did_you_mean(task, self.task_names)}"
                    raise UserError(Fault(unknown, where))
        if self.heads.source == "files":
            for task in self.task_names:
                if task not in self.heads.files:
                    lacks = f"task {task!r} has none; give the file with its head"
                    raise UserError(Fault(lacks, place("heads", "files")))
        for name in self.ingredients:
            if name in (*self.task_names, OUTSIDER, *RESERVED_TARGETS):
                taken = f"{name!r} is taken; a task's own expert belongs into experts.files"
                raise UserError(Fault(taken, place("ingredients")))
        return self

    @model_validator(mode="after")
    def _surrogates_exist(self) -> Study:
        """See that every model an attacker holds is one of the study's, and that none is described for nothing."""
        references = {reference for spec in self.surrogates for reference in spec.references}
        known: dict[str, tuple[str, ...]] = {
            "expert": self.with_expert,
            "ingredient": tuple(self.ingredients),
            "merged": (
                *(spec.label for spec in self.merging),
                *(spec.label for spec in self.targets if spec.encoder),
                *self.defended,
            ),
            **dict.fromkeys(KNOWING, tuple(self.defended)),
        }
        for kind, name in sorted(references, key=str):
            if name is not None and kind in known and name not in known[kind]:
                near = did_you_mean(name, known[kind])
                what = "defended model" if kind in KNOWING else kind
                raise UserError(Fault(f"no {what} {name!r}{near}", place("surrogates", item=f"{kind}/{name}")))
            if (kind == "expert" and name is None) or kind in KNOWING:
                for task in self.task_names:
                    if task not in self.with_expert:
                        lacks = (
                            f"task {task!r} has none; give its file under experts.files, or name other surrogates"
                        )
                        raise UserError(Fault(lacks, place("surrogates", item=kind)))
            if kind == "other_expert" and len(self.merged_names) < 2:
                raise UserError(Fault("there is no second ingredient", place("surrogates", item=kind)))
            if kind == OTHER_ARCHITECTURE and self.other_architecture is None:
                which = "say which: other_architecture: {backbone: …}"
                raise UserError(Fault(which, place("surrogates", item=kind)))
        if self.other_architecture is not None and OTHER_ARCHITECTURE not in self.held:
            raise UserError(Fault("no surrogate is; add it to surrogates", place("other_architecture")))
        if self.outsider is not None and not self.outsider.offered and OUTSIDER not in self.held:
            unused = "neither among the surrogates nor offered to be merged"
            raise UserError(Fault(unused, place("outsider")))
        if self.averaged is not None and AVERAGED not in self.held:
            raise UserError(Fault("no surrogate is; add it to surrogates", place("averaged")))
        return self

    @model_validator(mode="after")
    def _defended_exist(self) -> Study:
        """See that what is defended is a merge, or a model made elsewhere, of the study."""
        known = [spec.label for spec in self.merging] + [spec.label for spec in self.targets if spec.encoder]
        check_defended(self.defended, known, [spec.label for spec in self.targets if not spec.encoder])
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> Study:
        """See that there are experts to hold merges against."""
        for name in self.references:
            if not (self.with_expert if name == ROUTED else self.merged_names):
                raise UserError(Fault(f"{name}: there is no expert; give experts.files", place("references")))
        return self

    @property
    def held(self) -> frozenset[str]:
        """Kinds of the models that attackers hold, and that defenses are trained on."""
        looked_at = [reference for spec in self.defenses for reference in spec.references]
        attacking = [reference for spec in self.surrogates for reference in spec.references]
        return frozenset(reference.kind for reference in (*attacking, *looked_at))

    @property
    def defended(self) -> dict[str, str]:
        """What results call each defended model → what is defended, which may be defended itself."""
        return {label: of for spec in self.defenses for label, of in spec.labels.items()}

    @property
    def undefended(self) -> dict[str, str]:
        """What results call each defended model → the model behind all of its defenses."""
        return {label: behind_all(label, self.defended) for label in self.defended}

    @property
    def target_labels(self) -> tuple[str, ...]:
        """What results call the targets that are no ingredients: merges, others, what is defended."""
        defended = [label for spec in self.defenses for label in spec.labels]
        return (*(spec.label for spec in self.merging), *(spec.label for spec in self.targets), *defended)

    @property
    def changed(self) -> tuple[str, ...]:
        """The merges that something is changed about: targets that nobody would deploy, and never ranked."""
        return tuple(spec.label for spec in self.merging if spec.intervention is not None)

    @property
    def ranked(self) -> tuple[str, ...]:
        """The targets of which it is asked which is the safest."""
        return tuple(label for label in self.target_labels if label not in self.changed)

    @property
    def task_names(self) -> tuple[str, ...]:
        """What results call the tasks."""
        return tuple(spec.called for spec in self.tasks)

    @property
    def with_expert(self) -> tuple[str, ...]:
        """The tasks that have an expert."""
        if self.experts.source == "fine_tune":
            return self.task_names
        return tuple(
            task for task in self.task_names if task in self.experts.files or self.experts.source == "hub"
        )

    @property
    def merged_names(self) -> tuple[str, ...]:
        """The ingredients of every merge, in the order that coefficients belong to."""
        offered = (OUTSIDER,) if self.outsider is not None and self.outsider.offered else ()
        return (*self.with_expert, *self.ingredients, *offered)

    @property
    def settings(self) -> int:
        """Merging methods × tasks × attacks, and so of every target the tasks that it answers."""
        return sum(self.tasks_of_targets) * len(self.attacks)

    @property
    def tasks_of_targets(self) -> tuple[int, ...]:
        """How many tasks are attacked on every merging method, target and defended model."""
        return (
            *(len(self.tasks) for _ in self.merging),
            *(len(spec.places) or len(self.tasks) for spec in self.targets),
            *(len(self.tasks) for _ in self.defended),
        )

    def to_yaml(self, *, places: bool = True) -> str:
        """The study as a file that :func:`load_study` reads back, but for ``search``, by which no run goes.

        Args:
            places: without them, for a file that is published: of absolute paths the last part alone.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"search"})
        for field in ("tasks", "merging", "attacks", "surrogates", "defenses", "causes", "tables"):
            content[field] = [spec.as_written() for spec in getattr(self, field)]
        for field in ("defenses", "causes", "tables"):
            if not content[field]:
                del content[field]
        if not self.defenses:
            del content["checks"]
        if self.attacked == "test":
            del content["attacked"]
        if not self.references:
            del content["references"]
        if self.outsider is not None and self.outsider.task is not None:
            content["outsider"]["task"] = self.outsider.task.as_written()
        content["budgets"]["epsilon"] = [_as_fraction(value) for value in self.budgets.epsilon]
        if not places:
            content = without_places(content)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _as_fraction(value: float) -> float | str:
    """``2/255`` for budgets that are simple fractions of 255, for readers' sake."""
    scaled = Fraction(value * 255).limit_denominator(16)
    text = f"{scaled.numerator}/{255 * scaled.denominator}"
    return text if scaled > 0 and float(Fraction(text)) == value else value
