"""Where tasks, heads, experts and other models come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from mergerisk.models.core.stated import StatedOrBase
from mergerisk.study.fields.basics import Model, Seed, looks
from mergerisk.study.fields.names import BackboneName, HeadName, ModelName, Names, TaskName
from mergerisk.study.fields.written import TEXT, name_or_mapping
from mergerisk.tasks.loading import task_name, task_source
from mergerisk.validation import ImageSize

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from mergerisk.tasks.source import TaskSource


class TaskSpec(Model):
    """A task: ``digits``, ``photos/`` or ``{task: photos/, size: 224, limit: {test: 500}}``.

    Attributes:
        task: a starter task, a path, one of the eight tasks of FusionBench by name, or ``hub:org/name``.
        options: see :func:`mergerisk.load_task`.
    """

    task: TaskName
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

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        own = handler.resolve_ref_schema(handler(core))
        return name_or_mapping(core, handler, {"task": own["properties"]["task"]}, "task", name=TEXT)

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> TaskSpec:
        _ = self.source if looks(info) else self.called
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


Data = Annotated[TaskSpec, Names("data")]


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
    regularization: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    templates: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    class_names: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    files: dict[str, HeadName] = Field(default_factory=dict)

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
    files: dict[str, ModelName] = Field(default_factory=dict)


class Outsider(Model):
    """An attacker who fine-tunes the backbone with data of their own.

    Attributes:
        task: the data; by default every attacked task's own training images, under another seed than its expert.
        file: the attacker's weights, if they exist already: folder, file or hub id.
        fine_tune: changes of the experts' hyper-parameters.
        seed: added to the study's.
        offered: whether the result is among the ingredients that are merged; ``task`` or ``file`` is then needed.
        minority: share that one half of the classes, drawn, makes up of the training images; by default they are
            left as they are.
    """

    task: Data | None = None
    file: ModelName | None = None
    fine_tune: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[Seed, Field(gt=0)] = 1000
    offered: bool = False
    minority: Annotated[float, Field(gt=0, le=0.5)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Outsider:
        if self.task is not None and self.file is not None:
            raise ValueError("give the outsider's task, or its file, not both")
        if self.minority is not None and self.file is not None:
            raise ValueError("minority: the outsider's file is not fine-tuned in the run; leave one out")
        if self.offered and self.task is None and self.file is None:
            raise ValueError("offered to every merge: give the outsider's task or file")
        return self


class Averaged(Model):
    """An attacker who fine-tunes the backbone on every attacked task's training images, as an outsider without own
    data does, trains on at a constant learning rate, and crafts on the mean of the weights that this passes.

    Attributes:
        fine_tune: changes of the experts' hyper-parameters.
        collect: hyper-parameters of :class:`mergerisk.finetuning.Collecting`.
        seed: added to the study's.
    """

    fine_tune: dict[str, Any] = Field(default_factory=dict)
    collect: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[Seed, Field(gt=0)] = 1000


class OtherArchitecture(Model):
    """A surrogate of another architecture than the merged models'.

    Attributes:
        backbone: see :func:`mergerisk.load_encoder`.
        image_size: side of the images it sees; that of its pretraining by default.
        preprocessing: of its pixels, instead of its own.
        fine_tuned: whether the attacker fine-tunes it on every attacked task, as the experts are.
        fine_tune: changes of the experts' hyper-parameters.
    """

    backbone: BackboneName
    image_size: ImageSize | None = None
    preprocessing: StatedOrBase = None
    fine_tuned: bool = True
    fine_tune: dict[str, Any] = Field(default_factory=dict)
