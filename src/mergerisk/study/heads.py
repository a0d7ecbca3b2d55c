"""Heads that no image of the study makes, fitted to a task's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.templates import CLASS_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.models import Head
    from mergerisk.study.schema import Study


_OTHERWISE = (
    "bare encoders take heads: {from: zero_shot} (a CLIP), or heads: {from: linear_probe} and images with a "
    "training part"
)


def classifier_of(study: Study, task: str) -> str:
    """Folder or hub id of the classifier whose head a task takes, where heads come from checkpoints."""
    return study.heads.files.get(task) or study.experts.files.get(task) or study.backbone


def names_for_prompts(study: Study, task: str, spec: str) -> tuple[str, ...] | None:
    """What prompts call the classes of the task written ``spec``; None for its own names."""
    return study.heads.class_names.get(task) or CLASS_NAMES.get(spec)


def fitting_head(spec: str, task: str, class_names: Sequence[str]) -> Head:
    """The head of a classifier for a task with these classes, its rows in the order of the task's labels.

    A classifier that names its classes must name the task's; one that does not must have as many.

    Args:
        spec: folder or hub id of the classifier.
        task: the task's name, for messages.
        class_names: one per label.

    Raises:
        UserError: it has no head, or other classes.
    """
    from mergerisk.models import Head, checkpoint_head  # PyTorch: a report makes no head

    try:
        head, known = checkpoint_head(spec)
    except UserError as error:
        raise UserError(f"{error}; {_OTHERWISE}") from error
    rows = len(head.weight)
    if known is None:
        if rows != len(class_names):
            raise UserError(
                f"head of {spec}: {rows} classes, task {task!r} has {len(class_names)}; give the classifier of "
                "this task under heads.files, or take heads from: linear_probe"
            )
        return head
    missing = [name for name in class_names if name not in known]
    if missing:
        examples = ", ".join(repr(name) for name in known[:3])
        raise UserError(
            f"head of {spec}: no class {missing[0]!r}, which task {task!r} has; its {rows} classes are called "
            f"{examples}, …; rename the task's classes, or take heads from: linear_probe"
        )
    if rows != len(class_names):
        extra = next(name for name in known if name not in set(class_names))
        raise UserError(
            f"head of {spec}: {rows} classes, {extra!r} among them; task {task!r} has {len(class_names)}: attacks "
            "would be counted against classes that the task does not have"
        )
    order = [known.index(name) for name in class_names]
    return Head(head.weight[order], head.bias[order], normalize=head.normalize)


def prompt_names(task: str, class_names: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    """What prompts call a task's classes.

    Args:
        task: the task's name, for messages.
        class_names: the task's own.
        given: others, in the order of the labels; None for the task's own.

    Raises:
        UserError: there are not as many.
    """
    if given is None:
        return tuple(class_names)
    if len(given) != len(class_names):
        raise UserError(
            f"heads.class_names.{task}: {len(given)} names for prompts, the task has {len(class_names)} classes; "
            "give one name per class, in the order of the labels"
        )
    return tuple(given)
