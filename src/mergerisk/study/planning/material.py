"""What exists once per task, whatever the seed: its images and its heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mergerisk.models.sources.loading import text_identity
from mergerisk.models.sources.templates import templates_for
from mergerisk.study.backbone import Backbone
from mergerisk.study.heads import classifier_of, names_for_prompts
from mergerisk.study.kinds.classifier_head import ClassifierHead
from mergerisk.study.kinds.file_head import FileHead
from mergerisk.study.kinds.probe import Probe
from mergerisk.study.kinds.zero_shot_head import ZeroShotHead
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Head
    from mergerisk.study.keyed import Input
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages
    from mergerisk.tasks import Task
    from mergerisk.tasks.source import TaskSource


class Carried(NamedTuple):
    """A task's head, on the backbone that it belongs to."""

    backbone: Backbone
    head: Input[Head]


@dataclass(frozen=True)
class Material:
    """What exists once per task.

    Attributes:
        backbone: the study's.
        tasks: task → its images.
        attacked: task → the images of it that are attacked, as a task's test images.
        heads: task → its head on the study's backbone.
        others: task → its head on the other architecture, if the study has one.
    """

    backbone: Backbone
    tasks: Mapping[str, Input[Task]]
    attacked: Mapping[str, Input[Task]]
    heads: Mapping[str, Input[Head]]
    others: Mapping[str, Carried]


def plan_material(study: Study, stages: Stages) -> Material:
    """Have every task and head made.

    Raises:
        UserError: a file that the study names cannot be read.
    """
    backbone = Backbone.of(study.backbone, study.image_size, study.preprocessing)
    sources = {spec.source.name: spec.source for spec in study.tasks}
    tasks = {name: stages.task(source) for name, source in sources.items()}
    heads = {name: plan_head(study, stages, backbone, source, tasks[name]) for name, source in sources.items()}
    others, other = {}, study.other_architecture
    if other is not None:
        itself = Backbone.of(other.backbone, other.image_size, other.preprocessing)
        others = {
            name: Carried(itself, plan_probe(study, stages, itself, name, task)) for name, task in tasks.items()
        }
    held_out = study.attacked == "calibration"
    attacked = {name: stages.held_out(task) for name, task in tasks.items()} if held_out else tasks
    return Material(backbone, tasks, attacked, heads, others)


def plan_head(
    study: Study, stages: Stages, backbone: Backbone, source: TaskSource, task: Input[Task]
) -> Input[Head]:
    """The head that every encoder carries for a task."""
    name = source.name
    match study.heads.source:
        case "linear_probe":
            return plan_probe(study, stages, backbone, name, task)
        case "zero_shot":
            names = names_for_prompts(study, name, source.spec)
            return stages.add(
                ZeroShotHead(
                    label=name,
                    task=task,
                    templates=tuple(study.heads.templates.get(name) or templates_for(name)),
                    class_names=None if names is None else tuple(names),
                    text=text_identity(study.backbone),
                    backbone=backbone,
                )
            )
        case "files":
            file = study.heads.files[name]
            return stages.add(FileHead(label=name, task=task, digest=file_digest(Path(file)), file=file))
    from mergerisk.models.sources.heads import head_identity  # PyTorch: a report plans nothing

    file = classifier_of(study, name)
    # A classifier of timm does not say what its head is called; its backbone does.
    needed = file != study.backbone and study.backbone.startswith("timm:")
    return stages.add(
        ClassifierHead(
            label=name,
            task=task,
            identity=head_identity(file),
            of=study.backbone if needed else None,
            file=file,
            backbone=backbone,
        )
    )


def plan_probe(study: Study, stages: Stages, backbone: Backbone, name: str, task: Input[Task]) -> Input[Head]:
    """A linear probe on a backbone."""
    return stages.add(
        Probe(
            label=name,
            task=task,
            backbone=backbone,
            regularization=study.heads.regularization,
            images=stages.sizes(task).train,
        )
    )
