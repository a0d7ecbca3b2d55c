"""Heads that no image of the study makes, fitted to a task's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.models.templates import CLASS_NAMES
from mergerisk.tasks.class_names import Classes, in_words, same_in_words

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
    rows = _rows(Classes(known, len(head.weight), "the classifier"), spec, task, class_names)
    return Head(head.weight[rows], head.bias[rows], normalize=head.normalize)


def _rows(classes: Classes, spec: str, task: str, class_names: Sequence[str]) -> list[int]:
    """The classifier's row of every class of a task.

    Raises:
        UserError: the classes are not the same, or it cannot be told which is which.
    """
    if classes.names is None and classes.count != len(class_names):
        raise UserError(
            f"head of {spec}: {classes.count} classes, task {task!r} has {len(class_names)}; give the classifier "
            "of this task under heads.files, or take heads from: linear_probe"
        )
    names, found = classes.names or [], classes.rows(class_names)
    for name, rows in zip(class_names, found, strict=True):
        if not rows:
            examples = ", ".join(map(repr, names[:3]))
            raise UserError(
                f"head of {spec}: no class {name!r}, which task {task!r} has; its {classes.count} classes are "
                f"called {examples}, …; rename the task's classes, or take heads from: linear_probe"
            )
    several = next(((name, rows) for name, rows in zip(class_names, found, strict=True) if rows[1:]), None)
    alike = several and f"rows {' and '.join(map(str, several[1]))} are called {several[0]!r}"
    if classes.count != len(class_names):
        extra = sorted(set(range(classes.count)) - {row for rows in found for row in rows})
        what = f"{names[extra[0]]!r} (row {extra[0]}) among them" if extra else alike
        by_row = ", called by the numbers of their rows" if alike else ""
        raise UserError(
            f"head of {spec}: {classes.count} classes, {what}; task {task!r} has {len(class_names)}: attacks "
            "would be counted against classes that the task does not have; give images of every class"
            f"{by_row}, or take heads from: linear_probe"
        )
    if alike:
        raise UserError(
            f"head of {spec}: {alike}, and the task's classes are in another order; call the task's classes by "
            "the numbers of their rows, or list them in the classifier's order"
        )
    chosen = [row for rows in found for row in rows]
    first: dict[int, str] = {}
    for name, row in zip(class_names, chosen, strict=True):
        if row in first:
            raise UserError(
                f"head of {spec}: classes {first[row]!r} and {name!r} of task {task!r} are both its row {row}, "
                f"{names[row]!r}; make them one class, or take heads from: linear_probe"
            )
        first[row] = name
    return chosen


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
