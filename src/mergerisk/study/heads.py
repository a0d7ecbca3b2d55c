"""Heads that no image of the study makes, fitted to a task's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.sources.templates import CLASS_NAMES
from mergerisk.tasks.class_names import Classes, in_words, same_in_words
from mergerisk.tasks.matching import matching_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.models import Head
    from mergerisk.study.schema import Study


_OTHERWISE = (
    "bare encoders take heads: {from: zero_shot} (a CLIP), {from: files}, or {from: linear_probe} and images with "
    "a training part"
)


def classifier_of(study: Study, task: str) -> str:
    """Folder or hub id of the classifier whose head a task takes, where heads come from checkpoints."""
    return study.heads.files.get(task) or study.experts.files.get(task) or study.backbone


def names_for_prompts(study: Study, task: str, spec: str) -> tuple[str, ...] | None:
    """What prompts call the classes of the task written ``spec``; None for its own names."""
    return study.heads.class_names.get(task) or CLASS_NAMES.get(spec)


def head_of_file(spec: str, task: str, class_names: Sequence[str]) -> Head:
    """The head in a file, whose rows are in the order of the task's labels.

    Raises:
        UserError: there is none, or it has not as many rows as the task has classes.
    """
    from mergerisk.models import head_from_file

    head = head_from_file(spec)
    if len(head.weight) != len(class_names):
        raise UserError(
            f"head of {spec}: {len(head.weight)} classes, task {task!r} has {len(class_names)}; give the head of "
            "this task, its rows in the order of the labels"
        )
    return head


def fitting_head(spec: str, task: str, class_names: Sequence[str], backbone: str = "") -> Head:
    """The head of a classifier for a task with these classes, its rows in the order of the task's labels.

    A classifier that names its classes must name the task's; one that does not must have as many, in the order of
    the task's labels. What is one name says :class:`mergerisk.tasks.class_names.Classes`.

    Args:
        spec: folder or hub id of the classifier.
        task: the task's name, for messages.
        class_names: one per label.
        backbone: of the study; needed where it is one of timm.

    Raises:
        UserError: it has no head, or other classes.
    """
    from mergerisk.models import Head, checkpoint_head  # PyTorch: a report makes no head

    try:
        head, known = checkpoint_head(spec, backbone=backbone)
    except UserError as error:
        raise UserError(f"{error}; {_OTHERWISE}") from error
    classes = Classes(known, len(head.weight), "the classifier")
    rows = matching_rows(
        classes,
        class_names,
        f"head of {spec}",
        f"task {task!r}",
        "take heads from: linear_probe",
        where="heads.files",
    )
    return Head(head.weight[rows], head.bias[rows], normalize=head.normalize)


def prompt_names(task: str, class_names: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    """What prompts call a task's classes.

    Args:
        task: the task's name, for messages.
        class_names: the task's own.
        given: others, in the order of the labels; None for the task's own.

    Returns:
        One name per class, with spaces for underscores.

    Raises:
        UserError: there are not as many, or two are the same.
    """
    names = tuple(map(in_words, class_names if given is None else given))
    if len(names) != len(class_names):
        raise UserError(
            f"heads.class_names.{task}: {len(names)} names for prompts, the task has {len(class_names)} classes; "
            "give one name per class, in the order of the labels"
        )
    if twins := same_in_words(names):
        first, second = twins
        raise UserError(
            f"task {task!r}: prompts cannot tell classes {first} and {second} apart, both {names[first]!r}; give "
            f"names that differ under heads.class_names.{task}"
        )
    return names
