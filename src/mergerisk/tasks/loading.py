"""From what a person writes to a :class:`Task`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.tasks.starter import STARTER_TASKS, STARTER_VERSION

if TYPE_CHECKING:
    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.task import Task

SUITES = {"starter": STARTER_TASKS}
"""Suites of tasks by name."""

_RENDERED_WITH = ("numpy", "pillow", "matplotlib", "scikit-learn")
"""The distributions whose versions can change a rendered pixel."""


@dataclass(frozen=True)
class TaskSource:
    """Where a task comes from, known before anything is loaded.

    Attributes:
        name: the task's name in results.
        spec: a starter task's name, or the path of an ``.npz`` file.
    """

    name: str
    spec: str

    @property
    def path(self) -> Path | None:
        return None if self.spec in STARTER_TASKS else Path(self.spec)

    def identity(self) -> dict[str, str | int | dict[str, str]]:
        """What the task's content depends on: the file's digest, or the renderer and its libraries."""
        if self.path is not None:
            return {"sha256": file_digest(self.path)}
        versions = {name: metadata.version(name) for name in _RENDERED_WITH}
        return {"starter": self.spec, "version": STARTER_VERSION, "rendered_with": versions}

    def arrays(self) -> TaskArrays:
        """Render or read the task's arrays.

        Raises:
            UserError: the file cannot be read as a task.
        """
        if self.path is not None:
            from mergerisk.tasks.npz import read_npz

            return read_npz(self.path)
        from mergerisk.tasks.starter import render

        return render(self.spec)

    def load(self) -> Task:
        """The task itself.

        Raises:
            UserError: the file is not a valid task.
        """
        from mergerisk.tasks.converting import to_task

        return to_task(self.name, self.arrays())


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def task_source(spec: str) -> TaskSource:
    """A source from a starter task's name or a path.

    Raises:
        UserError: neither a known name nor an existing ``.npz`` file.
    """
    if spec in STARTER_TASKS:
        return TaskSource(spec, spec)
    path = Path(spec)
    if path.suffix == ".npz":
        if not path.is_file():
            raise UserError(f"task {spec!r}: no such file")
        return TaskSource(path.stem, spec)
    raise UserError(f"unknown task {spec!r}{did_you_mean(spec, STARTER_TASKS)}; or give the path of an .npz file")


def load_task(spec: str) -> Task:
    """One task by name or path; see :func:`load_tasks`."""
    return task_source(spec).load()


def load_tasks(*specs: str) -> dict[str, Task]:
    """Tasks by name: a suite (``"starter"``), single starter tasks, or paths of ``.npz`` files.

    Returns:
        Task names to tasks, in the order given.

    Raises:
        UserError: an unknown name (the nearest is named), a broken file, or two tasks of one name.
    """
    sources = [task_source(spec) for given in specs for spec in SUITES.get(given, (given,))]
    tasks: dict[str, Task] = {}
    for source in sources:
        if source.name in tasks:
            raise UserError(f"task {source.name!r} is given twice; rename one of the files")
        tasks[source.name] = source.load()
    return tasks
