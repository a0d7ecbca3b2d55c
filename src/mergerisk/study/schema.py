"""The study file: typed, versioned, checked before anything runs."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt, ValidationError, ValidationInfo, field_validator, model_validator

from mergerisk.errors import Faults, UserError, did_you_mean, located
from mergerisk.models.core.stated import StatedOrBase  # noqa: TC001  # pydantic reads it
from mergerisk.study.hub_experts import hub_experts
from mergerisk.study.paths import with_paths, without_places
from mergerisk.study.shipped import shipped_studies
from mergerisk.study.specs import (
    FILES,
    OTHER_ARCHITECTURE,
    OUTSIDER,
    RESERVED_TARGETS,
    AttackSpec,
    Budgets,
    Experts,
    Heads,
    MethodSpec,
    Model,
    OtherArchitecture,
    Outsider,
    Seed,
    Source,
    SurrogateSpec,
    TargetSpec,
    TaskSpec,
    no_twins,
)
from mergerisk.tasks.loading import SUITES
from mergerisk.validation import findings
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Literal[1] = 1

__all__ = ["SCHEMA_VERSION", "Study", "load_study", "parse_study"]


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
        other_architecture: a surrogate that shares nothing with the merged models but the task.
        merging: methods to compare.
        attacks: transfer attacks.
        surrogates: models the attacker holds; see :data:`mergerisk.study.specs.SURROGATES`. ``merged`` alone
            stands for every merge: white box, the upper bound.
        targets: models made elsewhere and black boxes to try the adversarial images on, besides the merges.
        budgets: grid of ε.
        images_per_task: attacked images per task, class-balanced, from the test split.
        seeds: each is a replicate of all that is random: fine-tuning, calibration draws, attacks.
        calibration: unlabelled images data-driven methods read: ``held_out`` shares none with the test split;
            ``test`` reproduces the papers, whose merges see the images that are attacked.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = "study"
    description: str = ""
    backbone: Source
    image_size: PositiveInt | None = None
    preprocessing: StatedOrBase = None
    tasks: Annotated[tuple[TaskSpec, ...], Field(min_length=1)]
    heads: Heads = Heads()
    experts: Experts = Experts()
    ingredients: dict[str, Source] = Field(default_factory=dict)
    outsider: Outsider | None = None
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
    budgets: Budgets
    images_per_task: PositiveInt = 1000
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    calibration: Literal["held_out", "test"] = "held_out"

    @model_validator(mode="before")
    @classmethod
    def _merges_as_surrogates(cls, content: object, info: ValidationInfo) -> object:
        """``merged`` stands for all of them."""
        if not isinstance(content, dict) or not isinstance(content.get("surrogates"), list | tuple):
            return content
        try:
            labels = [
                MethodSpec.model_validate(spec, context=info.context).label for spec in content.get("merging", ())
            ]
        except ValidationError:
            return content  # said where it belongs
        every = [f"merged/{label}" for label in labels]
        given = [every if spec == "merged" else [spec] for spec in content["surrogates"]]
        return content | {"surrogates": [spec for specs in given for spec in specs]}

    @field_validator("tasks", mode="before")
    @classmethod
    def _suites(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return [
            task for spec in given for task in (SUITES.get(spec, (spec,)) if isinstance(spec, str) else (spec,))
        ]

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        no_twins([spec.called for spec in tasks], "task")
        return tasks

    @model_validator(mode="after")
    def _names_differ(self) -> Study:
        merges = [spec.label for spec in self.merging]
        targets = [*self.target_labels]
        no_twins(merges, "merging label")
        no_twins(targets, "target label")
        no_twins([spec.label for spec in self.attacks], "attack label")
        no_twins([spec.label for spec in self.surrogates], "surrogate label")
        others = [
            spec.label
            for spec in self.surrogates
            if spec.label not in RESERVED_TARGETS and not spec.members[0].startswith("merged/")
        ]
        no_twins(targets + others, "label of a target and a surrogate")
        no_twins([str(seed) for seed in self.seeds], "seed")
        if not targets:
            raise ValueError("merging, targets: name a merging method, or a model to attack")
        return self

    @model_validator(mode="after")
    def _tasks_known(self) -> Study:
        mentioned: list[tuple[str, Iterable[str]]] = [
            ("heads.templates", self.heads.templates),
            ("heads.class_names", self.heads.class_names),
            ("heads.files", self.heads.files),
            ("experts.files", self.experts.files),
            *((f"targets: {target.label}", target.places) for target in self.targets),
        ]
        for place, named in mentioned:
            for task in named:
                if task not in self.task_names:
                    raise ValueError(f"{place}: unknown task {task!r}{did_you_mean(task, self.task_names)}")
        if self.heads.source == "files":
            for task in self.task_names:
                if task not in self.heads.files:
                    raise ValueError(f"heads.files: task {task!r} has none; give the file with its head")
        for name in self.ingredients:
            if name in (*self.task_names, OUTSIDER, *RESERVED_TARGETS):
                raise ValueError(f"ingredients: {name!r} is taken; a task's own expert belongs into experts.files")
        return self

    @model_validator(mode="after")
    def _surrogates_exist(self) -> Study:
        references = {reference for spec in self.surrogates for reference in spec.references}
        known: dict[str, tuple[str, ...]] = {
            "expert": self.with_expert,
            "ingredient": tuple(self.ingredients),
            "merged": (
                *(spec.label for spec in self.merging),
                *(spec.label for spec in self.targets if spec.encoder),
            ),
        }
        for kind, name in sorted(references, key=str):
            if name is not None and name not in known[kind]:
                raise ValueError(f"surrogates: {kind}/{name}: no {kind} {name!r}{did_you_mean(name, known[kind])}")
            if kind == "expert" and name is None:
                for task in self.task_names:
                    if task not in self.with_expert:
                        raise ValueError(
                            f"surrogates: expert: task {task!r} has none; give its file under experts.files, or "
                            "name other surrogates"
                        )
            if kind == "other_expert" and len(self.merged_names) < 2:
                raise ValueError("surrogates: other_expert: there is no second ingredient")
            if kind == OTHER_ARCHITECTURE and self.other_architecture is None:
                raise ValueError("surrogates: other_architecture: say which: other_architecture: {backbone: …}")
        kinds = {kind for kind, _ in references}
        if self.other_architecture is not None and OTHER_ARCHITECTURE not in kinds:
            raise ValueError("other_architecture: no surrogate is; add it to surrogates")
        if self.outsider is not None and not self.outsider.offered and OUTSIDER not in kinds:
            raise ValueError("outsider: neither among the surrogates nor offered to be merged")
        return self

    @property
    def target_labels(self) -> tuple[str, ...]:
        """What results call the targets that are no ingredients: merges, then the others."""
        return (*(spec.label for spec in self.merging), *(spec.label for spec in self.targets))

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
        """How many tasks are attacked on every merging method and target."""
        return (
            *(len(self.tasks) for _ in self.merging),
            *(len(spec.places) or len(self.tasks) for spec in self.targets),
        )

    def resolved(self) -> Study:
        """The study with every hyper-parameter's default filled in, all of them checked.

        Raises:
            UserError: an unknown hyper-parameter, or a value out of range.
        """
        from mergerisk.finetuning.fine_tune import FineTuning
        from mergerisk.validation import construct

        faults, experts = Faults(), self.experts
        with faults.collecting():
            fine_tune = construct(FineTuning, experts.fine_tune, "experts.fine_tune")
            experts = experts.model_copy(update={"fine_tune": dataclasses.asdict(fine_tune)})
        for place, changes in (("outsider", self.outsider), (OTHER_ARCHITECTURE, self.other_architecture)):
            if changes is not None:
                with faults.collecting():
                    construct(FineTuning, changes.fine_tune, f"{place}.fine_tune")
        if experts.source == "hub":
            with faults.collecting():
                found = hub_experts(self.backbone, self.task_names)
                experts = experts.model_copy(update={"files": found | experts.files})
        attacks, merging = [], []
        for i, attack in enumerate(self.attacks):
            with faults.collecting():
                attacks.append(_resolve_attack(attack, self.budgets.steps, f"attacks[{i}]"))
        if len(attacks) == len(self.attacks):
            with faults.collecting():
                _check_after(self.budgets.after, tuple(attacks))
        for i, method in enumerate(self.merging):
            with faults.collecting():
                merging.append(_resolve_method(method, self, f"merging[{i}]"))
        faults.settle()
        return self.model_copy(update={"merging": tuple(merging), "attacks": tuple(attacks), "experts": experts})

    def to_yaml(self, *, places: bool = True) -> str:
        """The study as a file that :func:`load_study` reads back.

        Args:
            places: without them, for a file that is published: of absolute paths the last part alone.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        content["tasks"] = [spec.as_written() for spec in self.tasks]
        for field, key in (("merging", "method"), ("attacks", "attack")):
            content[field] = [
                {key: spec["name"], **spec["parameters"], "label": spec["label"]} for spec in content[field]
            ]
        if self.outsider is not None and self.outsider.task is not None:
            content["outsider"]["task"] = self.outsider.task.as_written()
        content["surrogates"] = [spec.as_written() for spec in self.surrogates]
        content["budgets"]["epsilon"] = [_as_fraction(value) for value in self.budgets.epsilon]
        if not places:
            content = without_places(content)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _as_fraction(value: float) -> float | str:
    """``2/255`` for budgets that are simple fractions of 255, for readers' sake."""
    scaled = Fraction(value * 255).limit_denominator(16)
    text = f"{scaled.numerator}/{255 * scaled.denominator}"
    return text if scaled > 0 and float(Fraction(text)) == value else value


def _resolve_method(spec: MethodSpec, study: Study, where: str) -> MethodSpec:
    from mergerisk.merging import Stacked, create

    with located(where):
        method = create(spec.name, **spec.parameters)
        if not study.merged_names:
            raise UserError("there is nothing to merge: give experts.files or ingredients")
        method.check_count(len(study.merged_names))
        _check_data(spec, study, reads_images=method.needs_calibration, per_task=method.encoder_per_task)
    if isinstance(method, Stacked):
        parameters = dataclasses.asdict(method.method)  # type: ignore[call-overload]
        parameters[method.correction.name] = dataclasses.asdict(method.correction)  # type: ignore[call-overload]
    else:
        parameters = dataclasses.asdict(method)  # type: ignore[call-overload]
    return spec.model_copy(update={"parameters": parameters})


def _check_data(spec: MethodSpec, study: Study, *, reads_images: bool, per_task: bool) -> None:
    """A method that reads images of every ingredient's task needs tasks for ingredients; one that serves every
    task with parts of its own, ingredients for tasks."""
    without = [*study.ingredients]
    if study.outsider is not None and study.outsider.offered and study.outsider.task is None:
        without.append(OUTSIDER)
    if reads_images and without:
        raise UserError(f"{spec.name} reads images of every ingredient's task, and {without[0]!r} has no task")
    if per_task or "+" in spec.name:
        for task in study.task_names:
            if task not in study.with_expert:
                raise UserError(f"{spec.name} has parts for single tasks, and {task!r} has no expert")


def _resolve_attack(spec: AttackSpec, steps: int, where: str) -> AttackSpec:
    from mergerisk.attacks import create, describe

    with located(where):
        attack = create(spec.name, **spec.parameters)
        if hasattr(attack, "steps") and "steps" not in spec.parameters:
            attack = create(spec.name, **spec.parameters, steps=steps)
    return spec.model_copy(update={"parameters": describe(attack)})


def _check_after(after: tuple[int, ...], attacks: tuple[AttackSpec, ...]) -> None:
    from mergerisk.attacks import create

    most = max(create(spec.name, **spec.parameters).iterations for spec in attacks)
    if after and after[-1] >= most:
        raise UserError(f"budgets.after: {after[-1]} steps: no attack of the study takes more than {most}")


def load_study(
    name: str | Path, *, resolve: bool = True, data: str | Path | None = None, files: bool = True
) -> Study:
    """A study from a file, or one that ships with the package.

    Args:
        name: ``"starter"``, or the path of a YAML file.
        resolve: check hyper-parameters and fill in their defaults, for which implementations are imported.
        data: what relative paths in the study are relative to; by default the study file's folder.
        files: see that tasks, methods and attacks are there. Those of a finished run were, once, and its results
            need none of them; its paths are placed already, and stay as they are.

    Raises:
        UserError: no such study, not YAML, or a field that is wrong; the message names it.
    """
    path = _find(name)
    content = read_mapping(path, "a study")
    content.setdefault("name", path.stem)
    if data is not None and not Path(data).is_dir():
        raise UserError(f"--data {data}: no such folder")
    try:
        return parse_study(content, path.parent if data is None else Path(data), resolve=resolve, files=files)
    except UserError as error:
        shipped = data is None and str(name) in shipped_studies()
        hint = "; give the folder with what it reads: --data DIR" if shipped else ""
        raise UserError(*(f"{path}: {fault}{hint}" for fault in error.faults)) from error


def parse_study(
    content: dict[str, Any], folder: Path | None = None, *, resolve: bool = True, files: bool = True
) -> Study:
    """A study from a mapping.

    Args:
        content: the fields of :class:`Study`.
        folder: what relative paths in it are relative to; the working directory by default.
        resolve: see :func:`load_study`.
        files: likewise.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    try:
        placed = with_paths(content, folder or Path()) if files else content
        study = Study.model_validate(placed, context={FILES: files})
    except ValidationError as error:
        raise UserError(*findings(error, Study.model_fields)) from error
    return study.resolved() if resolve else study


def _find(name: str | Path) -> Path:
    shipped = shipped_studies()
    if str(name) in shipped:
        return shipped[str(name)]
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise UserError(f"{path}: no such file")
    raise UserError(
        f"unknown study {str(name)!r}{did_you_mean(str(name), shipped)}; or give the path of a YAML file"
    )
