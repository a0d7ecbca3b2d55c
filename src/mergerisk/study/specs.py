"""The parts of a study file, each typed and checked by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.errors import did_you_mean
from mergerisk.merging.catalogue import split_name
from mergerisk.models.core.stated import StatedOrBase
from mergerisk.tasks.loading import TaskSource, task_name, task_source
from mergerisk.validation import parse_fraction

if TYPE_CHECKING:
    from collections.abc import Mapping

RESERVED_TARGETS = ("expert", "pretrained")
"""What results call the targets that are no merge."""

OUTSIDER = "outsider"
OTHER_ARCHITECTURE = "other_architecture"


def _fraction(value: object) -> object:
    """``"2/255"`` as a number; anything else as it is."""
    return parse_fraction(value) if isinstance(value, str) else value


Epsilon = Annotated[float, BeforeValidator(_fraction), Field(gt=0, allow_inf_nan=False)]
"""A budget in pixel units, above 0; at most 1 if it is an L∞ one."""


Source = Annotated[str, Field(min_length=1)]
"""Where something is: a name, a path or a hub id."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Model(BaseModel):
    """What a mapping of a study file becomes: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


FILES = "files"
"""Key of pydantic's context: whether what a study names has to be there; it has, unless this says otherwise."""


def _looks(info: ValidationInfo) -> bool:
    return not isinstance(info.context, dict) or bool(info.context.get(FILES, True))


class TaskSpec(Model):
    """A task: ``digits``, ``photos/`` or ``{task: photos/, size: 224, limit: {test: 500}}``.

    Attributes:
        task: a starter task, a path, one of the eight tasks of FusionBench by name, or ``hub:org/name``.
        options: see :func:`mergerisk.load_task`.
    """

    task: Source
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            return {"task": value}
        if isinstance(value, dict) and "options" not in value:
            return {
                "task": value.get("task"),
                "options": {name: given for name, given in value.items() if name != "task"},
            }
        if not isinstance(value, cls | dict):
            raise ValueError("must be a name or path, or a mapping with 'task' and options")  # noqa: TRY004
        return value

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> TaskSpec:
        _ = self.source if _looks(info) else self.called
        return self

    @property
    def called(self) -> str:
        """What results call it; its files need not be there."""
        return task_name(self.task, **self.options)

    @property
    def source(self) -> TaskSource:
        """Where it comes from."""
        return task_source(self.task, **self.options)

    def as_written(self) -> object:
        """As a study file says it."""
        return {"task": self.task, **self.options} if self.options else self.task


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
    """A merging method: ``ties`` or ``{method: ties, density: 0.1, label: ties-10}``."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return value if isinstance(value, cls) else cls.parse(value, "method")

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> MethodSpec:
        if _looks(info):
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
        if _looks(info):
            ATTACKS.check(self.name)
        return self


class Heads(Model):
    """How every task gets the head that all encoders carry.

    Attributes:
        source: ``linear_probe`` on the pretrained encoder; ``zero_shot`` from class names, through the backbone's
            text tower; ``checkpoint``, the head that comes with a classifier; or ``files``, a linear layer each.
        regularization: of the linear probe: scikit-learn's C.
        templates: of zero-shot heads, task → prompts with ``{}`` for the class; by default those of the eight
            tasks of FusionBench by the task's name, else ``a photo of a {}.``
        class_names: of zero-shot heads, task → what prompts call the classes, in the order of the labels; by
            default as for ``templates``, else the task's own.
        files: of ``checkpoint``, task → folder or hub id of the classifier; by default the task's expert, else the
            backbone. Of ``files``, task → safetensors file with ``weight`` and perhaps ``bias``; every task needs
            one.
    """

    source: Literal["linear_probe", "zero_shot", "checkpoint", "files"] = Field(
        default="linear_probe", alias="from"
    )
    regularization: PositiveFloat = 1.0
    templates: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    class_names: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    files: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Heads:
        for field, *needed in (
            ("templates", "zero_shot"),
            ("class_names", "zero_shot"),
            ("files", "checkpoint", "files"),
        ):
            if getattr(self, field) and self.source not in needed:
                wanted = " or from ".join(needed)
                raise ValueError(f"{field} belongs to heads from {wanted}; these come from {self.source}")
        for task, templates in self.templates.items():
            for template in templates:
                if template.count("{}") != 1:
                    raise ValueError(f"templates.{task}: {template!r} must hold {{}} once, for the class")
        return self


class Experts(Model):
    """Where experts come from.

    Attributes:
        source: ``fine_tune`` in the run, except those with files; ``hub``, FusionBench's for the backbone; or
            ``files`` alone: tasks without one have no expert, and are attacked all the same.
        fine_tune: hyper-parameters of :class:`mergerisk.finetuning.FineTuning`.
        files: task → folder, ``.safetensors`` file with the encoder's parameters, or hub id.
    """

    source: Literal["fine_tune", "hub", "files"] = Field(default="fine_tune", alias="from")
    fine_tune: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, Source] = Field(default_factory=dict)


class Outsider(Model):
    """An attacker who fine-tunes the backbone with data of their own.

    Attributes:
        task: the data; by default every attacked task's own training images, under another seed than its expert.
        file: the attacker's weights, if they exist already: folder, file or hub id.
        fine_tune: changes of the experts' hyper-parameters.
        seed: added to the study's.
        offered: whether the result is among the ingredients that are merged; ``task`` or ``file`` is then needed.
    """

    task: TaskSpec | None = None
    file: Source | None = None
    fine_tune: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[Seed, Field(gt=0)] = 1000
    offered: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Outsider:
        if self.task is not None and self.file is not None:
            raise ValueError("give the outsider's task, or its file, not both")
        if self.offered and self.task is None and self.file is None:
            raise ValueError("offered to every merge: give the outsider's task or file")
        return self


class OtherArchitecture(Model):
    """A surrogate of another architecture than the merged models'.

    Attributes:
        backbone: see :func:`mergerisk.load_encoder`.
        image_size: side of the images it sees; that of its pretraining by default.
        preprocessing: of its pixels, instead of its own.
        fine_tuned: whether the attacker fine-tunes it on every attacked task, as the experts are.
        fine_tune: changes of the experts' hyper-parameters.
    """

    backbone: Source
    image_size: PositiveInt | None = None
    preprocessing: StatedOrBase = None
    fine_tuned: bool = True
    fine_tune: dict[str, Any] = Field(default_factory=dict)


class Budgets(Model):
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


class Reference(NamedTuple):
    """A model of the study, by what it is: ``expert``, ``expert/mnist``, ``merged/ties``.

    Attributes:
        kind: one of :data:`SURROGATES`.
        name: which, where there are several.
    """

    kind: str
    name: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises:
        ValueError: an unknown kind, or a name too many or too few.
        """
        kind, slash, name = text.partition("/")
        if kind not in SURROGATES:
            raise ValueError(f"unknown surrogate {kind!r}{did_you_mean(kind, SURROGATES)}")
        named = SURROGATES[kind].named
        if named == "always" and not name:
            raise ValueError(f"{kind}: say which: {kind}/NAME")
        if slash and (named == "never" or not name):
            raise ValueError(f"{text!r}: must be {kind!r}")
        return cls(kind, name or None)


class Scenario(NamedTuple):
    """A kind of surrogate.

    Attributes:
        named: whether a name behind a slash tells which.
        summary: whose model it is.
    """

    named: Literal["never", "may be", "always"]
    summary: str


SURROGATES: Mapping[str, Scenario] = {
    "expert": Scenario("may be", "the attacked task's expert, from the hub say; expert/TASK is another task's"),
    "pretrained": Scenario("never", "the backbone that all experts were fine-tuned from, as it is"),
    "other_expert": Scenario("never", "an expert of the wrong task: that of the next one in the study's order"),
    "ingredient": Scenario(
        "always", "a merged model that belongs to no attacked task, by its name in ingredients"
    ),
    OUTSIDER: Scenario("never", "the backbone, fine-tuned by the attacker: with another seed, or with own data"),
    OTHER_ARCHITECTURE: Scenario("never", "a model that shares the task with the merge, but no weights"),
    "merged": Scenario(
        "always", "the merge itself, by its label: white box, the upper bound; merged alone is all"
    ),
}
"""Kinds of surrogates."""

_ALIKE = ("expert", "pretrained", "other_expert", "ingredient", OUTSIDER)
"""Those that are one encoder of the study's architecture under the task's head."""


class SurrogateSpec(Model):
    """A model the attacker holds: ``expert``, ``merged/ties``, or several at once:
    ``{ensemble: [expert, pretrained], combine: logits, label: both}``.

    Attributes:
        members: one of :data:`SURROGATES`, or those of an ensemble.
        combine: what an ensemble averages; see :class:`mergerisk.attacks.Ensemble`.
        label: what results call it.
    """

    members: Annotated[tuple[str, ...], Field(min_length=1)]
    combine: Literal["logits", "probabilities", "loss"] = "logits"
    label: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            return {"members": (value,), "label": _label(value)}
        if isinstance(value, dict) and isinstance(value.get("ensemble"), list):
            rest = {name: given for name, given in value.items() if name != "ensemble"}
            return {"label": "ensemble", **rest, "members": value["ensemble"]}
        if isinstance(value, dict) and "ensemble" in value:
            raise ValueError("ensemble must be a list of surrogates")
        if not isinstance(value, cls | dict):
            raise ValueError("must be a name, or a mapping with 'ensemble'")  # noqa: TRY004
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SurrogateSpec:
        no_twins(list(self.members), "member")
        references = [Reference.parse(member) for member in self.members]
        if len(references) == 1:
            if self.label != _label(self.members[0]):
                raise ValueError(f"a single model is called {_label(self.members[0])!r}, not {self.label!r}")
            return self
        if self.label in SURROGATES:
            raise ValueError(f"label {self.label!r} is taken by a single model")
        for reference in references:
            if reference.kind not in _ALIKE:
                raise ValueError(f"{reference.kind} cannot be part of an ensemble; possible: {', '.join(_ALIKE)}")
        return self

    @property
    def references(self) -> tuple[Reference, ...]:
        """The members, taken apart."""
        return tuple(Reference.parse(member) for member in self.members)

    def as_written(self) -> object:
        """As a study file says it."""
        if len(self.members) == 1:
            return self.members[0]
        return {"ensemble": list(self.members), "combine": self.combine, "label": self.label}


def _label(member: str) -> str:
    """What results call a surrogate: a merge has one name, whether it is attacked or held."""
    return member.removeprefix("merged/").removeprefix("ingredient/")


class TargetSpec(Model):
    """A target besides the merges: a model of the study's architecture, such as a merge made elsewhere, or one
    that is asked rather than loaded; see :mod:`mergerisk.transfer.black_box`.

    Attributes:
        label: what results call it.
        encoder: folder, file or hub id of a model, which carries the heads of all tasks.
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
    encoder: Source | None = None
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
        if [bool(self.encoder), bool(self.http), bool(self.callable)].count(True) != 1:
            raise ValueError(
                "give encoder, a model's folder or file, or else http or callable, a mapping of tasks to where "
                "they are answered"
            )
        if self.http and self.queries is None:
            raise ValueError("an http target needs queries, the number of images that may be sent to it")
        if self.label in RESERVED_TARGETS:
            raise ValueError(f"label {self.label!r} is taken by a target that is no merge")
        return self

    @property
    def places(self) -> Mapping[str, str]:
        """Task → where it is answered, of one that is asked."""
        return self.http or self.callable


def no_twins(names: list[str], what: str) -> None:
    """Raises:
    ValueError: a name is given twice.
    """
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        hint = "; give one a label of its own" if what.endswith("label") else ""
        raise ValueError(f"{what} {twins[0]!r} is given twice{hint}")
