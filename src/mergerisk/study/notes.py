"""What a study's user must know to read its figures, as far as that shows before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.study.named_sources import named_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.study.schema import Study
    from mergerisk.tasks.outline import Outline, Remarks
    from mergerisk.tasks.source import TaskSource


def task_sources(study: Study) -> tuple[TaskSource, ...]:
    """The study's tasks, and the outsider's own."""
    return tuple(one.data.source for one in named_sources(study) if one.kind == "data")


def notes_of(study: Study, outlines: Mapping[TaskSource, Outline] | None = None) -> tuple[str, ...]:
    """A sentence each: what must be said of its tasks, and of models that may have been trained on test images.

    Args:
        study: a resolved study.
        outlines: of every task, where they are known; without, nothing is said of data sets of the hub that are
            not downloaded yet.

    Raises:
        UserError: a task's files, classes or splits are at fault.
    """
    return tuple(
        note
        for source in task_sources(study)
        for note in _of_task(study, source, source.remarks() if outlines is None else outlines[source].remarks)
    )


def _of_task(study: Study, source: TaskSource, said: Remarks) -> Iterator[str]:
    """What must be said of one task: its own remarks, and whether models may have seen its test images."""
    yield from (f"task {source.name!r}: {sentence}" for sentence in said.sentences)
    tested = source.name in study.task_names
    elsewhere = next(_made_elsewhere(study, source.name), None)
    if said.trained_on and tested and elsewhere is not None:
        yield (
            f"task {source.name!r}: test images come from {said.trained_on!r}: a model made elsewhere, such as "
            f"{elsewhere}, may have been trained on them, and its figures then say little about new images; give "
            "a test split"
        )


def _made_elsewhere(study: Study, task: str) -> Iterator[str]:
    """The models that the study does not train itself, those of the task first."""
    if task in study.experts.files:
        yield f"the expert of {task!r}"
    yield from (f"the target {spec.label!r}" for spec in study.targets)
    yield from (f"the expert of {name!r}" for name in study.experts.files)
    yield from (f"the ingredient {name!r}" for name in study.ingredients)
    if study.outsider is not None and study.outsider.file is not None:
        yield "the outsider"
