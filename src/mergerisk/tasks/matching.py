"""Two lists of the same classes: which row of the one is which label of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.tasks.class_names import Classes

_SHOWN = 3
"""Names in one message."""


def matching_rows(
    classes: Classes, class_names: Sequence[str], who: str, task: str, otherwise: str, *, where: str = ""
) -> list[int]:
    """The row of a classifier that each class of a task is.

    A classifier that names its classes must name the task's, in any order; one that does not must have as many, in
    the order of the task's labels. What is one name says :class:`mergerisk.tasks.class_names.Classes`.

    Args:
        classes: the classifier's.
        class_names: the task's, in the order of its labels.
        who: the classifier, for messages.
        task: the task, for messages.
        otherwise: what to do without this classifier.
        where: a field that takes another one.

    Raises:
        UserError: the classes are not the same, or it cannot be told which is which.
    """
    if classes.names is None and classes.count != len(class_names):
        raise UserError(
            f"{who}: {classes.count} classes, {task} has {len(class_names)}; give the classifier of this task"
            f"{f' under {where}' if where else ''}, or {otherwise}"
        )
    names, found = classes.names or [], classes.rows(class_names)
    for name, rows in zip(class_names, found, strict=True):
        if not rows:
            examples = ", ".join(map(repr, names[:_SHOWN]))
            raise UserError(
                f"{who}: no class {name!r}, which {task} has; its {classes.count} classes are called {examples}"
                f"{', …' if names[_SHOWN:] else ''}; rename the task's classes, or {otherwise}"
            )
    several = next(((name, rows) for name, rows in zip(class_names, found, strict=True) if rows[1:]), None)
    alike = several and f"rows {' and '.join(map(str, several[1]))} are called {several[0]!r}"
    if classes.count != len(class_names):
        extra = sorted(set(range(classes.count)) - {row for rows in found for row in rows})
        what = f"{names[extra[0]]!r} (row {extra[0]}) among them" if extra else alike
        by_row = ", called by the numbers of their rows" if alike else ""
        raise UserError(
            f"{who}: {classes.count} classes, {what}; {task} has {len(class_names)}: attacks would be counted "
            f"against classes that the task does not have; give images of every class{by_row}, or {otherwise}"
        )
    if alike:
        raise UserError(
            f"{who}: {alike}, and the task's classes are in another order; call the task's classes by the numbers "
            "of their rows, or list them in the classifier's order"
        )
    chosen = [row for rows in found for row in rows]
    first: dict[int, str] = {}
    for name, row in zip(class_names, chosen, strict=True):
        if row in first:
            raise UserError(
                f"{who}: classes {first[row]!r} and {name!r} of {task} are both its row {row}, {names[row]!r}; "
                f"make them one class, or {otherwise}"
            )
        first[row] = name
    return chosen
