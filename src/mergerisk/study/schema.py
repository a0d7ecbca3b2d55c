"""The study file: typed, versioned, checked before anything runs."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.errors import UserError, did_you_mean
from mergerisk.merging.catalogue import split_name
from mergerisk.study.shipped import shipped_studies
from mergerisk.tasks.loading import SUITES, task_source
from mergerisk.validation import first_finding, parse_fraction
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA_VERSION: Literal[1] = 1

RESERVED_TARGETS = ("expert", "pretrained")
"""What results call the targets that are no merge."""


def _fraction(value: object) -> object:
    """``"2/255"`` as a number; anything else as it is."""
    return parse_fraction(value) if isinstance(value, str) else value


Epsilon = Annotated[float, BeforeValidator(_fraction), Field(gt=0, allow_inf_nan=False)]
"""A budget in pixel units, above 0; at most 1 if it is an L∞ one."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Named(_Model):
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
    """A merging method: ``ties`` or ``{method: ties, density: 0.1, label: ties-10}``."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.parse(value, "method")

    @model_validator(mode="after")
    def _known(self) -> MethodSpec:
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
    def _known(self) -> AttackSpec:
        ATTACKS.check(self.name)
        return self


class Heads(_Model):
    """Linear probes on the pretrained encoder; ``regularization`` is scikit-learn's C."""

    regularization: PositiveFloat = 1.0


class Experts(_Model):
    """Experts are fine-tuned in the run, except those whose weights are given.

    Attributes:
        fine_tune: hyper-parameters of :class:`mergerisk.FineTuning`.
        files: task name → ``.safetensors`` file with the encoder's parameters.
    """

    fine_tune: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, Path] = Field(default_factory=dict)


class Budgets(_Model):
    """The grid of budgets.

    Attributes:
        epsilon: budgets in pixel units, written as numbers or fractions (``2/255``).
        norm: what they bound: ``linf``, the change of any pixel, or ``l2``, the length of an image's change.
        steps: of every attack that takes several and does not say itself.
        after: numbers of steps after which outcomes are kept as well, for the attacks that take more.
    """

    epsilon: Annotated[tuple[Epsilon, ...], Field(min_length=1)]
    norm: Literal["linf", "l2"] = "linf"
    steps: PositiveInt = 10
    after: tuple[PositiveInt, ...] = ()

    @field_validator("epsilon", "after")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a number is given twice")
        return tuple(sorted(values))

    @model_validator(mode="after")
    def _in_range(self) -> Budgets:
        if self.norm == "linf" and self.epsilon[-1] > 1:
            raise ValueError(f"epsilon: an L∞ budget is at most 1, as pixels are; got {self.epsilon[-1]:g}")
        return self


class SurrogateSpec(_Model):
    """A model the attacker holds: ``expert``, ``pretrained``, or several at once:
    ``{ensemble: [expert, pretrained], combine: logits, label: both}``.

    Attributes:
        members: one, or those of an ensemble.
        combine: what an ensemble averages; see :class:`mergerisk.attacks.Ensemble`.
        label: what results call it.
    """

    members: Annotated[tuple[Literal["expert", "pretrained"], ...], Field(min_length=1)]
    combine: Literal["logits", "probabilities", "loss"] = "logits"
    label: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            return {"members": (value,), "label": value}
        if isinstance(value, dict) and isinstance(value.get("ensemble"), list):
            rest = {name: given for name, given in value.items() if name != "ensemble"}
            return {"label": "ensemble", **rest, "members": value["ensemble"]}
        if isinstance(value, dict) and "ensemble" in value:
            raise ValueError("ensemble must be a list of surrogates")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SurrogateSpec:
        _no_twins(list(self.members), "member")
        if len(self.members) > 1 and self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a single model")
        return self

    def as_written(self) -> object:
        """As a study file says it."""
        if len(self.members) == 1:
            return self.label
        return {"ensemble": list(self.members), "combine": self.combine, "label": self.label}


class TargetSpec(_Model):
    """A target that is asked rather than loaded; see :mod:`mergerisk.transfer.black_box`.

    Attributes:
        label: what results call it.
        http: task → URL of the service that answers for it.
        callable: task → ``package.module:function``.
        answer: what the service sends: ``labels`` or ``scores``.
        batch_size: images in one request.
        queries: how many images may be sent in all, repeated requests included; for ``http``.
        timeout: seconds until a request is given up.
        retries: of one request.
        token_variable: environment variable with a bearer token for the service.
        header_variables: header of a request → environment variable with its value.
        version: of the target: raise it when the target changes, so that older answers are not taken for it.
    """

    label: str
    http: dict[str, str] = Field(default_factory=dict)
    callable: dict[str, str] = Field(default_factory=dict)
    answer: Literal["labels", "scores"] = "labels"
    batch_size: PositiveInt = 16
    queries: PositiveInt | None = None
    timeout: PositiveFloat = 30.0
    retries: Annotated[int, Field(ge=0)] = 3
    token_variable: str | None = None
    header_variables: dict[str, str] = Field(default_factory=dict)
    version: str = ""

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _consistent(self) -> TargetSpec:
        if bool(self.http) == bool(self.callable):
            raise ValueError("give either http or callable, a mapping of tasks to where they are answered")
        if self.http and self.queries is None:
            raise ValueError("an http target needs queries, the number of images that may be sent to it")
        if self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a target that is no merge")
        return self

    @property
    def places(self) -> Mapping[str, str]:
        """Task → where it is answered."""
        return self.http or self.callable


class Study(_Model):
    """Everything that decides a study's results.

    Attributes:
        schema_version: of this format.
        name: what the report is titled with.
        description: a sentence for the report.
        backbone: of base, experts and merges; see :func:`mergerisk.load_encoder`.
        image_size: side of the images the backbone sees, in pixels; that of its pretraining by default.
        tasks: suites, starter tasks, or paths of ``.npz`` files.
        heads: how heads are made.
        experts: where experts come from.
        merging: methods to compare.
        attacks: transfer attacks.
        surrogates: models the attacker holds: the attacked task's ``expert``, the ``pretrained`` base, or an
            ensemble of them.
        targets: black boxes to try the adversarial images on, besides the merges.
        budgets: grid of ε.
        images_per_task: attacked images per task, class-balanced, from the test split.
        seeds: each is a replicate of all that is random: fine-tuning, calibration draws, attacks.
        calibration: unlabelled images data-driven methods read: ``held_out`` shares none with the test split;
            ``test`` reproduces the papers, whose merges see the images that are attacked.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = "study"
    description: str = ""
    backbone: str
    image_size: PositiveInt | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    heads: Heads = Heads()
    experts: Experts = Experts()
    merging: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]
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
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    calibration: Literal["held_out", "test"] = "held_out"

    @field_validator("tasks", mode="before")
    @classmethod
    def _suites(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return [task for spec in given for task in SUITES.get(str(spec), (spec,))]

    @field_validator("tasks")
    @classmethod
    def _tasks_known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        _no_twins([task_source(task).name for task in tasks], "task")
        return tasks

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        merges = [spec.label for spec in self.merging]
        _no_twins(merges, "merging label")
        _no_twins(merges + [spec.label for spec in self.targets], "target label")
        _no_twins([spec.label for spec in self.attacks], "attack label")
        _no_twins([spec.label for spec in self.surrogates], "surrogate label")
        ensembles = [spec.label for spec in self.surrogates if len(spec.members) > 1]
        _no_twins(merges + [spec.label for spec in self.targets] + ensembles, "label of a target and an ensemble")
        _no_twins([str(seed) for seed in self.seeds], "seed")
        names = [task_source(task).name for task in self.tasks]
        for task in self.experts.files:
            if task not in names:
                raise ValueError(f"experts.files: unknown task {task!r}{did_you_mean(task, names)}")
        for target in self.targets:
            for task in target.places:
                if task not in names:
                    raise ValueError(f"targets: {target.label}: unknown task {task!r}{did_you_mean(task, names)}")
        return self

    @property
    def settings(self) -> int:
        """Merging methods × tasks × attacks."""
        return len(self.merging) * len(self.tasks) * len(self.attacks)

    def resolved(self) -> Study:
        """The study with every hyper-parameter's default filled in, all of them checked.

        Raises:
            UserError: an unknown hyper-parameter, or a value out of range.
        """
        from mergerisk.finetuning.fine_tune import FineTuning
        from mergerisk.validation import construct

        fine_tune = construct(FineTuning, self.experts.fine_tune, "experts.fine_tune")
        attacks = tuple(
            _resolve_attack(spec, self.budgets.steps, f"attacks[{i}]") for i, spec in enumerate(self.attacks)
        )
        _check_after(self.budgets.after, attacks)
        return self.model_copy(
            update={
                "merging": tuple(
                    _resolve_method(spec, len(self.tasks), f"merging[{i}]") for i, spec in enumerate(self.merging)
                ),
                "attacks": attacks,
                "experts": self.experts.model_copy(update={"fine_tune": dataclasses.asdict(fine_tune)}),
            }
        )

    def to_yaml(self) -> str:
        """The study as a file that :func:`load_study` reads back."""
        content = self.model_dump(mode="json")
        for field, key in (("merging", "method"), ("attacks", "attack")):
            content[field] = [
                {key: spec["name"], **spec["parameters"], "label": spec["label"]} for spec in content[field]
            ]
        content["surrogates"] = [spec.as_written() for spec in self.surrogates]
        content["budgets"]["epsilon"] = [_as_fraction(value) for value in self.budgets.epsilon]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _as_fraction(value: float) -> float | str:
    """``2/255`` for budgets that are simple fractions of 255, for readers' sake."""
    scaled = Fraction(value * 255).limit_denominator(16)
    text = f"{scaled.numerator}/{255 * scaled.denominator}"
    return text if scaled > 0 and float(Fraction(text)) == value else value


def _no_twins(names: list[str], what: str) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        hint = "; give one a label of its own" if what.endswith("label") else ""
        raise ValueError(f"{what} {twins[0]!r} is given twice{hint}")


def _resolve_method(spec: MethodSpec, tasks: int, where: str) -> MethodSpec:
    from mergerisk.merging import Stacked, create

    with _located(where):
        method = create(spec.name, **spec.parameters)
        method.check_count(tasks)
    if isinstance(method, Stacked):
        parameters = dataclasses.asdict(method.method)  # type: ignore[call-overload]
        parameters[method.correction.name] = dataclasses.asdict(method.correction)  # type: ignore[call-overload]
    else:
        parameters = dataclasses.asdict(method)  # type: ignore[call-overload]
    return spec.model_copy(update={"parameters": parameters})


def _resolve_attack(spec: AttackSpec, steps: int, where: str) -> AttackSpec:
    from mergerisk.attacks import create, describe

    with _located(where):
        attack = create(spec.name, **spec.parameters)
        if hasattr(attack, "steps") and "steps" not in spec.parameters:
            attack = create(spec.name, **spec.parameters, steps=steps)
    return spec.model_copy(update={"parameters": describe(attack)})


def _check_after(after: tuple[int, ...], attacks: tuple[AttackSpec, ...]) -> None:
    from mergerisk.attacks import create

    most = max(create(spec.name, **spec.parameters).iterations for spec in attacks)
    if after and after[-1] >= most:
        raise UserError(f"budgets.after: {after[-1]} steps: no attack of the study takes more than {most}")


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Prefix user errors with the field they belong to."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def load_study(name: str | Path, *, resolve: bool = True, data: str | Path | None = None) -> Study:
    """A study from a file, or one that ships with the package.

    Args:
        name: ``"starter"``, or the path of a YAML file.
        resolve: check hyper-parameters and fill in their defaults, for which implementations are imported.
        data: what relative paths in the study are relative to; by default the study file's folder.

    Raises:
        UserError: no such study, not YAML, or a field that is wrong; the message names it.
    """
    path = _find(name)
    content = read_mapping(path, "a study")
    if data is not None and not Path(data).is_dir():
        raise UserError(f"--data {data}: no such folder")
    try:
        return parse_study(content, path.parent if data is None else Path(data), resolve=resolve)
    except UserError as error:
        shipped = data is None and str(name) in shipped_studies()
        hint = "; give the folder with what it reads: --data DIR" if shipped else ""
        raise UserError(f"{path}: {error}{hint}") from error


def parse_study(content: dict[str, Any], folder: Path | None = None, *, resolve: bool = True) -> Study:
    """A study from a mapping.

    Args:
        content: the fields of :class:`Study`.
        folder: what relative paths in it are relative to; the working directory by default.
        resolve: see :func:`load_study`.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    try:
        study = Study(**_with_paths(content, folder or Path()))
    except ValidationError as error:
        raise UserError(first_finding(error, Study.model_fields)) from error
    return study.resolved() if resolve else study


def _with_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths made relative to the study file."""
    content = dict(content)
    if isinstance(content.get("tasks"), list):
        content["tasks"] = [
            str((folder / task).resolve()) if isinstance(task, str) and task.endswith(".npz") else task
            for task in content["tasks"]
        ]
    if isinstance(content.get("attacks"), list):
        content["attacks"] = [
            attack | {"file": str((folder / attack["file"]).resolve())}
            if isinstance(attack, dict) and isinstance(attack.get("file"), str)
            else attack
            for attack in content["attacks"]
        ]
    experts = content.get("experts")
    if isinstance(experts, dict) and isinstance(experts.get("files"), dict):
        files = {task: str((folder / str(file)).resolve()) for task, file in experts["files"].items()}
        content["experts"] = experts | {"files": files}
    backbone = content.get("backbone")
    if isinstance(backbone, str) and (folder / backbone / "config.json").is_file():
        content["backbone"] = str((folder / backbone).resolve())
    return content


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
